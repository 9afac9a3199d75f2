"""When a batch is ripe, and how large it may be.

Knows: a queue's figures, what batches cost. Must not know: workers, requests. A user may replace the policy
with any object that has `rows_max` and `ripe_at`.

How a batch keeps an SLO. The slowest way through is that of a request that comes just after a batch left:
it waits for that one and then rides in the next. So two batches of the size aimed at must fit (as in
Nexus), which leaves nothing to tune and nothing to oscillate: the size follows from the learned costs. The
size does not follow the oldest request: see Decisions in docs/architecture.md for what happens then.
"""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

from headway_broker.costs import Costs

MARGIN_S = 0.002  # for the way to the worker and back
FAR_S = 60.0  # a deadline so long after the delay does not shorten it, whatever the batch may take


class Waiting(NamedTuple):
    """A queue's figures while a worker could take a batch. Times are monotonic seconds.

    `costs`: what batches of this model take; `slo_s`: from arrival to reply, 0 for none. `since`: from when
    the delay counts: the oldest's arrival or, if the model says so, when an idle worker began to wait for the
    batch to fill. `complete`: nobody is left who could join (see `companies`).
    """

    rows: int
    rows_max: int
    oldest: float
    earliest_deadline: float
    delay_s: float
    costs: Costs
    slo_s: float
    since: float
    complete: bool = False


class BatchPolicy(Protocol):
    """Decides how large a batch gets, and when a partial one leaves. (A full one always does, and none leaves
    without a worker.)"""

    def rows_max(self, waiting: Waiting) -> int:
        """The most rows of a batch; it is full with them."""

    def ripe_at(self, waiting: Waiting) -> float:
        """From when on a partial batch may go; -inf for at once."""


class FillOrDelay:
    """Ripe when full, when nobody is left to wait for, when the delay is over, or when a deadline or the SLO
    would be missed; as large as its model allows, or as its SLO does."""

    def rows_max(self, waiting: Waiting) -> int:
        if not waiting.slo_s or not waiting.costs.known:
            return waiting.rows_max
        return slo_rows(waiting.costs, waiting.slo_s, waiting.rows_max)

    def ripe_at(self, waiting: Waiting) -> float:
        if waiting.rows >= waiting.rows_max or waiting.delay_s <= 0 or waiting.complete:
            return -math.inf
        latest = waiting.earliest_deadline
        if waiting.slo_s:
            latest = min(latest, waiting.oldest + waiting.slo_s)
        due = waiting.since + waiting.delay_s
        if latest - due > FAR_S:  # PERF: `late_s` is a third of what a lone request costs the broker
            return due
        return min(due, latest - waiting.costs.late_s(waiting.rows) - MARGIN_S)


def slo_rows(costs: Costs, slo_s: float, rows_max: int) -> int:
    """The rows to aim at: the most of which two batches, one after the other, keep the SLO; at least 1."""
    return max(costs.rows_within((slo_s - MARGIN_S) / 2, rows_max), 1)
