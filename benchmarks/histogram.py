"""A histogram of latencies with a fixed relative precision, after HdrHistogram; pure.

Values are whole numbers (here nanoseconds). Below 256 each has a bucket of its own; above, every power of two
is cut into 128 buckets of one width, so a bucket is never wider than 1/128 of what is in it. Histograms of
several runs can be added up, which percentiles cannot.

Knows: counting. Must not know: clocks, what is counted.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping

BITS = 8
HALF = 1 << (BITS - 1)


def bucket_of(value: int) -> int:
    """The number of the bucket that `value` is counted in; larger values never have smaller numbers."""
    shift = max(value.bit_length() - BITS, 0)
    return shift * HALF + (value >> shift)


def highest_in(bucket: int) -> int:
    """The largest value that is counted in it."""
    shift = max(bucket // HALF - 1, 0)
    return ((bucket - shift * HALF + 1) << shift) - 1


class Histogram:
    """Counts by bucket, and the exact largest value."""

    def __init__(self, counts: Mapping[int, int] | None = None, largest: int = 0) -> None:
        self.counts = Counter(counts or {})
        self.largest = largest

    @classmethod
    def of(cls, values: Iterable[int]) -> Histogram:
        histogram = cls()
        for value in values:
            histogram.add(value)
        return histogram

    @property
    def total(self) -> int:
        return self.counts.total()

    def add(self, value: int, times: int = 1) -> None:
        self.counts[bucket_of(value)] += times
        self.largest = max(self.largest, value)

    def merge(self, other: Histogram) -> None:
        self.counts += other.counts
        self.largest = max(self.largest, other.largest)

    def percentile(self, percent: float) -> int:
        """At least `percent` of the values are no larger than this: the upper end of a bucket, so at most
        1/128 too much. Raises: ValueError when there are none."""
        if not self.counts:
            raise ValueError("no values, no percentiles")
        rank = max(math.ceil(self.total * percent / 100), 1)
        for bucket in sorted(self.counts):
            rank -= self.counts[bucket]
            if rank <= 0:
                return min(highest_in(bucket), self.largest)
        return self.largest

    def facts(self) -> dict[str, object]:
        """For JSON; `from_facts` reads it."""
        return {"counts": sorted(self.counts.items()), "largest": self.largest}

    @classmethod
    def from_facts(cls, facts: Mapping[str, object]) -> Histogram:
        return cls(dict(facts["counts"]), int(facts["largest"]))  # type: ignore[call-overload]
