"""When to look again: at most one time for each name, the earliest that was asked for.

Knows: names, times. Must not know: what is looked at.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Hashable
from typing import Generic, TypeVar

Name = TypeVar("Name", bound=Hashable)


class Alarms(Generic[Name]):
    """`set` costs as much as a heap does; a name whose alarm went off is known no longer."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Name]] = []
        self._valid: dict[Name, float] = {}
        self._count = itertools.count()
        self.next = math.inf  # no later than the first alarm; inf without any

    def __contains__(self, name: Name) -> bool:
        return name in self._valid

    def set(self, name: Name, at: float) -> None:
        """Ring at that time, unless it rings earlier anyway. inf: never."""
        if at < self._valid.get(name, math.inf):
            self._valid[name] = at
            heapq.heappush(self._heap, (at, next(self._count), name))
            self.next = min(self.next, at)

    def due(self, now: float) -> list[Name]:
        """Those whose time has come."""
        names: list[Name] = []
        if now < self.next:
            return names
        while self._heap and self._heap[0][0] <= now:
            at, _, name = heapq.heappop(self._heap)
            if self._valid.get(name) == at:
                del self._valid[name]
                names.append(name)
        self.next = self._heap[0][0] if self._heap else math.inf
        return names
