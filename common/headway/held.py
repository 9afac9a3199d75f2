"""The slots of calls that have their outcome but may still be touched by a worker, pure.

Knows: which calls, and until when. Must not know: memory, the wire's messages, open calls.

A slot comes back when the broker says that no worker touches it. It is asked for again every `ask_s`: what
was said may be lost with a connection. A broker's word is good for requests that it alone was sent; when
a new broker is met, workers may still run what the old one gave them, and nobody can tell. The slots of such
calls come back `orphan_s` after their outcome; what is left of the danger is a worker that is at it for
longer, and it finds another generation before it reads or writes.
"""

from __future__ import annotations

import math
from collections import deque

ASK_S = 1.0


class Held:
    """Ids of calls, of one caller."""

    def __init__(self, orphan_s: float) -> None:
        self._orphan_s = orphan_s
        self._waiting: dict[int, None] = {}
        self._fresh: list[int] = []  # to be asked for at once
        self._ask_at = math.inf
        self._orphans: deque[tuple[float, int]] = deque()  # in the order of their times

    def __len__(self) -> int:
        return len(self._waiting) + len(self._orphans)

    def wait(self, id: int, now: float, ask: bool) -> None:
        """Until the broker releases it. `ask`: the broker does not know yet that we wait."""
        if not self._waiting:
            self._ask_at = now + ASK_S
        self._waiting[id] = None
        if ask:
            self._fresh.append(id)

    def quarantine(self, id: int, now: float) -> None:
        """For `orphan_s` from now on."""
        self._orphans.append((now + self._orphan_s, id))

    def new_broker(self, now: float) -> None:
        """Nobody can say any more when those that wait are let go."""
        for id in self._waiting:
            self.quarantine(id, now)
        self._waiting.clear()
        self._fresh.clear()

    def release(self, ids: list[int]) -> list[int]:
        """The broker said so; returns those that waited for it."""
        return [id for id in ids if self._waiting.pop(id, id) is None]

    def due(self, now: float) -> list[int]:
        """Those whose quarantine is over."""
        due = []
        while self._orphans and self._orphans[0][0] <= now:
            due.append(self._orphans.popleft()[1])
        return due

    def asks(self, now: float) -> list[int]:
        """What to ask the broker for now."""
        fresh, self._fresh = self._fresh, []
        if not self._waiting or now < self._ask_at:
            return [id for id in fresh if id in self._waiting]
        self._ask_at = now + ASK_S
        return list(self._waiting)

    @property
    def hurry(self) -> bool:
        """Whether there is something to ask at once."""
        return bool(self._fresh and self._waiting)  # not for one that a late reply released meanwhile

    def next_wake(self) -> float:
        """inf: never."""
        orphans = self._orphans[0][0] if self._orphans else math.inf
        return min(orphans, self._ask_at if self._waiting else math.inf)
