"""Whose turn it is: the time of a crew of workers, shared between the models that wait for it.

Knows: names, shares, seconds. Must not know: queues, requests, workers.

How it works. Start-time fair queueing. Each batch has a start, in a time of its own that runs as the shares
are served: the finish of the batch before it of the same model, and its finish is that and its cost by the
model's share. The smallest start is next, and `now` is the start of what was last taken. So models that
always wait get time in proportion to their shares, whatever their batches cost; one that waits for nobody
else takes all of it; and one that did not wait starts at `now`, without any credit for the past.

The cost is charged as expected, and put right (`correct`) when it is known. What is right then counts from
the batch after the next.

Invariants: a name is in the heap exactly as long as it waits; `now` never goes back.
"""

from __future__ import annotations

import heapq
import itertools

from headway_broker.catalog import Key


class Turns:
    """One crew's. `waiting` has the share of each that waits, `rivals` is their sum."""

    def __init__(self) -> None:
        self.now = 0.0
        self.rivals = 0.0
        self._finish: dict[Key, float] = {}
        self.waiting: dict[Key, float] = {}
        self._heap: list[tuple[float, int, Key]] = []
        self._count = itertools.count()

    @property
    def first(self) -> Key | None:
        """Whose turn it is."""
        return self._heap[0][2] if self._heap else None

    def wait(self, key: Key, share: float) -> None:
        """It has something to be done, unless it said so already."""
        if key in self.waiting:
            return
        start = max(self._finish.get(key, 0.0), self.now)
        self._finish[key] = start
        self.waiting[key] = share
        self.rivals += share
        heapq.heappush(self._heap, (start, next(self._count), key))

    def pass_over(self) -> None:
        """The first does not wait after all."""
        _, _, key = heapq.heappop(self._heap)
        share = self.waiting.pop(key)
        self.rivals = self.rivals - share if self.waiting else 0.0  # no rounding is left over

    def take(self, cost_s: float) -> None:
        """The first has its turn, which is expected to cost so much. It waits no longer, until it says so."""
        start, _, key = self._heap[0]
        self.now = max(self.now, start)
        self._finish[key] += cost_s / self.waiting[key]
        self.pass_over()

    def correct(self, key: Key, cost_s: float, share: float) -> None:
        """A turn cost so much more (or less) than was expected."""
        if key in self._finish:
            self._finish[key] += cost_s / share

    def behind_s(self, key: Key, share: float) -> float:
        """How long others are served before it may be its turn, for what it had already."""
        lead = max(self._finish.get(key, 0.0) - self.now, 0.0)
        return lead * (self.rivals - self.waiting.get(key, 0.0))
