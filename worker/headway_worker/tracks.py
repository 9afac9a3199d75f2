"""A batch's way through its model: collated, launched, waited for. Here on the CPU; on a GPU: `streams`.

Knows: what a track is, the CPU's memory. Must not know: requests' fates, orders, threads, CUDA.

A *track* belongs to one loaded model. `launch` takes a collated batch and gives a *flight*, which is a
batch in flight: on the CPU it has landed by then, on a GPU it lands later.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from headway.errors import ModelError
from headway.models import ModelSpec
from headway_worker.buckets import bucket_of
from headway_worker.buffers import Buffers
from headway_worker.casting import Casting
from headway_worker.collate import Values, collate, to_host
from headway_worker.replies import Answer
from headway_worker.request import ModelRequest

Clock = Callable[[], float]
Infer = Callable[[Values], Values]
Collated = dict[str, Any]  # as its own track has made it, and no other's
Share = Values | Answer  # what one request gets
Outputs = Values | list[Share]  # of a whole batch; a list where each request's share is known already


class Flight(Protocol):
    """A batch on its device."""

    def is_done(self) -> bool:
        """Whether `outputs` would return at once."""

    def outputs(self) -> Outputs:
        """Wait, and have what came out, on the CPU. Raises: what the device says of the batch."""

    def compute_s(self) -> float:
        """How long the model took; to be asked after `outputs`."""


class Track(Protocol):
    """How one model's batches run."""

    depth: int  # batches that may be in flight

    def collate(self, requests: Sequence[ModelRequest]) -> Collated:
        """The requests of one group as one batch of the size that the model sees."""

    def launch(self, inputs: Collated, clock: Clock) -> Flight:
        """Start the batch. Raises: whatever the model raises; ModelError."""

    def settle(self, requests: Sequence[ModelRequest], clock: Clock) -> None:
        """After the first run of a batch of this size: prepare whatever makes the next ones faster."""

    def facts(self) -> dict[str, Any]:
        """For people: how batches run, and what was not possible."""


def width_of(requests: Sequence[ModelRequest]) -> int:
    """How many rows the requests have, without padding."""
    return sum(request.width for request in requests)


class Landed:
    """A batch that was done when it was launched."""

    def __init__(self, outputs: Outputs, compute_s: float) -> None:
        self._outputs = outputs
        self._compute_s = compute_s

    def is_done(self) -> bool:
        return True

    def outputs(self) -> Outputs:
        return self._outputs

    def compute_s(self) -> float:
        return self._compute_s


class HostTrack:
    """On the CPU: the launch is the computation."""

    depth = 1

    def __init__(self, spec: ModelSpec, infer: Infer, buckets: tuple[int, ...]) -> None:
        self._inputs = spec.inputs
        self._infer = infer
        self._buckets = buckets
        self._casting = Casting(spec)
        self._buffers = Buffers()

    def collate(self, requests: Sequence[ModelRequest]) -> Values:
        rows = bucket_of(width_of(requests), self._buckets)
        return collate(requests, self._inputs, rows, self._buffers.empty)

    def launch(self, inputs: Collated, clock: Clock) -> Flight:
        start = clock()
        made = self._casting.outputs(self._infer(self._casting.inputs(inputs)))
        outputs = {name: to_host(name, value) for name, value in made.items()}
        return Landed(outputs, clock() - start)

    def settle(self, requests: Sequence[ModelRequest], clock: Clock) -> None:
        """Nothing: the first run has warmed what there is."""

    def facts(self) -> dict[str, Any]:
        return {}


class WholeTrack:
    """For backends that take requests whole: nothing is collated, and the launch is the computation, on
    whatever device."""

    depth = 1
    _REQUESTS = "requests"

    def __init__(self, answer: Callable[[Sequence[ModelRequest]], list[Share]]) -> None:
        self._answer = answer

    def collate(self, requests: Sequence[ModelRequest]) -> Collated:
        return {self._REQUESTS: requests}

    def launch(self, inputs: Collated, clock: Clock) -> Flight:
        start, requests = clock(), inputs[self._REQUESTS]
        shares = self._answer(requests)
        if len(shares) != len(requests):
            raise ModelError(f"the backend answered {len(shares)} requests of {len(requests)}")
        return Landed(shares, clock() - start)

    def settle(self, requests: Sequence[ModelRequest], clock: Clock) -> None:
        """Nothing: the first run has warmed what there is."""

    def facts(self) -> dict[str, Any]:
        return {}
