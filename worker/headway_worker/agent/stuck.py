"""Ends a worker that does not end when it is told to: the safe way, where it may be a client of CUDA MPS.

Knows: where each device's daemon is. Must not know: when a worker counts as stuck, torch.

A client that is killed with work on the GPU may hang its neighbours, so the daemon takes it off first (see
`cuda_mps`). Where the daemon cannot, the neighbours are lost anyway: the client is killed, the daemon is told
to quit, and its other clients end with DEVICE_FAULT, which makes the agent start them anew.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from headway import logs
from headway_worker import cuda_mps
from headway_worker.agent.offer import Offer
from headway_worker.place import PIPE_DIR, own_pipe_dir

TERMINATE_S = 20.0
QUIT_S = 10.0
CPU = "cpu"

_log = logs.get("headway.agent")


def ender(run_dir: Path, offer: Offer, program: str = cuda_mps.PROGRAM) -> Callable[[int, str], None]:
    """What ends a worker, given its pid and its device. It may take TERMINATE_S + QUIT_S: call it in a thread
    of its own."""
    ids = {device.device: device.device_id for device in offer.devices}

    def end(pid: int, device: str) -> None:
        control = _control(run_dir, ids.get(device, device), program)
        if device == CPU or control is None:
            _kill(pid)
            return
        try:
            cuda_mps.end_client(control, pid, TERMINATE_S)
        except cuda_mps.Faulty as error:
            _log.error("a GPU must be started anew", device=device, reason=str(error))
            _abandon(control, pid)

    return end


def _control(run_dir: Path, device_id: str, program: str) -> cuda_mps.Control | None:
    """The daemon of the device; None where there seems to be none."""
    ours = own_pipe_dir(run_dir, device_id)
    folder = ours if ours.is_dir() else Path(os.environ.get(PIPE_DIR) or cuda_mps.DEFAULT_PIPE_DIR)
    return cuda_mps.Control(folder, program) if (folder / "control").exists() else None


def _abandon(control: cuda_mps.Control, pid: int) -> None:
    try:
        cuda_mps.abandon(control, [pid], QUIT_S)
    except cuda_mps.ControlError as error:
        _log.error("its CUDA MPS daemon stays", reason=str(error))


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)
