"""A real systemd as process 1 of a container over the running root, for the test of the units.

Knows: overlays, systemd-nspawn, and what of them must be cleaned up. Must not know: Headway's units.

The container sees this machine's files through an overlay whose upper layer is a tmpfs: it may write
anywhere, and nothing of it stays. All mounts are made in a mount namespace of its own, which goes with its
last process. What nspawn leaves behind in the cgroup tree is removed by `close`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

BOOT = """
set -e
mount -t tmpfs -o size=1g tmpfs "$FOLDER"
mkdir "$FOLDER"/u "$FOLDER"/w "$FOLDER"/m
mount -t overlay overlay -o "lowerdir=/,upperdir=$FOLDER/u,workdir=$FOLDER/w" "$FOLDER/m"
rm -rf "$FOLDER"/m/etc/systemd/system/*.wants "$FOLDER"/m/etc/systemd/system/headway*
exec systemd-nspawn --quiet --directory="$FOLDER/m" --register=no --keep-unit --private-network \
    --console=pipe --link-journal=no "$@" --boot systemd.unit=multi-user.target
"""
CGROUPS = Path("/sys/fs/cgroup")
TOOLS = ("unshare", "nsenter", "systemd-nspawn", "systemd-analyze")


def missing() -> str:
    """Why no systemd can be booted here; "" if nothing speaks against it."""
    if os.geteuid() != 0:
        return "only root can boot a systemd of its own (systemd-nspawn)"
    gone = [tool for tool in TOOLS if shutil.which(tool) is None]
    if gone:
        return f"not installed: {', '.join(gone)} (Debian: apt-get install systemd-container)"
    if "overlay" not in Path("/proc/filesystems").read_text():
        return "the kernel has no overlayfs"
    tried = subprocess.run(["unshare", "-m", "true"], capture_output=True, text=True, check=False)
    return f"no mount namespace: {tried.stderr.strip()}" if tried.returncode else ""


class CannotBoot(Exception):
    """nspawn ended: this machine does not allow what it needs."""


class Machine:
    """The booted container. `binds` are folders of this machine, by where they are there, read-only."""

    def __init__(self, binds: Mapping[str, Path]) -> None:
        self._before = set(_cgroups())
        self._folder = tempfile.mkdtemp(prefix="hw-nspawn-")
        self._log = (Path(self._folder).parent / (Path(self._folder).name + ".log")).open("w+b")
        options = [f"--bind-ro={here}:{there}" for there, here in binds.items()]
        self._process = subprocess.Popen(
            ["unshare", "-m", "--propagation", "private", "bash", "-c", BOOT, "boot", *options],
            env={**os.environ, "FOLDER": self._folder},
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self.leader = 0

    def boot(self, within_s: float = 30.0) -> None:
        """Wait until systemd runs. Raises: CannotBoot when nspawn gives up; AssertionError with what it said
        when systemd does not get there."""
        end = time.monotonic() + within_s
        while time.monotonic() < end and self._process.poll() is None:
            self.leader = self.leader or _systemd_of(self._process.pid)
            if self.leader and self.run("systemctl", "is-system-running", check=False) == "running":
                return
            time.sleep(0.05)
        if self._process.poll() is not None:
            raise CannotBoot(self.said().strip()[-500:])
        failed = self.run("systemctl", "--failed", check=False) if self.leader else ""
        raise AssertionError(f"systemd did not start:\n{self.said()[-2000:]}\n{failed}")

    def run(self, *command: str, check: bool = True, timeout_s: float = 60.0) -> str:
        """What a command says inside. Raises: AssertionError when it fails."""
        done = subprocess.run(
            [*self.enter("-m", "-u", "-i", "-p", "-C", "-r", "-w"), *command],
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_s,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", "SYSTEMD_PAGER": ""},
            cwd="/",
        )
        if check:
            assert done.returncode == 0, f"{' '.join(command)}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout.strip()

    def enter(self, *namespaces: str) -> list[str]:
        """The beginning of a command that runs in the container's network, and what else is named."""
        return ["nsenter", "-t", str(self.leader), "-n", *namespaces]

    def path(self, inside: str) -> Path:
        """A file of the container, for us."""
        return Path(f"/proc/{self.leader}/root{inside}")

    def said(self) -> str:
        self._log.seek(0)
        return self._log.read().decode(errors="replace")

    def close(self) -> None:
        """Power off, and leave nothing behind."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(15)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()
        self._log.close()
        Path(self._log.name).unlink()
        Path(self._folder).rmdir()
        for folder in sorted(set(_cgroups()) - self._before, key=lambda f: len(f.parts), reverse=True):
            _remove_cgroup(folder)


def _remove_cgroup(folder: Path) -> None:
    for _ in range(50):  # until its last process is gone
        with contextlib.suppress(OSError):
            folder.rmdir()
        if not folder.exists():
            return
        time.sleep(0.05)


def _cgroups() -> Iterator[Path]:
    """The folders that nspawn makes in the machine's cgroup tree."""
    for name in ("payload", "supervisor"):
        for top in (*CGROUPS.glob(name), *CGROUPS.glob(f"*/{name}")):
            yield from (Path(folder) for folder, _, _ in os.walk(top))


def _systemd_of(nspawn: int) -> int:
    """The container's process 1, as this machine numbers it; 0 while there is none."""
    try:
        for child in Path(f"/proc/{nspawn}/task/{nspawn}/children").read_text().split():
            if Path(f"/proc/{child}/comm").read_text() == "systemd\n":
                return int(child)
    except (FileNotFoundError, ProcessLookupError):
        pass
    return 0
