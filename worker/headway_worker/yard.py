"""Which track a model gets, and where the runner's thread is at home: here the devices meet.

Knows: both kinds of tracks. Must not know: batches, backends.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from headway.models import ModelSpec
from headway_worker import device as devices
from headway_worker.gpu import cuda_gpu
from headway_worker.streams import StreamTrack
from headway_worker.tracks import HostTrack, Infer, Track


def enter(device: torch.device) -> None:
    """Make the device the calling thread's own, and on a GPU the stream on which batches are computed: what
    models do outside of batches (load, warm up) is then in order with them."""
    devices.enter(device)
    if device.type == "cuda":
        torch.cuda.set_stream(cuda_gpu(device).compute)


def holds_nothing(address: int, size: int) -> bool:
    """No memory of callers is page-locked."""
    return False


def track_for(
    spec: ModelSpec,
    infer: Infer,
    buckets: tuple[int, ...],
    device: torch.device,
    holds: Callable[[int, int], bool] = holds_nothing,
) -> Track:
    """The model's way to its device. `holds(address, size)`: whether the device may read this memory of the
    host by itself. The model must be loaded."""
    if device.type != "cuda":
        return HostTrack(spec, infer, buckets)
    gpu = cuda_gpu(device)
    gpu.drain()  # in case that its weights were loaded by another thread, or on a stream of its own
    return StreamTrack(spec, infer, buckets, gpu, holds)
