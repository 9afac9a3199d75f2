"""The sequences of one model: which are open, which were lost, and when each is over.

Knows: names, times, the model's bounds. Must not know: workers, batches, how a request is answered.

A sequence is opened by a request that says so (`sequence_start`) or, if the model's `sequence_opens` is
"any", by any request of a name that is not open. It is over when a request that ends it has run, when nothing
of it came for `sequence_idle_ms`, or `sequence_timeout_ms` after it was opened (what was accepted by then
still runs).

The name of one that was *lost*, with the state that it had in a worker, is remembered for `sequence_idle_ms`:
what comes of it later is refused unless it starts the sequence anew. A broker that was restarted knows no
sequence; for as long after it was told of copies that are older than it (`orphan`), unknown names must be
started in any case.
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from dataclasses import dataclass, field

from headway.errors import HeadwayError, NoSequence, QueueFull
from headway.models import ANY, ModelSpec
from headway.steps import Step
from headway_broker.alarms import Alarms
from headway_broker.queues import OpenRequest

ORPHANED = "the broker was started anew, and knows of none before"
LOST_MAX = 10_000  # names of lost sequences that are remembered


@dataclass(slots=True, eq=False)
class Sequence:
    """`name` is "" for a request without one, which is one by itself. `worker`: who has its state. `since`:
    when what is next could have gone, or when nothing was left. `begun`: a worker was sent something of it.
    `started`: by a request that says so. `ending`: the request that ends it, once that was accepted.
    `unstarted`: why a new start of it will not be run; nothing follows but another. `over`: why it is, for
    what still waits."""

    name: str
    since: float
    expires: float
    worker: bytes | None = None
    running: OpenRequest | None = None
    begun: bool = False
    started: bool = True
    ending: OpenRequest | None = None
    unstarted: str = ""
    over: str = ""
    waiting: deque[OpenRequest] = field(default_factory=deque)

    @property
    def is_idle(self) -> bool:
        return not (self.waiting or self.running)


class Sequences:
    """`open`, by name."""

    def __init__(self, spec: ModelSpec) -> None:
        self.spec = spec
        self.open: dict[str, Sequence] = {}
        self._lost: OrderedDict[str, tuple[float, str]] = OrderedDict()
        self._closing: Alarms[Sequence] = Alarms()
        self._orphaned_until = -math.inf

    def of(self, step: Step, now: float) -> tuple[Sequence, list[Sequence]]:
        """The sequence that takes this request, and those that were closed to make room for it. Raises:
        NoSequence; QueueFull naming the bound."""
        sequence = self.open.get(step.sequence)
        if sequence is None:
            return self._opened(step, now)
        why = "" if step.starts else self._closed(sequence, now)
        if why:
            raise self.refusal(step.sequence, why)
        bound = self.spec.sequence_queue_max
        if len(sequence.waiting) + (sequence.running is not None) > bound:
            raise QueueFull(f"sequence {step.sequence!r} has its {bound} waiting requests")
        if step.starts:
            sequence.started, sequence.ending, sequence.unstarted = True, None, ""
            sequence.expires = self._expires(now)
        return sequence, []

    def rest(self, sequence: Sequence, now: float) -> bool:
        """Nothing of it waits, and nothing runs. Whether it is over."""
        sequence.since = now
        if not sequence.name or sequence.expires <= now:
            return True
        self._closing.set(sequence, self._closes_at(sequence))
        return False

    def close(self, sequence: Sequence, why: str) -> None:
        sequence.over = why
        if self.open.get(sequence.name) is sequence:
            del self.open[sequence.name]

    def lose(self, sequence: Sequence, why: str, now: float) -> None:
        """Close it, and remember that it was lost."""
        self.close(sequence, why)
        if sequence.name:
            self.remember(sequence.name, why, now)

    def remember(self, name: str, why: str, now: float) -> None:
        """A sequence of that name must be started, for a while."""
        self._lost.pop(name, None)
        self._lost[name] = now + self.spec.sequence_idle_ms / 1000, why
        if len(self._lost) > LOST_MAX:
            self._lost.popitem(last=False)

    def orphan(self, now: float) -> list[Sequence]:
        """A worker brought a copy that is older than this broker: what states it has, nobody knows. Returns
        the sequences that may be among them: to be lost."""
        self._orphaned_until = now + self.spec.sequence_idle_ms / 1000
        return [sequence for sequence in self.open.values() if not sequence.started]

    def due(self, now: float) -> list[Sequence]:
        """Those of which nothing came for too long, or whose time is over: to be closed."""
        due: list[Sequence] = []
        for sequence in self._closing.due(now):
            if sequence.over or not sequence.is_idle:
                continue
            if self._closes_at(sequence) <= now:
                due.append(sequence)
            else:
                self._closing.set(sequence, self._closes_at(sequence))
        while self._lost and next(iter(self._lost.values()))[0] <= now:
            self._lost.popitem(last=False)
        return due

    def refusal(self, name: str, why: str) -> HeadwayError:
        what = f"sequence {name!r} of {self.spec.name!r}" if name else f"a request of {self.spec.name!r}"
        return NoSequence(f"{what}: {why}")

    def _opened(self, step: Step, now: float) -> tuple[Sequence, list[Sequence]]:
        if why := self._objection(step, now):
            raise self.refusal(step.sequence, why)
        bound, closed = self.spec.sequences_max, list[Sequence]()
        if len(self.open) >= bound:
            closed = self.due(now)
            for sequence in closed:
                self.close(sequence, "it expired")
        if len(self.open) >= bound:
            raise QueueFull(f"{bound} sequences of {self.spec.name!r} are open, and no more may be")
        self._lost.pop(step.sequence, None)
        sequence = Sequence(step.sequence, now, self._expires(now), started=step.starts)
        self.open[step.sequence] = sequence
        return sequence, closed

    def _closed(self, sequence: Sequence, now: float) -> str:
        """Why an open sequence takes nothing but a new start; "" if it does."""
        if sequence.unstarted:
            return sequence.unstarted
        if sequence.ending:
            return "it has been ended"
        return "its time is over" if now >= sequence.expires else ""

    def _objection(self, step: Step, now: float) -> str:
        """Why a sequence that is not open is not opened; "" if it may be."""
        if step.starts:
            return ""
        if lost := self._lost.get(step.sequence):
            return lost[1]
        if now < self._orphaned_until:
            return ORPHANED
        return "" if self.spec.sequence_opens == ANY else "it was not started, has ended, or expired"

    def _expires(self, now: float) -> float:
        timeout_ms = self.spec.sequence_timeout_ms
        return now + timeout_ms / 1000 if timeout_ms else math.inf

    def _closes_at(self, sequence: Sequence) -> float:
        return min(sequence.since + self.spec.sequence_idle_ms / 1000, sequence.expires)
