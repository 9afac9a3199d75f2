"""The units under a real systemd: installed, started, killed, hung, reloaded, stopped, removed.

One container is booted for all tests here, and they follow one another: each leaves everything running.
Python, its libraries and this checkout are mounted into it where the user "headway" may read them; the
programs in /opt/headway/bin are the doors that pip would make.
"""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from headway.exits import Exit
from tests.systemd import nspawn

pytestmark = pytest.mark.system

ROOT = Path(__file__).parents[2]
WAIT_S = 40.0  # importing torch takes seconds on a busy machine
INSTALL = ["/opt/headway/bin/python", "/opt/hw/src/scripts/install-systemd", "--venv", "/opt/headway"]
DOORS = {
    "headway-broker": "headway_broker.__main__",
    "headway-worker": "headway_worker.__main__",
    "headway-gateway": "headway_gateway.__main__",
}
MODEL = """
class Model:
    def load(self, folder, device):
        pass

    def infer(self, x):
        return x * 2
"""
TOML = """
backend = "python"
inputs = [{name = "x", dtype = "float32", shape = [2], warmup_shape = [2]}]
outputs = [{name = "y", dtype = "float32", shape = [2]}]
"""
ASK = '{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}]}'
BROKER, GATEWAY, WORKER = "headway-broker.service", "headway-gateway.service", "headway-worker@w0.service"
ALL = (BROKER, GATEWAY, WORKER)
# A watchdog that bites soon; everything else is as it is installed.
DROP_IN = "[Service]\nWatchdogSec=5\n"
# Stands in for CUDA MPS's control daemon: runs in the foreground with -f, else answers what it reads.
MPS_CONTROL = """#!/bin/sh
pipe="$CUDA_MPS_PIPE_DIRECTORY/control"
if [ "$1" = -f ]; then
    echo $$ > "$CUDA_MPS_PIPE_DIRECTORY/nvidia-cuda-mps-control.pid"
    trap 'rm -f "$CUDA_MPS_PIPE_DIRECTORY"/nvidia-cuda-mps-control.pid; exit 0' TERM
    while :; do sleep 0.1; done
fi
read word
pid=$(cat "$CUDA_MPS_PIPE_DIRECTORY/nvidia-cuda-mps-control.pid") || exit 1
[ "$word" = quit ] && kill "$pid"
exit 0
"""
GPU = "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6"


class Host(nspawn.Machine):
    """A machine with Headway's programs on it."""

    def __init__(self) -> None:
        site = {"/opt/hw/site": Path(sysconfig.get_path("purelib")), "/opt/hw/src": ROOT}
        self.python = "/opt/hw/python"
        if Path(sys.base_prefix).is_relative_to("/usr"):
            self.python = sys.base_prefix
        super().__init__(
            site if self.python == sys.base_prefix else site | {self.python: Path(sys.base_prefix)}
        )

    def make_venv(self) -> None:
        self.path("/etc/ld.so.conf.d/00-python.conf").write_text(f"{self.python}/lib\n")  # its libpython
        self.run("ldconfig")
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        venv = self.path("/opt/headway")
        (venv / "bin").mkdir(parents=True)
        (venv / "bin" / "python").symlink_to(f"{self.python}/bin/{version}")
        (venv / "pyvenv.cfg").write_text(f"home = {self.python}/bin\n")
        packages = venv / "lib" / version / "site-packages"
        packages.mkdir(parents=True)
        folders = [f"/opt/hw/src/{name}" for name in ("common", "broker", "worker", "gateway")]
        (packages / "headway.pth").write_text("\n".join([*folders, "/opt/hw/site"]))
        for name, module in DOORS.items():
            script = venv / "bin" / name
            script.write_text(f"#!/opt/headway/bin/python\nfrom {module} import main\nmain()\n")
            script.chmod(0o755)

    def add_model(self) -> None:
        folder = self.path("/var/lib/headway/models/double/1")
        folder.mkdir(parents=True)
        (folder / "model.py").write_text(MODEL)
        (folder / "model.toml").write_text(TOML)

    def property(self, unit: str, name: str) -> str:
        return self.run("systemctl", "show", "--value", "-p", name, unit)

    def pid(self, unit: str) -> str:
        """The main process of a unit that is ready, else "0"."""
        state, pid = self.property(unit, "ActiveState"), self.property(unit, "MainPID")
        return pid if state == "active" else "0"

    def load(self) -> subprocess.Popen[str]:
        """Requests without end; `outcome` ends it."""
        load = [sys.executable, str(Path(__file__).with_name("load.py")), "127.0.0.1:8080", ASK]
        return subprocess.Popen(
            [*self.enter(), *load], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def is_served(self) -> bool:
        load = self.load()
        time.sleep(0.1)
        said = outcome(load)
        return bool(said["ok"]) and not said["failed"]

    def journal(self, unit: str) -> str:
        return self.run("journalctl", "--no-pager", "-o", "cat", "-u", unit)

    def processes(self) -> str:
        return self.run("ps", "-u", "headway", "-o", "pid=,args=", check=False)

    def until(self, true: Callable[[], object], what: str) -> None:
        end = time.monotonic() + WAIT_S
        while not true():
            assert time.monotonic() < end, f"{what}\n" + self.run("journalctl", "--no-pager", "-n", "60")
            time.sleep(0.1)


def outcome(load: subprocess.Popen[str]) -> dict:
    said, _ = load.communicate("", timeout=60)
    return json.loads(said)


@pytest.fixture(scope="module")
def bare() -> Iterator[Host]:
    """Booted, and nothing of ours in it."""
    if reason := nspawn.missing():
        pytest.skip(f"no real systemd: {reason}")
    host = Host()
    try:
        try:
            host.boot()
        except nspawn.CannotBoot as error:
            pytest.skip(f"no real systemd: {error}")
        host.make_venv()
        yield host
    finally:
        host.close()


@pytest.fixture(scope="module")
def host(bare: Host) -> Host:
    """Installed and started."""
    bare.run(*INSTALL)
    bare.add_model()
    for unit in ("headway-broker.service", "headway-gateway.service", "headway-worker@.service"):
        folder = bare.path(f"/etc/systemd/system/{unit}.d")
        folder.mkdir()
        (folder / "test.conf").write_text(DROP_IN)
    bare.run("systemctl", "daemon-reload")
    bare.run("systemctl", "start", "--no-block", "headway.target")
    bare.until(
        lambda: bare.property("headway.target", "ActiveState") == "active", "the target does not start"
    )
    return bare


def test_after_the_start_of_the_target_everything_is_ready_and_serves(host: Host) -> None:
    for unit in ALL:
        assert host.property(unit, "ActiveState") == "active", host.journal(unit)
    host.until(host.is_served, "no answer")
    host.until(lambda: host.property(WORKER, "StatusText") == "1 models ready, idle", "its status is old")
    assert host.property(GATEWAY, "StatusText") == "processes that serve 127.0.0.1:8080: 1"
    assert host.property(BROKER, "StatusText").startswith("versions of models: 1, workers: ")
    assert {
        line.split()[0]
        for line in host.run("ps", "-eo", "user=,args=").splitlines()
        if "bin/headway-" in line
    } == {"headway"}


@pytest.mark.parametrize("unit", ALL)
def test_killed_it_is_started_again_and_serves(host: Host, unit: str) -> None:
    pid = host.pid(unit)
    host.run("kill", "-KILL", pid)
    host.until(lambda: host.pid(unit) not in (pid, "0"), f"{unit} is not back")
    host.until(host.is_served, "no answer")


@pytest.mark.parametrize("unit", ALL)
def test_hung_it_is_ended_by_the_watchdog_and_serves_again(host: Host, unit: str) -> None:
    pid = host.pid(unit)
    host.run("kill", "-STOP", pid)
    host.until(lambda: host.pid(unit) not in (pid, "0"), f"{unit} is not back")
    assert "Watchdog timeout" in host.journal(unit)
    host.until(host.is_served, "no answer")


def test_wrong_settings_end_it_for_good_with_the_reason_in_the_journal(host: Host) -> None:
    host.path("/etc/headway/workers/bad.env").write_text("HEADWAY_WORKER_NONSENSE=1\n")
    bad = "headway-worker@bad.service"
    host.run("systemctl", "start", bad, check=False)
    assert host.property(bad, "ActiveState") == "failed"
    assert host.property(bad, "ExecMainStatus") == str(int(Exit.CONFIG))
    assert host.property(bad, "NRestarts") == "0"
    assert "HEADWAY_WORKER_NONSENSE is not a setting" in host.journal(bad)
    host.run("systemctl", "reset-failed", bad)


def test_a_reload_of_the_gateway_under_load_fails_no_request(host: Host) -> None:
    load, pid = host.load(), host.pid(GATEWAY)
    for _ in range(2):
        old = set(host.run("pgrep", "-P", pid).split())
        time.sleep(0.5)
        host.run("systemctl", "reload", GATEWAY)
        host.until(
            lambda old=old: not old & set(host.run("pgrep", "-P", pid).split()), "the old process stays"
        )
    time.sleep(0.5)
    said = outcome(load)
    print(said)
    assert said["failed"] == [] and said["ok"] > 100, said
    assert host.pid(GATEWAY) == pid


def test_a_worker_starts_after_its_mps_daemon_and_anew_with_it(host: Host) -> None:
    control = host.path("/usr/bin/nvidia-cuda-mps-control")
    control.write_text(MPS_CONTROL)
    control.chmod(0o755)
    host.run(*INSTALL, "--workers", "2", "--devices", GPU, "--cuda-mps")
    host.path("/etc/headway/workers/w1.env").write_text("HEADWAY_WORKER_DEVICE=cpu\n")
    daemon, worker = f"headway-cuda-mps@{GPU}.service", "headway-worker@w1.service"
    host.run("systemctl", "start", worker)
    assert host.property(daemon, "ActiveState") == "active"
    environment = host.path(f"/proc/{host.pid(worker)}/environ").read_text()
    assert f"CUDA_MPS_PIPE_DIRECTORY=/run/headway/cuda-mps-{GPU}\0" in environment
    pid = host.pid(worker)
    host.run("kill", "-KILL", host.pid(daemon))
    host.until(
        lambda: host.pid(worker) not in (pid, "0") and host.pid(daemon) != "0", "the worker is not back"
    )
    host.run("systemctl", "stop", daemon)
    assert host.property(worker, "ActiveState") == "inactive", host.run(
        "journalctl", "-u", worker, "-n", "40", "--no-pager"
    )
    assert not host.path(f"/run/headway/cuda-mps-{GPU}").exists()
    assert host.path("/run/headway/broker.sock").exists(), "a stopped unit took the run directory with it"


def test_stopped_it_leaves_no_process_no_socket_and_no_segment(host: Host) -> None:
    assert host.processes() != ""
    host.run("systemctl", "stop", "headway.target")
    host.until(lambda: all(host.property(u, "ActiveState") == "inactive" for u in ALL), "not stopped")
    assert host.processes() == ""
    left = [path for path in host.path("/run/headway").rglob("*") if not path.is_dir()]
    assert [path for path in left if path.suffix != ".db"] == []
    assert host.run("systemctl", "list-units", "--failed", "--plain", "--no-legend", "headway*") == ""


def test_removed_it_keeps_what_is_not_its_own_and_purged_it_leaves_nothing(host: Host) -> None:
    def traces(*folders: str) -> list[str]:
        found = host.run(
            "find", *folders, "-xdev", "-path", "/opt/hw", "-prune", "-o", "-iname", "*headway*", "-print"
        )
        return sorted(found.splitlines())

    host.run(*INSTALL, "--remove")
    assert host.path("/etc/headway/headway.toml").exists()
    assert host.path("/var/lib/headway/models/double/1/model.toml").exists()
    assert host.path("/etc/systemd/system/headway-broker.service.d/test.conf").exists()
    left = [path for path in traces("/etc", "/run") if not path.endswith(".service.d")]
    assert left == ["/etc/headway", "/etc/headway/headway.toml"]
    host.path("/opt/headway/.made-by-headway").touch()  # as if it had made the environment as well
    host.run(*INSTALL, "--remove", "--purge")
    assert traces("/opt", "/etc", "/run", "/var/lib", "/var/cache", "/var/log") == []
    assert "headway" not in host.path("/etc/passwd").read_text()
