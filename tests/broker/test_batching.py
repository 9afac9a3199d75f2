"""When a batch is ripe."""

from __future__ import annotations

import math

from headway_broker.batching import MARGIN_S, FillOrDelay, Waiting
from headway_broker.costs import Costs

POLICY = FillOrDelay()


def waiting(
    rows: int = 1, delay_s: float = 0.1, deadline: float = math.inf, batch_s: float = 0.0, slo_s: float = 0.0
) -> Waiting:
    """8 rows fit; the oldest request came at 50; every batch takes as long."""
    costs = Costs()
    costs.observe(8, batch_s)
    return Waiting(rows, 8, 50.0, deadline, delay_s, costs, slo_s)


def test_a_full_batch_is_ripe_at_once() -> None:
    assert POLICY.ripe_at(waiting(rows=8)) == -math.inf
    assert POLICY.ripe_at(waiting(rows=9)) == -math.inf


def test_without_a_delay_anything_is_ripe_at_once() -> None:
    assert POLICY.ripe_at(waiting(delay_s=0.0)) == -math.inf


def test_a_partial_batch_is_ripe_when_its_oldest_request_has_waited_the_delay() -> None:
    assert POLICY.ripe_at(waiting(rows=7)) == 50.1


def test_a_partial_batch_is_ripe_in_time_for_its_earliest_deadline() -> None:
    assert POLICY.ripe_at(waiting(deadline=50.08, batch_s=0.03)) == 50.08 - 0.03 - MARGIN_S


def test_a_deadline_that_is_far_away_does_not_prolong_the_delay() -> None:
    assert POLICY.ripe_at(waiting(deadline=99.0)) == 50.1
