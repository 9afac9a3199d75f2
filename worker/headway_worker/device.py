"""The device a worker runs on: its name, its threads, its memory.

Knows: torch's devices.
Must not know: models, batches, orders.
"""

from __future__ import annotations

import gc

import torch

from headway.errors import SettingsError
from headway_worker import faults
from headway_worker.faults import DeviceFault


def parse(text: str) -> torch.device:
    """The device for "auto" (the first GPU, or the CPU where there is none), "cpu", "cuda" or "cuda:N".

    Raises: SettingsError when the text is none of these, or the GPU is not there.
    """
    if text == "auto":
        text = "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, index = text.partition(":")
    if text == "cpu":
        return torch.device("cpu")
    if kind != "cuda" or (index and not index.isdecimal()) or text.endswith(":"):
        raise SettingsError(f"device: {text!r} is not auto, cpu, cuda or cuda:N")
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if int(index or 0) >= found:
        raise SettingsError(f"device: {text!r} is not here; torch sees {found} CUDA devices")
    return torch.device("cuda", int(index or 0))


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


def enter(device: torch.device) -> None:
    """Make `device` the calling thread's own, so that a model's bare `.cuda()` means it."""
    if device.type == "cuda":
        torch.cuda.set_device(device)


def free_memory() -> None:
    """Give what is free back to the device; collects garbage first, as models like to be cycles."""
    gc.collect()
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
