"""What a load generator counts, and how answers become a rate and percentiles; pure.

A *closed* loop counts the answers between its warm-up and its end. Its clock runs from the last answer of the
warm-up to the last answer in time: a server that answers eight at once, once a second, would otherwise get
a batch more or less by chance, which at a few batches a second is several percent. (Without an answer in
the warm-up, it runs from the beginning.)

An *open* loop counts the requests that were meant to be sent after the warm-up, all of them, whenever
they are answered; those never answered count with the time that was spent waiting for them.

Times are nanoseconds of one monotonic clock. Must not know: the clock, the network.
"""

from __future__ import annotations

from typing import Any

from benchmarks.arrivals import NS
from benchmarks.histogram import Histogram

PERCENTILES = (50, 90, 99, 99.9)
MS = 1_000_000
WARM_UP = 0.1  # of the time


class Tally:
    """`answers` and `errors` are of the whole run; `latencies` only of what counts."""

    def __init__(self, begin: int, seconds: float) -> None:
        self.start = begin + int(seconds * WARM_UP * NS)
        self.end = begin + int(seconds * NS)
        self.first, self.last = begin, begin
        self.latencies: list[int] = []
        self.answers = self.errors = 0

    def add(self, now: int, since: int, ok: bool) -> bool:
        """An answer at `now` to what was asked at `since`; False when the time is over."""
        raise NotImplementedError

    def facts(self) -> dict[str, Any]:
        """Raises: ValueError when nothing was answered in time."""
        histogram = Histogram.of(self.latencies)
        facts: dict[str, Any] = {"answers": self.answers, "errors": self.errors, "requests": histogram.total}
        facts["rate"] = histogram.total / (max(self.last - self.first, 1) / NS)
        for percent in PERCENTILES:
            facts[f"p{percent:g}_ms"] = histogram.percentile(percent) / MS
        return {**facts, "max_ms": histogram.largest / MS, "histogram": histogram.facts()}


class Closed(Tally):
    """Counts by the time of the answer."""

    def add(self, now: int, since: int, ok: bool) -> bool:
        self.answers += 1
        self.errors += not ok
        if now > self.end:
            return False
        if now > self.start:
            self.latencies.append(now - since)
            self.last = now
        else:
            self.first = now
        return True


class Open(Tally):
    """Counts by the time that the request was meant to be sent at."""

    unanswered = 0

    def add(self, now: int, since: int, ok: bool) -> bool:
        self.answers += 1
        self.errors += not ok
        if since >= self.start:
            self.latencies.append(now - since)
            self.last = max(now, self.last)
        return True

    def give_up(self, now: int, waiting: list[int]) -> None:
        """`waiting`: when those that have no answer were meant to be sent."""
        for since in waiting:
            if since >= self.start:
                self.latencies.append(max(now - since, 0))
        self.unanswered += len(waiting)

    def facts(self) -> dict[str, Any]:
        return {**super().facts(), "unanswered": self.unanswered}
