"""A CUDA device as `streams` and `graphs` need it: streams, events, memory, capture.

Knows: torch.cuda. Must not know: models, batches, in which order things happen.

The three streams are the worker's, not a model's: batches of all its models run one after the other. They
do not wait for CUDA's default stream, nor it for them.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import Any, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


@cache
def cuda_gpu(device: torch.device) -> CudaGpu:
    """The device's streams, made once in a process."""
    return CudaGpu(device)


class CudaGpu:
    """See `streams.Gpu`. Belongs to the runner's thread."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.copy_in = torch.cuda.Stream(device)
        self.compute = torch.cuda.Stream(device)
        self.copy_out = torch.cuda.Stream(device)
        self._broken: list[Any] = []  # graphs whose captures broke off

    def drain(self) -> None:
        """Wait for everything on the device."""
        torch.cuda.synchronize(self.device)

    def event(self) -> torch.cuda.Event:
        # Blocking: who waits sleeps, instead of keeping a core busy that gateways and other workers need. It
        # wakes some tens of microseconds later, in which the next batch computes.
        return torch.cuda.Event(enable_timing=True, blocking=True)

    def record(self, stream: Any, event: Any) -> None:
        event.record(stream)

    def wait(self, stream: Any, event: Any) -> None:
        stream.wait_event(event)

    def copy(self, stream: Any, target: Tensor, source: Tensor) -> None:
        with torch.cuda.stream(stream):
            target.copy_(source, non_blocking=True)

    def fill(self, stream: Any, target: Tensor, value: float) -> None:
        with torch.cuda.stream(stream):
            target.fill_(value)

    def call(self, stream: Any, function: Callable[[], T]) -> T:
        with torch.cuda.stream(stream):
            return function()

    def empty(self, stream: Any, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        with torch.cuda.stream(stream):
            return torch.empty(shape, dtype=dtype, device=self.device)

    def pinned(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        # torch keeps page-locked memory itself, and gives it out again when the copies are done that use it.
        return torch.empty(shape, dtype=dtype, pin_memory=True)

    def is_done(self, event: Any) -> bool:
        return bool(event.query())

    def synchronize(self, event: Any) -> None:
        event.synchronize()

    def seconds(self, start: Any, end: Any) -> float:
        return float(start.elapsed_time(end)) / 1000

    def pool(self) -> Any:
        return torch.cuda.graph_pool_handle()

    def capture(self, function: Callable[[], T], pool: Any) -> tuple[Callable[[], None], T]:
        graph = torch.cuda.CUDAGraph()
        gc.collect()
        gc.disable()  # what it might free, such as another graph, would break the capture off
        try:
            # torch does not set the stream back when a capture breaks off; the outer block does. And only
            # what this thread does may break one: a model's other threads go on.
            with (
                torch.cuda.stream(self.compute),
                torch.cuda.graph(graph, pool, self.compute, capture_error_mode="thread_local"),
            ):
                result = function()
        except BaseException:
            self._clear_up(graph, pool)
            raise
        finally:
            gc.enable()
        return graph.replay, result

    def _clear_up(self, graph: Any, pool: Any) -> None:
        """torch leaves a capture that broke off open in its allocator, which would then put off giving memory
        back; and the allocator keeps looking at the graph, which therefore must stay."""
        self._broken.append(graph)
        for end in (lambda: torch._C._cuda_endAllocateToPool(self.device.index or 0, pool), graph.reset):
            with suppress(RuntimeError):  # it was closed already
                end()
