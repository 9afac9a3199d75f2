"""Counters and histograms of one model version, kept by the broker because it alone sees every request.

Knows: counting. Must not know: Prometheus, who asks.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from headway.histogram import ROWS, SECONDS, Histogram
from headway_broker.queues import OpenRequest

OUTCOME_OK = "ok"


class ModelStats:
    """One model version's."""

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()
        self.queue_s = Histogram(SECONDS)
        self.compute_s = Histogram(SECONDS)
        self.total_s = Histogram(SECONDS)
        self.batch_rows = Histogram(ROWS)
        self.batches = 0
        self.busy_s = 0.0  # of workers, by all batches together

    def batch_sent(self, requests: list[OpenRequest], now: float) -> None:
        self.batch_rows.observe(sum([request.rows for request in requests]))
        self.queue_s.observe_all([now - request.arrived for request in requests])

    def batch_done(self, compute_s: float, requests: int) -> None:
        self.compute_s.observe(compute_s, requests)
        self.batches += 1
        self.busy_s += compute_s

    def answered(self, outcome: str, requests: list[OpenRequest], now: float) -> None:
        self.outcomes[outcome] += len(requests)
        self.total_s.observe_all([now - request.arrived for request in requests])

    def facts(self) -> dict[str, Any]:
        return {
            "outcomes": dict(self.outcomes),
            "queue_s": self.queue_s.facts(),
            "compute_s": self.compute_s.facts(),
            "total_s": self.total_s.facts(),
            "batch_rows": self.batch_rows.facts(),
        }
