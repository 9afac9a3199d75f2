"""When the requests of an open loop are meant to be sent: a Poisson process from a seed; pure.

An open loop has callers that know nothing of each other: the next request is due whether or not the
last one was answered. A request that cannot be sent when it is due (no connection is free) keeps its place
and its time, and its latency is counted from then; so a server that stalls for a second is charged with
all the waiting that its stall causes, not only with that of the few requests it held ("coordinated
omission").

Knows: times, as nanoseconds. Must not know: the clock, connections.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import takewhile

NS = 1_000_000_000


def poisson(rate: float, seconds: float, seed: int) -> list[int]:
    """Offsets from the start, in nanoseconds, of `rate` arrivals a second on average."""
    return [int(at * NS) for at in takewhile(lambda at: at < seconds, endless(rate, seed))]


def endless(rate: float, seed: int) -> Iterator[float]:
    """The same, in seconds and without an end."""
    chance, at = random.Random(seed), 0.0
    while True:
        yield (at := at + chance.expovariate(rate))


class Arrivals:
    """Requests that are still to be sent, earliest first."""

    def __init__(self, times: Iterable[int]) -> None:
        self._times = deque(sorted(times))

    def __len__(self) -> int:
        return len(self._times)

    def next_due(self) -> int | None:
        """When the next request is meant to be sent; None: there is none."""
        return self._times[0] if self._times else None

    def take(self, now: int) -> int | None:
        """When the next request was meant to be sent, if that has come; it is the caller's to send now."""
        if self._times and self._times[0] <= now:
            return self._times.popleft()
        return None

    def rest(self) -> list[int]:
        """Takes all that is left, due or not."""
        times, self._times = list(self._times), deque()
        return times
