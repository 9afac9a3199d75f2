"""When a batch is ripe.

Knows: a queue's figures. Must not know: workers, requests. A user may replace the policy with any object
that has `ripe_at`.
"""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

MARGIN_S = 0.002  # for the way to the worker and back


class Waiting(NamedTuple):
    """A queue's figures while a worker is idle. Times are monotonic seconds.

    `batch_s`: how long a batch of this model took lately.
    """

    rows: int
    rows_max: int
    oldest: float
    earliest_deadline: float
    delay_s: float
    batch_s: float


class BatchPolicy(Protocol):
    """Decides when a partial batch leaves. (A full one always does, and none leaves without a worker.)"""

    def ripe_at(self, waiting: Waiting) -> float:
        """From when on the batch may go; -inf for at once."""


class FillOrDelay:
    """Ripe when full, when the oldest request has waited its delay, or when a deadline would be missed."""

    def ripe_at(self, waiting: Waiting) -> float:
        if waiting.rows >= waiting.rows_max or waiting.delay_s <= 0:
            return -math.inf
        return min(waiting.oldest + waiting.delay_s, waiting.earliest_deadline - waiting.batch_s - MARGIN_S)
