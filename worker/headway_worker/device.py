"""The device a worker runs on: its name, its threads, its memory, its faults.

Knows: torch's devices, CUDA's environment.
Must not know: models, batches, orders, how a share of a device comes about (that is `place`).
"""

from __future__ import annotations

import os
from typing import Any

import psutil
import torch

from headway.errors import SettingsError
from headway.settling import settle
from headway_worker import faults, nvidia_smi
from headway_worker.faults import DeviceFault


def set_environment(variables: dict[str, str]) -> None:
    """What CUDA is to find when it starts."""
    assert not (variables and torch.cuda.is_initialized()), "CUDA has read its environment already"
    os.environ.update(variables)


def was_used() -> bool:
    """Whether this process has used CUDA."""
    return torch.cuda.is_initialized()


def parse(text: str) -> torch.device:
    """The device for "auto" (the first GPU, or the CPU where there is none), "cpu", "cuda", "cuda:N", or the
    UUID of a GPU or MIG slice, which must be the only one that CUDA's environment shows.

    Raises: SettingsError when the text is none of these, or the GPU is not there.
    """
    if nvidia_smi.is_uuid(text):
        if not torch.cuda.is_available() or torch.cuda.device_count() != 1:
            raise SettingsError(f"device: {text!r} is not here; {_what_is_here()}")
        return torch.device("cuda", 0)
    if text == "auto":
        text = "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, index = text.partition(":")
    if text == "cpu":
        return torch.device("cpu")
    if kind != "cuda" or (index and not index.isdecimal()) or text.endswith(":"):
        more = "and not the UUID of a GPU or MIG slice"
        raise SettingsError(f"device: {text!r} is not auto, cpu, cuda or cuda:N, {more}")
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if int(index or 0) >= found:
        raise SettingsError(f"device: {text!r} is not here; torch sees {found} CUDA devices")
    return torch.device("cuda", int(index or 0))


def _what_is_here() -> str:
    found = [f"{entry.uuid} ({entry.text})" for entry in nvidia_smi.listed()]
    return "nvidia-smi lists " + ", ".join(found) if found else "nvidia-smi lists no GPU"


def start(device: torch.device) -> None:
    """Make CUDA begin. Raises: DeviceFault with what it says when it cannot."""
    try:
        torch.zeros(1, device=device)
        torch.cuda.synchronize(device)
    except RuntimeError as error:
        raise DeviceFault(str(error).split("\n", 1)[0]) from error


def facts(device: torch.device) -> dict[str, Any]:
    """`device_id`, `device_name` and `device_memory_bytes`, as PROTOCOL.md has them; 0: it is not known
    here."""
    if device.type != "cuda":
        return {"device_id": "cpu", "device_name": "CPU", "device_memory_bytes": 0}
    found = torch.cuda.get_device_properties(device)
    uuid = getattr(found, "uuid", None)  # of newer versions of torch
    known = f"GPU-{uuid}" if uuid else nvidia_smi.only_gpu() or str(device)
    return {"device_id": known, "device_name": found.name, "device_memory_bytes": found.total_memory}


class Growth:
    """What a process takes of a device's memory from here on: on a GPU the most that torch had reserved at
    any time (others' memory on the device does not count), on the CPU what is resident at the end."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._before = 0
        if device.type == "cuda":
            free_memory()  # what is left over from others would be used first, and not be counted
            torch.cuda.reset_peak_memory_stats(device)
            self._before = torch.cuda.memory_reserved(device)
        else:
            self._before = psutil.Process().memory_info().rss

    def measured(self) -> dict[str, int]:
        """`memory_bytes` as a fact of a copy; nothing where nothing could be seen, as on the CPU when the
        memory of a copy that went was used again."""
        if self._device.type == "cuda":
            return {"memory_bytes": max(torch.cuda.max_memory_reserved(self._device) - self._before, 0)}
        grown = psutil.Process().memory_info().rss - self._before
        return {"memory_bytes": grown} if grown > 0 else {}


def for_model(wanted: str, here: torch.device) -> torch.device:
    """Where a model that wants `wanted` (as in its `model.toml`) runs in a worker on `here`.

    Raises: SettingsError when this worker is not such a place.
    """
    if wanted == "auto" or wanted == str(here) or wanted == here.type:
        return here
    if wanted == "cpu":  # a worker on a GPU has a CPU too
        return torch.device("cpu")
    raise SettingsError(f"device: the model wants {wanted}, this worker runs on {here}")


def describe(device: torch.device) -> str:
    """One line for people: the device's name and memory."""
    if device.type != "cuda":
        return f"{device}, {torch.get_num_threads()} threads"
    found = torch.cuda.get_device_properties(device)
    return f"{device}, {found.name}, {found.total_memory >> 20} MiB"


def set_threads(count: int) -> None:
    """How many CPU threads one operator may use; 0 leaves torch's own choice."""
    if count > 0:
        torch.set_num_threads(count)


def take_threads() -> None:
    """Make the number of threads hold in the calling thread too. OpenMP counts for each thread by itself, and
    torch sees to that only in its own operators: a convolution by oneDNN would take all cores."""
    torch.set_num_threads(torch.get_num_threads())


def enter(device: torch.device) -> None:
    """Make `device` the calling thread's own, so that a model's bare `.cuda()` means it; and its threads."""
    take_threads()
    if device.type == "cuda":
        torch.cuda.set_device(device)


def free_memory() -> None:
    """Give what is free back to the device; collects garbage first, as models like to be cycles."""
    settle()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the device's memory ran out."""
    return isinstance(error, torch.cuda.OutOfMemoryError)


def fault_of(error: BaseException) -> DeviceFault | None:
    """The fault that this exception came of, if the device is broken for this process."""
    for cause in faults.chain(error):
        if isinstance(cause, DeviceFault):
            return cause
        if isinstance(cause, torch.cuda.OutOfMemoryError):
            return None
        text = faults.fatal_text(cause) or (_asked() if faults.may_be_cudas(cause) else "")
        if text:
            fault = DeviceFault(text)
            fault.__cause__ = error
            return fault
    return None


def raise_fault(error: BaseException) -> None:
    """Raises: DeviceFault, if that is what the exception came of."""
    if fault := fault_of(error):
        raise fault


def _asked() -> str:
    """What the device itself says of its state: what is fatal it says again at every call."""
    if not torch.cuda.is_initialized():
        return ""
    try:
        torch.cuda.synchronize()
    except RuntimeError as error:
        return faults.fatal_text(error)
    return ""
