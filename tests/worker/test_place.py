"""How a worker takes its place: what CUDA finds in its environment, and when a worker must not start."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import pytest

from headway import __version__
from headway.errors import SettingsError
from headway.exits import Exit
from headway.settings import WorkerSettings
from headway_worker import place
from headway_worker.cuda_mps import DEFAULT_PIPE_DIR, ControlError, NoDaemon, is_client
from headway_worker.faults import DeviceFault
from headway_worker.place import Programs, leave_stuck, take, variables, wish_of
from tests.cuda_mps.daemon import PROGRAMS, Daemon

FIRST, SECOND = "GPU-aaaaaaaa-0000-0000-0000-000000000001", "GPU-bbbbbbbb-0000-0000-0000-000000000002"
SLICE = "MIG-cccccccc-0000-0000-0000-000000000003"
PROGRAMS_HERE = Programs(str(PROGRAMS / "nvidia-cuda-mps-control"), str(PROGRAMS / "nvidia-smi"))
MIB = 1 << 20


class Named(NamedTuple):
    """As much of a torch.device as is needed."""

    type: str
    text: str

    def __str__(self) -> str:
        return self.text


class StandIn:
    """The module `device` on a machine with GPUs. When CUDA starts, this process becomes a client of the
    daemon of `joins`, if it is there, as CUDA does it: without a word if it is not."""

    def __init__(self, joins: Daemon | None = None, is_broken: bool = False) -> None:
        self.environment: dict[str, str] = {}
        self.started = False
        self._joins = joins
        self._is_broken = is_broken

    def set_environment(self, variables: dict[str, str]) -> None:
        assert not self.started
        self.environment = variables

    def parse(self, text: str) -> Named:
        return (
            Named("cpu", "cpu") if text == "cpu" else Named("cuda", text if text[-2:-1] == ":" else "cuda:0")
        )

    def start(self, device: Named) -> None:
        if self._is_broken:
            raise DeviceFault("CUDA error: CUDA-capable device(s) is/are busy or unavailable")
        self.started = True
        told = self.environment.get("CUDA_MPS_PIPE_DIRECTORY")
        if self._joins and str(self._joins.pipe_dir) == told:
            self._joins.add(os.getpid())

    def facts(self, device: Named) -> dict[str, Any]:
        if device.type == "cpu":
            return {"device_id": "cpu", "device_name": "CPU", "device_memory_bytes": 0}
        return {"device_id": FIRST, "device_name": "NVIDIA Stand-in", "device_memory_bytes": 40960 * MIB}


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> Iterator[WorkerSettings]:
    monkeypatch.delenv("CUDA_MPS_PIPE_DIRECTORY", raising=False)
    with TemporaryDirectory(prefix="hw-") as folder:  # short: a socket's path has 107 characters
        yield WorkerSettings(run_dir=Path(folder), device=FIRST)


@pytest.fixture
def daemon(settings: WorkerSettings) -> Iterator[Daemon]:
    made = Daemon(settings.run_dir / f"cuda-mps-{FIRST}")
    made.start()
    yield made
    made.stop()


def found(settings: WorkerSettings) -> dict[str, str]:
    return variables(settings, wish_of(settings, PROGRAMS_HERE))


# ---- the environment


def test_without_a_share_the_environment_is_left_alone(settings: WorkerSettings) -> None:
    for device in ("auto", "cpu", "cuda", "cuda:1"):
        assert found(replace(settings, device=device)) == {}


def test_a_gpu_or_slice_with_a_uuid_is_the_only_one_that_is_seen(settings: WorkerSettings) -> None:
    assert found(settings) == {"CUDA_VISIBLE_DEVICES": FIRST}
    assert found(replace(settings, device=SLICE)) == {"CUDA_VISIBLE_DEVICES": SLICE}
    assert found(replace(settings, device="GPU-bbbb")) == {"CUDA_VISIBLE_DEVICES": SECOND}


def test_a_share_sets_percentage_and_the_same_part_of_the_memory(settings: WorkerSettings) -> None:
    assert found(replace(settings, cuda_mps_share=40)) == {
        "CUDA_VISIBLE_DEVICES": FIRST,
        "CUDA_MPS_PIPE_DIRECTORY": str(DEFAULT_PIPE_DIR),
        "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE": "40",
        "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT": "0=16384M",
    }


def test_memory_that_is_said_wins_and_a_number_of_a_device_is_kept(settings: WorkerSettings) -> None:
    said = replace(settings, device="cuda:1", cuda_mps_share=30, cuda_mps_memory_mb=2000)
    assert found(said)["CUDA_MPS_PINNED_DEVICE_MEM_LIMIT"] == "1=2000M"
    assert "CUDA_VISIBLE_DEVICES" not in found(said)
    only_memory = replace(settings, cuda_mps_memory_mb=2000)
    assert "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE" not in found(only_memory)
    assert found(only_memory)["CUDA_MPS_PINNED_DEVICE_MEM_LIMIT"] == "0=2000M"


@pytest.mark.parametrize("device", [SLICE, "GPU-eeee", "cuda", "cuda:1"])
def test_a_share_of_memory_that_nobody_knows_is_refused(settings: WorkerSettings, device: str) -> None:
    with pytest.raises(SettingsError, match="cuda_mps_memory_mb: say how much.*" + device):
        found(replace(settings, device=device, cuda_mps_share=10))


def test_the_daemon_is_where_it_is_said_else_in_the_run_directory_else_where_cuda_looks(
    settings: WorkerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = replace(settings, cuda_mps="require")
    key = "CUDA_MPS_PIPE_DIRECTORY"
    assert found(wanted)[key] == "/tmp/nvidia-mps"
    monkeypatch.setenv(key, "/elsewhere")
    assert found(wanted)[key] == "/elsewhere"
    (settings.run_dir / f"cuda-mps-{FIRST}").mkdir()
    assert found(wanted)[key] == str(settings.run_dir / f"cuda-mps-{FIRST}")
    assert found(replace(wanted, device="GPU-aaaa"))[key] == str(settings.run_dir / f"cuda-mps-{FIRST}")
    assert found(replace(wanted, cuda_mps_pipe_dir="/said"))[key] == "/said"


def test_a_share_for_a_worker_on_the_cpu_is_refused(settings: WorkerSettings) -> None:
    for wish in ({"cuda_mps_share": 10}, {"cuda_mps_memory_mb": 10}, {"cuda_mps": "require"}):
        with pytest.raises(SettingsError, match="cuda_mps: a worker on the CPU"):
            wish_of(replace(settings, device="cpu", **wish), PROGRAMS_HERE)


def test_a_pipe_directory_that_is_too_long_for_its_sockets_is_refused(settings: WorkerSettings) -> None:
    with pytest.raises(SettingsError, match=r"cuda_mps_pipe_dir: .* has over 88 characters"):
        found(replace(settings, cuda_mps="require", cuda_mps_pipe_dir="/" + "x" * 88))


# ---- verification


def test_a_client_says_so_and_what_it_was_given(settings: WorkerSettings, daemon: Daemon) -> None:
    taken = take(replace(settings, cuda_mps_share=25), StandIn(daemon), PROGRAMS_HERE)
    assert str(taken.device) == "cuda:0"
    assert taken.name == "cuda"  # number 0 only to itself
    assert taken.facts == {
        "device_id": FIRST,
        "device_name": "NVIDIA Stand-in",
        "device_memory_bytes": 40960 * MIB,
        "memory_bytes": 10240 * MIB,
        "share": 25,
        "cuda_mps": "client",
        "version": __version__,
    }


@pytest.mark.parametrize("wish", [{"cuda_mps_share": 40}, {"cuda_mps_memory_mb": 9}, {"cuda_mps": "require"}])
def test_a_worker_that_cuda_silently_runs_without_mps_does_not_start(
    settings: WorkerSettings, daemon: Daemon, wish: dict[str, Any]
) -> None:
    with pytest.raises(SettingsError, match=f"the daemon of {daemon.pipe_dir} does not know this process"):
        take(replace(settings, **wish), StandIn(joins=None), PROGRAMS_HERE)


def test_a_daemon_that_is_not_there_is_said_before_cuda_starts(settings: WorkerSettings) -> None:
    devices = StandIn()
    with pytest.raises(NoDaemon):
        take(replace(settings, cuda_mps_share=40, cuda_mps_pipe_dir="/nowhere"), devices, PROGRAMS_HERE)
    assert not devices.started


def test_a_control_program_that_is_not_installed_is_a_wrong_setting(settings: WorkerSettings) -> None:
    with pytest.raises(SettingsError, match="cuda_mps: no-such-program: No such file"):
        take(
            replace(settings, cuda_mps="require"),
            StandIn(),
            PROGRAMS_HERE._replace(control="no-such-program"),
        )


def test_a_server_in_fault_is_waited_for_before_cuda_starts(
    settings: WorkerSettings, daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon.stuck_client()
    daemon.tell(state="FAULT")
    monkeypatch.setattr(place, "READY_S", 0.3)
    devices = StandIn(daemon)
    with pytest.raises(ControlError, match="FAULT"):
        take(replace(settings, cuda_mps_share=40), devices, PROGRAMS_HERE)
    assert not devices.started


def test_a_device_where_cuda_cannot_start_is_told_of(settings: WorkerSettings) -> None:
    with pytest.raises(DeviceFault, match="busy or unavailable"):
        take(settings, StandIn(is_broken=True), PROGRAMS_HERE)


def test_without_a_wish_a_worker_starts_anyhow_and_says_what_it_found(
    settings: WorkerSettings, daemon: Daemon
) -> None:
    here = replace(settings, cuda_mps_pipe_dir=str(daemon.pipe_dir))
    assert take(here, StandIn(daemon), PROGRAMS_HERE).facts["cuda_mps"] == "client"
    daemon.control.quit()
    daemon.daemon.wait(10)
    facts = take(here, StandIn(daemon), PROGRAMS_HERE).facts
    assert "cuda_mps" not in facts and "share" not in facts
    assert facts["memory_bytes"] == facts["device_memory_bytes"] == 40960 * MIB


# ---- the end of a stuck worker


def test_a_stuck_client_takes_its_work_off_the_gpu_before_it_ends(
    settings: WorkerSettings, daemon: Daemon
) -> None:
    taken = take(replace(settings, cuda_mps_share=25), StandIn(daemon), PROGRAMS_HERE)
    assert leave_stuck(taken) == Exit.STUCK
    assert daemon.commands()[-1] == "terminate_client"
    assert not is_client(daemon.control, os.getpid(), timeout_s=0.0)


def test_a_stuck_client_that_cannot_has_everything_on_the_gpu_started_anew(
    settings: WorkerSettings, daemon: Daemon
) -> None:
    taken = take(replace(settings, cuda_mps_share=25), StandIn(daemon), PROGRAMS_HERE)
    daemon.tell(on_terminate_client="fail")
    assert leave_stuck(taken) == Exit.DEVICE_FAULT


def test_a_stuck_worker_without_mps_just_ends(settings: WorkerSettings) -> None:
    assert leave_stuck(take(settings, StandIn(), PROGRAMS_HERE)) == Exit.STUCK


# ---- more facts


def test_a_slice_is_what_the_settings_call_it(settings: WorkerSettings) -> None:
    taken = take(replace(settings, device="MIG-cccc"), StandIn(), PROGRAMS_HERE)
    assert (taken.name, taken.facts["device_id"]) == ("cuda", SLICE)


def test_a_device_with_a_number_keeps_it(settings: WorkerSettings) -> None:
    assert take(replace(settings, device="cuda:1"), StandIn(), PROGRAMS_HERE).name == "cuda:1"


def test_a_worker_on_the_cpu_has_the_hosts_memory(settings: WorkerSettings) -> None:
    taken = take(replace(settings, device="cpu"), StandIn(), PROGRAMS_HERE)
    assert taken.name == taken.facts["device_id"] == "cpu"
    assert taken.facts["memory_bytes"] == taken.facts["device_memory_bytes"] > 64 * MIB


# ---- the real worker


def ended(settings: WorkerSettings, *options: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PATH": f"{PROGRAMS}:{os.environ['PATH']}", "PYTHONPATH": ":".join(sys.path)}
    command = [sys.executable, "-m", "headway_worker", f"--run-dir={settings.run_dir}", *options]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)


@pytest.mark.system
def test_a_real_worker_without_its_daemon_asks_to_be_started_again(settings: WorkerSettings) -> None:
    worker = ended(settings, f"--device={FIRST}", "--cuda-mps-share=40", "--cuda-mps-pipe-dir=/nowhere")
    assert worker.returncode == Exit.TEMPORARY, worker.stderr
    assert f"device {FIRST}: the CUDA MPS daemon of /nowhere is not there" in worker.stderr


@pytest.mark.system
def test_a_real_worker_names_the_devices_that_are_there(settings: WorkerSettings, daemon: Daemon) -> None:
    worker = ended(settings, "--device=GPU-ffffffff", "--cuda-mps-memory-mb=100")
    assert worker.returncode == Exit.TEMPORARY  # this GPU's daemon may come later
    worker = ended(settings, "--device=GPU-ffffffff")
    assert worker.returncode == Exit.CONFIG
    assert "device: 'GPU-ffffffff' is not here; nvidia-smi lists" in worker.stderr
    assert f"{SLICE} (MIG 1g.5gb" in worker.stderr


@pytest.mark.system
def test_a_real_worker_refuses_a_share_over_100(settings: WorkerSettings) -> None:
    worker = ended(settings, "--cuda-mps-share=101")
    assert worker.returncode == Exit.CONFIG
    assert "cuda_mps_share: 101 is over 100" in worker.stderr
