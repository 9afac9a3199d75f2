"""Takes a worker's place: its device, its share of it through CUDA MPS, and what it says of both when it
joins.

Knows: settings, the order in which things must happen, CUDA MPS. Must not know: torch (that is `device`),
models.

How it works. CUDA reads its environment once, when it starts, so everything is decided before: which GPU is
to be seen, where its CUDA MPS daemon is, how much of the GPU this process may have. Then CUDA is started, and
only then can be told what became of it: CUDA does not say when it found no daemon, and runs without one. So
the daemon is asked whether this process is a client. A worker that was given a share and is no client does
not start: it would take the whole GPU from those who keep to theirs.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from headway import __version__, logs
from headway.errors import SettingsError
from headway.exits import Exit
from headway.settings import WorkerSettings
from headway_worker import cuda_mps, nvidia_smi
from headway_worker.cuda_mps import Control
from headway_worker.host_memory import memory_bytes

DETACH_S = 20.0
READY_S = 15.0  # a server that starts, or that comes back after a fault
CLIENT = "client"
_log = logs.get("headway.worker")
PIPE_DIR, PERCENTAGE = "CUDA_MPS_PIPE_DIRECTORY", "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"
MEMORY_LIMIT, VISIBLE = "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT", "CUDA_VISIBLE_DEVICES"


class Devices(Protocol):
    """What is needed of the module `device`; tests have another."""

    def set_environment(self, variables: dict[str, str]) -> None: ...
    def parse(self, text: str) -> Any: ...
    def start(self, device: Any) -> None: ...
    def facts(self, device: Any) -> dict[str, Any]: ...


class Programs(NamedTuple):
    """NVIDIA's own, by name or path."""

    control: str = cuda_mps.PROGRAM
    smi: str = nvidia_smi.PROGRAM


class Place(NamedTuple):
    """A `torch.device`, what the broker knows it as, and the facts of a Join (PROTOCOL.md, section 9)."""

    device: Any
    name: str
    facts: dict[str, Any]
    control: Control | None = None  # of the daemon whose client this process is


class Wish(NamedTuple):
    """What is asked of CUDA MPS. `uuid` "": the settings do not name a GPU, and there are several."""

    uuid: str
    pipe_dir: Path
    share: int
    memory_mib: int
    required: bool


def take(settings: WorkerSettings, devices: Devices, programs: Programs = Programs()) -> Place:  # noqa: B008
    """Start CUDA where the settings say, with the share that they say.

    Raises: SettingsError for what cannot be as it was said; ControlError if the daemon is not there, or not
    ready, and may be later; DeviceFault if the device does not let CUDA start now.
    """
    wish = wish_of(settings, programs)
    control = Control(wish.pipe_dir, programs.control)
    devices.set_environment(variables(settings, wish))
    if wish.required:
        _await_daemon(control)
    device = devices.parse(settings.device)
    if device.type == "cuda":
        devices.start(device)
    attached = device.type == "cuda" and _is_client(control, wish.required)
    if wish.required and not attached:
        raise SettingsError(_refusal(device, wish))
    facts = _facts(devices.facts(device), wish, attached)
    return Place(device, _name(settings, device), facts, control if attached else None)


def leave_stuck(place: Place) -> Exit:
    """Before a process ends that has a batch on its device which does not end: take that off the GPU, for the
    sake of its neighbours. Returns what to exit with."""
    if place.control is None:
        return Exit.STUCK
    try:
        cuda_mps.detach(place.control, os.getpid(), DETACH_S)
        return Exit.STUCK
    except cuda_mps.Faulty as error:
        _log.error("the worker ends with work on the GPU", reason=str(error), code=Exit.DEVICE_FAULT.name)
        return Exit.DEVICE_FAULT


def wish_of(settings: WorkerSettings, programs: Programs) -> Wish:
    """Raises: SettingsError for a share whose memory nobody knows, and a folder that cannot be the
    daemon's."""
    share, memory_mib = settings.cuda_mps_share, settings.cuda_mps_memory_mb
    required = bool(share or memory_mib) or settings.cuda_mps == "require"
    if required and settings.device == "cpu":
        raise SettingsError("cuda_mps: a worker on the CPU can have no share of a GPU")
    uuid = _uuid(settings.device, programs) if required or nvidia_smi.is_uuid(settings.device) else ""
    if share and not memory_mib:
        memory_mib = nvidia_smi.memory_mib(uuid, programs.smi) * share // 100 if uuid else 0
        if not memory_mib:
            what = uuid or f"device {settings.device}"
            raise SettingsError(f"cuda_mps_memory_mb: say how much, nvidia-smi does not tell it of {what}")
    folder = pipe_dir(settings, uuid)
    if len(str(folder)) > cuda_mps.SOCKET_PATH_MAX:  # the daemon would only say that it cannot be found
        raise SettingsError(f"cuda_mps_pipe_dir: {folder} has over {cuda_mps.SOCKET_PATH_MAX} characters")
    return Wish(uuid, folder, share, memory_mib, required)


def variables(settings: WorkerSettings, wish: Wish) -> dict[str, str]:
    """What CUDA must find in its environment."""
    found: dict[str, str] = {}
    index = settings.device.partition(":")[2] or "0"
    if nvidia_smi.is_uuid(settings.device):
        found[VISIBLE] = wish.uuid  # one GPU is seen, so it is number 0
        index = "0"
    if wish.required or settings.cuda_mps_pipe_dir:
        found[PIPE_DIR] = str(wish.pipe_dir)
    if wish.share:
        found[PERCENTAGE] = str(wish.share)
    if wish.memory_mib:
        found[MEMORY_LIMIT] = f"{index}={wish.memory_mib}M"
    return found


def pipe_dir(settings: WorkerSettings, uuid: str) -> Path:
    """Where the daemon of the GPU is: as the settings say, else in the run directory, else where CUDA
    looks."""
    if settings.cuda_mps_pipe_dir:
        return Path(settings.cuda_mps_pipe_dir)
    ours = own_pipe_dir(settings.run_dir, uuid)
    if uuid and ours.is_dir():
        return ours
    return Path(os.environ.get(PIPE_DIR) or cuda_mps.DEFAULT_PIPE_DIR)


def own_pipe_dir(run_dir: Path, uuid: str) -> Path:
    """The pipe directory of a GPU's daemon, as `scripts/cuda-mps` and the systemd unit make it."""
    return run_dir / f"cuda-mps-{uuid.replace('/', '_')}"


def _uuid(text: str, programs: Programs) -> str:
    """The UUID of the GPU that a text means, if that is clear before CUDA starts."""
    if nvidia_smi.is_uuid(text):
        return nvidia_smi.full_uuid(text, programs.smi)
    return nvidia_smi.only_gpu(programs.smi) if text in ("auto", "cuda", "cuda:0") else ""


def _await_daemon(control: Control) -> None:
    try:
        cuda_mps.wait_active(control, READY_S if control.daemon_pid() else 0.0)
    except cuda_mps.NoProgram as error:
        raise SettingsError(f"cuda_mps: {error}") from None


def _is_client(control: Control, required: bool) -> bool:
    """Without a wish it is worth a look only where a daemon seems to be, and no reason not to start."""
    if required:
        return cuda_mps.is_client(control, os.getpid())
    try:
        is_there = (control.pipe_dir / "control").exists()
        return is_there and cuda_mps.is_client(control, os.getpid(), timeout_s=0.0)
    except (cuda_mps.ControlError, OSError):
        return False


def _refusal(device: Any, wish: Wish) -> str:
    if device.type != "cuda":
        return f"cuda_mps: this worker runs on {device}, and can have no share of a GPU"
    return (
        f"cuda_mps: the daemon of {wish.pipe_dir} does not know this process as a client: CUDA runs without "
        f"MPS, and a share would not be kept (does the daemon serve this GPU, and see the same process ids?)"
    )


def _name(settings: WorkerSettings, device: Any) -> str:
    """A GPU that was named by its UUID is number 0 only to this process."""
    return str(device.type) if nvidia_smi.is_uuid(settings.device) else str(device)


def _facts(found: dict[str, Any], wish: Wish, attached: bool) -> dict[str, Any]:
    if found["device_id"] == "cpu":
        found["device_memory_bytes"] = memory_bytes()
    if wish.uuid and wish.uuid.startswith("MIG-"):
        found["device_id"] = wish.uuid  # torch may tell that of the whole GPU
    found["memory_bytes"] = (wish.memory_mib << 20) or found["device_memory_bytes"]
    if wish.share:
        found["share"] = wish.share
    if attached:
        found["cuda_mps"] = CLIENT
    return {**{name: value for name, value in found.items() if value}, "version": __version__}
