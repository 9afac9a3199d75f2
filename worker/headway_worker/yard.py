"""Which track a model gets: here the devices meet.

Knows: both kinds of tracks. Must not know: batches, backends.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from headway.models import ModelSpec
from headway_worker.gpu import cuda_gpu
from headway_worker.streams import StreamTrack
from headway_worker.tracks import HostTrack, Infer, Track


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
    gpu.settle()  # its weights were loaded on a stream that ours do not wait for
    return StreamTrack(spec, infer, buckets, gpu, holds)
