"""When a batch is ripe."""

from __future__ import annotations

import math

from headway_broker.batching import MARGIN_S, FillOrDelay, Waiting, slo_rows
from headway_broker.costs import Costs

POLICY = FillOrDelay()


def waiting(
    rows: int = 1, delay_s: float = 0.1, deadline: float = math.inf, batch_s: float = 0.0, slo_s: float = 0.0
) -> Waiting:
    """8 rows fit; the oldest request came at 50; every batch takes as long."""
    costs = Costs()
    costs.observe(8, batch_s)
    return Waiting(rows, 8, 50.0, deadline, delay_s, costs, slo_s, 50.0)


def test_a_full_batch_is_ripe_at_once() -> None:
    assert POLICY.ripe_at(waiting(rows=8)) == -math.inf
    assert POLICY.ripe_at(waiting(rows=9)) == -math.inf


def test_without_a_delay_anything_is_ripe_at_once() -> None:
    assert POLICY.ripe_at(waiting(delay_s=0.0)) == -math.inf


def test_a_partial_batch_is_ripe_when_its_oldest_request_has_waited_the_delay() -> None:
    assert POLICY.ripe_at(waiting(rows=7)) == 50.1


def test_where_nobody_is_left_to_join_a_batch_is_ripe_at_once() -> None:
    assert POLICY.ripe_at(waiting()._replace(complete=True)) == -math.inf


def test_a_delay_that_began_later_is_over_later() -> None:
    assert POLICY.ripe_at(waiting()._replace(since=60.0)) == 60.1
    late = waiting(deadline=60.05, batch_s=0.03)._replace(since=60.0)
    assert POLICY.ripe_at(late) == 60.05 - 0.03 - MARGIN_S, "a deadline is a deadline"


def test_a_partial_batch_is_ripe_in_time_for_its_earliest_deadline() -> None:
    assert POLICY.ripe_at(waiting(deadline=50.08, batch_s=0.03)) == 50.08 - 0.03 - MARGIN_S


def test_a_deadline_that_is_far_away_does_not_prolong_the_delay() -> None:
    assert POLICY.ripe_at(waiting(deadline=99.0)) == 50.1


def slo_waiting(slo_s: float, delay_s: float = 0.0, rows: int = 1) -> Waiting:
    """A batch of n rows takes n times 10 ms."""
    costs = Costs()
    costs.learn({str(n): n * 10_000 for n in range(1, 9)})
    return Waiting(rows, 8, 50.0, math.inf, delay_s, costs, slo_s, 50.0)


def test_without_an_slo_a_batch_is_as_large_as_its_model_allows() -> None:
    assert POLICY.rows_max(slo_waiting(0.0)) == 8


def test_with_an_slo_two_batches_fit_into_it_one_after_the_other() -> None:
    assert POLICY.rows_max(slo_waiting(0.1 + MARGIN_S)) == 5
    assert POLICY.rows_max(slo_waiting(0.099 + MARGIN_S)) == 4
    assert POLICY.rows_max(slo_waiting(9.0)) == 8


def test_an_slo_that_nothing_keeps_leaves_batches_of_one() -> None:
    assert POLICY.rows_max(slo_waiting(0.001)) == 1
    assert slo_rows(slo_waiting(0.001).costs, 0.001, 8) == 1


def test_before_costs_are_known_an_slo_limits_nothing() -> None:
    assert POLICY.rows_max(slo_waiting(0.05)._replace(costs=Costs())) == 8


def test_a_partial_batch_is_ripe_in_time_for_its_slo() -> None:
    assert POLICY.ripe_at(slo_waiting(0.1, delay_s=1.0, rows=3)) == 50.0 + 0.1 - 0.03 - MARGIN_S
    assert POLICY.ripe_at(slo_waiting(9.0, delay_s=1.0, rows=3)) == 51.0


def test_an_slo_alone_makes_nobody_wait() -> None:
    assert POLICY.ripe_at(slo_waiting(0.1, delay_s=0.0)) == -math.inf
