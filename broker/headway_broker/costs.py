"""What a batch of so many rows of one model version takes, in seconds: learned, and kept up to date.

Knows: what a copy said when it became ready (`batch_us` of its facts), and how long batches took since.
Must not know: queues, workers, what the figures are used for.

How it works. A curve through a few points, rows to seconds. A batch that took longer than the curve says
lifts the whole curve a little, and its own point a little more: a worker that became slower is slower for
all sizes, also for those that nobody has asked for since. A batch counts as at most STEP times what was
expected, so that one outlier moves the curve by a few per cent.

`mean_s` is that curve: what a batch takes on average. `late_s` is what nearly all batches keep, and what
promises are made with: the curve times the second largest ratio of the last RECENT batches to it. One
outlier does not touch it, a worker that became slower does with its second batch, and one that became faster
is believed after RECENT.

Between two points the curve is a line; before the first it is flat; after the last it is proportional to the
rows, which is too much rather than too little, and is put right by the first larger batch.

Costs are kept for a model version, not for each device: copies on different devices share one curve, and
promises then follow the slower one. A curve for each would have to know which worker a queued request will
meet, and nothing does before it leaves.

Invariants: the curve never falls; with a point known it is above 0 everywhere.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from typing import Any

from headway.messages import BATCH_ROWS_MAX

RECENT = 16
STEP = 1.5
_WHOLE, _OWN = 0.2, 0.1  # how much of a deviation moves the whole curve, and its own point besides
_POINTS_MAX = 24
_NEAR = 1.25  # a point is a batch's own when their rows differ by less than this factor
_MICROS_MAX = 86_400_000_000


class Costs:
    """One model version's."""

    def __init__(self) -> None:
        self._rows: list[int] = []  # rising
        self._seconds: list[float] = []  # of the point in the same place, never falling
        self._recent: deque[tuple[int, float]] = deque(maxlen=RECENT)
        self._excess = 0.0  # `late_s` by `mean_s`; 0: to be found anew
        self._fitting: tuple[float, int, int] = (
            0.0,
            0,
            0,
        )  # the last answer of `rows_within`; rows_max 0: none

    @property
    def known(self) -> bool:
        """Without this, nothing else here means anything."""
        return bool(self._rows)

    def learn(self, batch_us: Any) -> None:
        """A copy that became ready says `{"1": 350, "8": 2100}`. What was measured since in real batches is
        worth more, and stays. It comes from the wire: what is not of that form is passed over."""
        if self._recent or not isinstance(batch_us, dict):
            return
        given = {int(rows): micros / 1e6 for rows, micros in batch_us.items() if _is_point(rows, micros)}
        known = dict(zip(self._rows, self._seconds, strict=True))
        merged = {rows: max(known.get(rows, 0.0), given.get(rows, 0.0)) for rows in {*known, *given}}
        self._rows = sorted(merged)[:_POINTS_MAX]
        self._seconds = []
        for rows in self._rows:
            self._seconds.append(max([merged[rows], *self._seconds[-1:]]))
        self._changed()

    def observe(self, rows: int, batch_s: float) -> None:
        """A batch of so many rows took so long."""
        if batch_s <= 0 or rows <= 0:
            return
        self._recent.append((rows, batch_s))
        if not self._rows:
            self._rows, self._seconds = [rows], [batch_s]
        elif (at := self._place(rows)) is None and len(self._rows) < _POINTS_MAX:
            self._add(rows, batch_s)
        else:
            self._move(rows, batch_s, at)
        self._changed()

    def mean_s(self, rows: int) -> float:
        """What such a batch takes on average; 0 while nothing is known."""
        at = bisect_left(self._rows, rows)
        if not self._rows:
            return 0.0
        if at == len(self._rows):
            return self._seconds[-1] * rows / self._rows[-1]
        if at == 0 or self._rows[at] == rows:
            return self._seconds[at]
        low, high = self._rows[at - 1], self._rows[at]
        slope = (self._seconds[at] - self._seconds[at - 1]) / (high - low)
        return self._seconds[at - 1] + slope * (rows - low)

    def late_s(self, rows: int) -> float:
        """What nearly every such batch keeps; 0 while nothing is known."""
        if not self._excess:
            ratios = sorted(took / self.mean_s(n) for n, took in self._recent)
            self._excess = max([1.0, *ratios[-2:][:1]])
        return self.mean_s(rows) * self._excess

    def rows_within(self, budget_s: float, rows_max: int) -> int:
        """The most rows, up to `rows_max`, whose batch nearly always keeps the budget; 0 when none does."""
        if self._fitting[:2] != (budget_s, rows_max):
            low, high = 0, rows_max
            while low < high:
                middle = (low + high + 1) // 2
                if self.late_s(middle) <= budget_s:
                    low = middle
                else:
                    high = middle - 1
            self._fitting = (budget_s, rows_max, low)
        return self._fitting[2]

    def facts(self) -> dict[str, int]:
        """The curve's points for the wire: rows to microseconds."""
        return {str(n): round(s * 1e6) for n, s in zip(self._rows, self._seconds, strict=True)}

    def _changed(self) -> None:
        self._excess = 0.0
        self._fitting = (0.0, 0, 0)

    def _place(self, rows: int) -> int | None:
        """Where the point is that such a batch belongs to."""
        at = bisect_left(self._rows, rows)
        if at < len(self._rows) and self._rows[at] == rows:  # PERF: most of the time
            return at
        near = [i for i in (at, at - 1) if 0 <= i < len(self._rows)]
        near = [i for i in near if 1 / _NEAR < rows / self._rows[i] < _NEAR]
        return min(near, key=lambda i: abs(self._rows[i] - rows), default=None)

    def _add(self, rows: int, batch_s: float) -> None:
        """A first batch of its size: believed, as far as its neighbours and STEP allow."""
        at = bisect_left(self._rows, rows)
        believed = min(batch_s, self.mean_s(rows) * STEP, *self._seconds[at : at + 1])
        self._rows.insert(at, rows)
        self._seconds.insert(at, max([believed, *self._seconds[max(at - 1, 0) : at]]))

    def _move(self, rows: int, batch_s: float, at: int | None) -> None:
        """`at`: where its own point is."""
        deviation = min(max(batch_s / self.mean_s(rows), 1 / STEP), STEP) - 1
        self._seconds = [seconds * (1 + _WHOLE * deviation) for seconds in self._seconds]
        if at is not None:
            least = self._seconds[at - 1] if at else 0.0
            most = self._seconds[at + 1] if at + 1 < len(self._seconds) else float("inf")
            self._seconds[at] = min(max(self._seconds[at] * (1 + _OWN * deviation), least), most)


def _is_point(rows: Any, micros: Any) -> bool:
    """Whether both are numbers that make sense."""
    if not (isinstance(rows, str) and rows.isascii() and rows.isdigit() and len(rows) < 7):
        return False
    return 1 <= int(rows) <= BATCH_ROWS_MAX and type(micros) is int and 0 < micros <= _MICROS_MAX
