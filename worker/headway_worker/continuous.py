"""A running batch: the model is run again and again, and requests join and leave between two runs.

Knows: the order of things for a rider: run, send, end. Must not know: who may ride (that is `running`), when
a turn is due, sockets, how a handler is called.

Everything but `drop` happens in the runner's thread. A turn is one run of the model with all that ride. What
it makes for each is sent as a piece to a caller that takes pieces, and otherwise kept for the end. When the
model raises, all that ride get the error, and the batch is empty.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from headway.body import Body
from headway.errors import InvalidInput, ModelError
from headway_worker import device
from headway_worker.abreast import BEAT_S, Reports, dropped, sign_of_life
from headway_worker.batches import Passage
from headway_worker.replies import Answer
from headway_worker.request import ModelRequest
from headway_worker.running import Running
from headway_worker.tracks import Clock, Share

Step = tuple[Share, bool]  # what one run has made for a rider, and whether it rides on


class TakesTurns(Protocol):
    """A backend whose model has a running batch."""

    def rides(self, request: ModelRequest) -> bool:
        """Whether the request is for the running batch; else it is answered by itself, when nobody rides."""

    def step(self, requests: Sequence[ModelRequest]) -> list[Step]:
        """Run the model with all that ride. Raises: whatever the model raises, which is their error."""

    def answer(self, requests: Sequence[ModelRequest]) -> list[Share]:
        """What a request that does not ride gets."""


@dataclass(eq=False)
class _Rider:
    passage: Passage
    request: ModelRequest
    alone: bool
    kept: list[bytes] = field(default_factory=list)
    compute_s: float = 0.0


class Continuous:
    """One model's running batch."""

    takes_turns = True

    def __init__(self, backend: TakesTurns, size: int, report: Reports, clock: Clock) -> None:
        self._backend = backend
        self._report = report
        self._clock = clock
        self._running: Running[_Rider] = Running(size)
        self._dropped: deque[int] = deque()
        self._beat_at = 0.0

    def __len__(self) -> int:
        return len(self._running)

    def join(self, passage: Passage) -> None:
        """Its request rides from the next turn on."""
        requests = [*passage.requests.values()]
        if not requests:  # it has its error
            self._report(passage.result())
        elif len(requests) > 1 or requests[0].content is None:
            self._report(passage.fail(InvalidInput("a continuous model takes one body in each request")))
        else:
            alone = not self._backend.rides(requests[0])
            self._running.join(passage.batch.id, _Rider(passage, requests[0], alone), alone)

    def drop(self, batch: int) -> None:
        """It leaves before the next turn."""
        self._dropped.append(batch)

    def turn(self) -> None:
        """Let go of what was dropped, and run the model with all that ride."""
        self._let_go()
        riders = self._running.riders
        if not riders:
            return
        if (first := next(iter(riders.values()))).alone:
            self._answer(first)
            return
        start = self._clock()
        steps = self._stepped([*riders.values()])
        took_s = self._clock() - start
        for (batch, rider), (answer, rides_on) in zip(riders.items(), steps, strict=False):
            assert isinstance(answer, Answer), "a rider's request is a body"
            rider.compute_s += took_s
            if not self._advance(rider, answer, rides_on):
                self._running.leave(batch)
        self._say_alive()

    def close(self) -> None:
        """Nothing is held but riders, and none are there."""

    def _let_go(self) -> None:
        while self._dropped:
            if rider := self._running.leave(self._dropped.popleft()):
                self._report(dropped(rider.passage.batch))

    def _answer(self, rider: _Rider) -> None:
        """One that is here by itself, and once."""
        start, passage, requests = self._clock(), rider.passage, [rider.request]
        self._running.leave(passage.batch.id)
        try:
            result = passage.end(self._backend.answer(requests), self._clock() - start)
        except BaseException as error:
            result = passage.fail(error)
        self._report(result)

    def _stepped(self, riders: list[_Rider]) -> list[Step]:
        """One run; no steps when it raised, and nobody rides then."""
        try:
            steps = self._backend.step([rider.request for rider in riders])
            if len(steps) != len(riders):
                raise ModelError(f"the backend answered {len(steps)} requests of {len(riders)}")
            return steps
        except BaseException as error:
            device.raise_fault(error)
            for rider in riders:
                self._running.leave(rider.passage.batch.id)
                self._report(rider.passage.fail(error))
            exhausted = device.is_out_of_memory(error)
        if exhausted:  # here, where the exception no longer holds the tensors of its frames
            device.free_memory()
        return []

    def _advance(self, rider: _Rider, answer: Answer, rides_on: bool) -> bool:
        """Send what a turn has made for a rider, or end it. Returns whether it rides on."""
        if not rides_on:
            whole = b"".join([*rider.kept, bytes(answer.body.data)])
            made = answer._replace(body=Body(whole, answer.body.content_type))
            self._report(rider.passage.end([made], rider.compute_s))
        elif rider.request.send is None:
            rider.kept.append(bytes(answer.body.data))
        else:
            try:
                rider.request.send(answer)
            except BaseException as error:  # a piece that is too large
                self._report(rider.passage.fail(error))
                return False
        return rides_on

    def _say_alive(self) -> None:
        """For callers that take no pieces, of whom nothing else would be heard."""
        now, oldest = self._clock(), self._running.oldest
        if oldest is not None and now >= self._beat_at:
            self._beat_at = now + BEAT_S
            self._report(sign_of_life(oldest))
