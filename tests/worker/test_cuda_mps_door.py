"""`scripts/cuda-mps`, as an operator runs it, with stand-ins for NVIDIA's programs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from headway.exits import Exit
from tests.cuda_mps.daemon import PROGRAMS, Daemon, until

pytestmark = pytest.mark.system

SCRIPT = PROGRAMS.parents[1] / "scripts" / "cuda-mps"
GPU = "GPU-aaaaaaaa-0000-0000-0000-000000000001"


class Host:
    """A host with two GPUs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.daemon = Daemon(folder / "run" / f"cuda-mps-{GPU}")
        self.changes = folder / "changes"

    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "PATH": f"{PROGRAMS}:{os.environ['PATH']}",
            "PYTHON": sys.executable,
            "PYTHONPATH": ":".join(path for path in sys.path if path),
            "NVIDIA_SMI_STANDIN": str(self.changes),
            "HEADWAY_RUN_DIR": str(self.folder / "run"),
            "HEADWAY_STATE_DIR": str(self.folder / "state"),
        }

    def run(self, *arguments: str, code: int = 0) -> str:
        """What it said, on either stream; it must end with this code."""
        done = subprocess.run(
            [SCRIPT, *arguments],
            env=self.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
        )
        assert done.returncode == code, done.stdout
        return done.stdout

    def close(self) -> None:
        self.daemon.stop()
        pid = self.daemon.control.daemon_pid()
        if pid:
            os.kill(pid, signal.SIGTERM)
            until(lambda: not self.daemon.control.daemon_pid())


@pytest.fixture
def host() -> Iterator[Host]:
    with TemporaryDirectory(prefix="hw-") as folder:
        made = Host(Path(folder))
        try:
            yield made
        finally:
            made.close()


def test_a_daemon_is_started_seen_and_stopped(host: Host) -> None:
    assert f"the daemon of {GPU} is ready" in host.run("start", "GPU-aaaa", "--exclusive")
    assert host.changes.read_text() == f"-i {GPU} -c EXCLUSIVE_PROCESS\n"
    assert (host.daemon.pipe_dir / "standin/visible").read_text() == GPU
    assert host.daemon.pipe_dir.stat().st_mode & 0o777 == 0o750
    assert "is there already" in host.run("start", GPU)
    assert host.run("status") == f"{GPU} no server yet\n"
    stuck = host.daemon.stuck_client()
    assert "ACTIVE clients 1" in host.run("status", GPU)
    assert f"client  {stuck.pid} {sys.executable} -c" in host.run("inspect", GPU)
    host.run("stop", GPU, "--force-after-s", "1", "--default-mode")
    assert host.changes.read_text().endswith(f"-i {GPU} -c DEFAULT\n")
    assert host.daemon.control.daemon_pid() is None
    assert host.run("status") == ""


def test_in_the_foreground_the_script_becomes_the_daemon(host: Host) -> None:
    process = subprocess.Popen([SCRIPT, "start", GPU, "--foreground"], env=host.environment())
    until(lambda: host.daemon.control.daemon_pid() == process.pid)
    process.terminate()
    assert process.wait(10) == 0


def test_a_fault_shows_in_the_status_and_its_exit_code(host: Host) -> None:
    host.run("start", GPU)
    host.daemon.stuck_client()
    host.daemon.tell(state="FAULT")
    assert "FAULT clients 1" in host.run("status", code=Exit.DEVICE_FAULT)


def test_a_stuck_client_is_ended_and_its_neighbour_lives(host: Host) -> None:
    host.run("start", GPU)
    stuck, neighbour = host.daemon.stuck_client(), host.daemon.stuck_client()
    assert str(stuck.pid) in host.run("kill-client", GPU, str(stuck.pid), "--dry-run")
    assert stuck.poll() is None
    said = host.run("kill-client", GPU, str(stuck.pid))
    assert f"process {stuck.pid} has ended; it was a client of server" in said
    assert stuck.wait(5) == -signal.SIGKILL
    assert neighbour.poll() is None
    host.daemon.tell(on_terminate_client="hang")
    said = host.run("kill-client", GPU, str(neighbour.pid), "--timeout-s", "1", code=Exit.DEVICE_FAULT)
    assert "without danger" in said
    assert neighbour.poll() is None


def test_without_a_daemon_it_says_so(host: Host) -> None:
    for command in (["status", GPU], ["inspect", GPU], ["stop", GPU]):
        assert "is not there" in host.run(*command, code=Exit.TEMPORARY)


def test_a_dry_run_prints_and_changes_nothing(host: Host) -> None:
    said = host.run("start", GPU, "--dry-run", "--exclusive")
    assert f"CUDA_VISIBLE_DEVICES={GPU} " in said and said.endswith("nvidia-cuda-mps-control -d\n")
    said = host.run("stop", GPU, "--dry-run", "--force-after-s", "3", "--default-mode")
    assert said.startswith("echo quit -t 3 | CUDA_MPS_PIPE_DIRECTORY=")
    assert list(host.folder.iterdir()) == []


@pytest.mark.parametrize("gpu", ["0", "cuda:0", "GPU-../../etc"])
def test_what_is_no_uuid_is_refused(host: Host, gpu: str) -> None:
    assert "is not the UUID of a GPU" in host.run("start", gpu, code=Exit.CONFIG)


def test_a_folder_that_is_too_long_for_sockets_is_refused_at_once(host: Host) -> None:
    assert "characters" in host.run("--run-dir", "/tmp/" + "x" * 80, "start", GPU, code=Exit.CONFIG)


def test_it_helps(host: Host) -> None:
    assert "Exit codes" in host.run("--help")
    assert "EXCLUSIVE_PROCESS" in host.run("start", "--help")
