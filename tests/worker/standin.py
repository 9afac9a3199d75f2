"""A device with streams that is none: what is enqueued happens later, in any order that the events allow.

It stands in for `headway_worker.gpu.CudaGpu`. Copies and computations on CPU tensors are kept in a queue for
each stream, and done one by one, from a stream chosen at random, whenever the host waits for something (or
looks). So work that is not ordered by an event is sooner or later done in the wrong order, and the outputs
are wrong. Fresh memory of the device holds 99 until something is copied there.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

UNSET = 99


@dataclass(eq=False)
class Event:
    """Done when everything that its stream had when it was last recorded is done."""

    records: int = 0
    reached: int = 0

    @property
    def is_done(self) -> bool:
        return self.reached >= self.records


class StandIn:
    """See `headway_worker.streams.Gpu`. `seed` decides in which order things happen. `waits`: its models
    look at data, and so wait for the device inside a call."""

    device = torch.device("cpu")
    copy_in, compute, copy_out = "copy in", "compute", "copy out"

    def __init__(self, seed: int = 0, waits: bool = False) -> None:
        self.waits = waits
        self.random = random.Random(seed)
        self.queues: dict[str, deque[Any]] = {s: deque() for s in (self.copy_in, self.compute, self.copy_out)}
        self.log: list[str] = []  # what was done, in the order in which it was
        self.captures = 0

    def event(self) -> Event:
        return Event()

    def record(self, stream: str, event: Event) -> None:
        event.records += 1
        number = event.records
        self.queues[stream].append(lambda: self._reach(event, number))

    def wait(self, stream: str, event: Event) -> None:
        self.queues[stream].append((event, event.records))

    def copy(self, stream: str, target: Tensor, source: Tensor) -> None:
        assert target.is_contiguous() and source.is_contiguous(), "or it would not be one copy"
        self._enqueue(stream, lambda: target.copy_(source))

    def fill(self, stream: str, target: Tensor, value: float) -> None:
        self._enqueue(stream, lambda: target.fill_(value))

    def call(self, stream: str, function: Callable[[], Any]) -> Any:
        """The result's tensors exist at once, and are filled when it is the stream's turn."""
        while self.waits and self.queues[stream]:
            assert self.run_one(), "the stream waits for ever"
        outputs = function()
        if self.waits:
            return outputs
        for output in _tensors(outputs):
            output.fill_(UNSET)
        self._enqueue(stream, lambda: _fill(outputs, function()))
        return outputs

    def empty(self, stream: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        return torch.full(shape, UNSET, dtype=dtype)

    def pinned(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        return torch.full(shape, UNSET, dtype=dtype)

    def is_done(self, event: Event) -> bool:
        self.run_one()
        return event.is_done

    def synchronize(self, event: Event) -> None:
        while not event.is_done:
            assert self.run_one(), "the streams wait for each other for ever"

    def seconds(self, start: Event, end: Event) -> float:
        assert start.is_done and end.is_done
        return 0.001

    def pool(self) -> str:
        return "pool"

    def capture(self, function: Callable[[], Any], pool: str) -> tuple[Callable[[], None], Any]:
        self.drain()
        self.captures += 1
        outputs = function()
        return lambda: _fill(outputs, function()), outputs

    def drain(self) -> None:
        while self.run_one():
            pass

    def run_one(self) -> bool:
        """Do the next piece of work of some stream that need not wait; False when there is none."""
        ready = [stream for stream, queue in self.queues.items() if queue and self._may(queue[0])]
        if not ready:
            return False
        work = self.queues[self.random.choice(ready)].popleft()
        if callable(work):
            with torch.inference_mode():
                work()
        return True

    def _may(self, work: Any) -> bool:
        return callable(work) or work[0].reached >= work[1]

    def _enqueue(self, stream: str, work: Callable[[], Any]) -> None:
        def do() -> None:
            self.log.append(stream)
            work()

        self.queues[stream].append(do)

    def _reach(self, event: Event, number: int) -> None:
        event.reached = number


def _tensors(outputs: dict[str, Any]) -> list[Tensor]:
    return [output for output in outputs.values() if isinstance(output, Tensor)]


def _fill(outputs: dict[str, Any], made: dict[str, Any]) -> None:
    for name, value in made.items():
        if isinstance(value, Tensor):
            outputs[name].copy_(value)
