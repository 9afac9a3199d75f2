"""Learned costs: from warm-up, from batches, and whatever the wire brings."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway_broker.costs import RECENT, STEP, Costs


def learned(**batch_us: int) -> Costs:
    """`learned(r1=1000, r8=4500)`"""
    costs = Costs()
    costs.learn({rows.removeprefix("r"): micros for rows, micros in batch_us.items()})
    return costs


def fed(costs: Costs, rows: int, *batches: float) -> Costs:
    for batch_s in batches:
        costs.observe(rows, batch_s)
    return costs


def test_nothing_is_known_at_first() -> None:
    costs = Costs()
    assert not costs.known
    assert (costs.mean_s(4), costs.late_s(4), costs.facts()) == (0.0, 0.0, {})


def test_what_a_copy_found_out_at_warm_up_is_known() -> None:
    costs = learned(r1=1000, r8=4500)
    assert costs.known
    assert (costs.mean_s(1), costs.mean_s(8)) == (0.001, 0.0045)
    assert costs.facts() == {"1": 1000, "8": 4500}


def test_between_two_points_the_curve_is_a_line() -> None:
    assert learned(r2=1000, r8=4000).mean_s(4) == pytest.approx(0.002)


def test_before_the_first_point_it_is_flat_and_after_the_last_proportional() -> None:
    costs = learned(r4=1000, r8=1200)
    assert costs.mean_s(1) == 0.001
    assert costs.mean_s(16) == pytest.approx(0.0024)


@pytest.mark.parametrize(
    "facts",
    [
        None,
        [1, 2],
        "1",
        {"x": 1, "-1": 1, "0": 1, "1.5": 1, "": 1, "²": 1, "9999999": 1},
        {"1": -1, "2": 0, "3": "4", "5": 1.5, "6": True, "7": None, "8": 1 << 60},
        {1: 1000, b"1": 1000},
    ],
)
def test_what_makes_no_sense_is_passed_over(facts: Any) -> None:
    costs = Costs()
    costs.learn(facts)
    assert not costs.known


def test_of_two_copies_the_slower_counts() -> None:
    costs = learned(r1=1000, r8=4000)
    costs.learn({"1": 500, "8": 8000, "4": 6000})
    assert costs.facts() == {"1": 1000, "4": 6000, "8": 8000}


def test_what_was_measured_since_is_not_undone_by_a_copy_that_comes_later() -> None:
    costs = fed(learned(r1=1000), 1, 0.002)
    before = costs.facts()
    costs.learn({"1": 9000, "8": 9000})
    assert costs.facts() == before


def test_without_warm_up_the_first_batch_says_how_long_one_takes() -> None:
    costs = fed(Costs(), 4, 0.004)
    assert (costs.mean_s(4), costs.mean_s(1), costs.mean_s(8)) == (0.004, 0.004, 0.008)


@pytest.mark.parametrize("factor", [2.0, 0.5])
def test_a_worker_whose_speed_changed_is_noticed_in_ten_batches_for_all_sizes(factor: float) -> None:
    costs = fed(learned(r1=1000, r8=8000), 8, *[0.008] * RECENT)
    fed(costs, 8, *[0.008 * factor] * 10)
    for rows, before in ((1, 0.001), (4, 0.004), (8, 0.008)):
        assert costs.mean_s(rows) == pytest.approx(before * factor, rel=0.3)


def test_promises_follow_a_slower_worker_with_its_second_batch_and_a_faster_one_after_a_while() -> None:
    costs = fed(learned(r8=8000), 8, *[0.008] * RECENT)
    fed(costs, 8, 0.016)
    assert costs.late_s(8) < 0.010
    fed(costs, 8, 0.016)
    assert costs.late_s(8) == pytest.approx(0.016)
    fed(costs, 8, *[0.008] * (RECENT - 2))
    assert costs.late_s(8) > 0.015
    fed(costs, 8, 0.008)
    assert costs.late_s(8) == pytest.approx(0.008, rel=0.1)


def test_one_outlier_ruins_nothing() -> None:
    costs = fed(learned(r1=1000, r8=8000), 8, *[0.008] * 4, 5.0, *[0.008] * 2)
    assert costs.mean_s(8) < 0.008 * 1.15
    assert costs.late_s(8) < 0.008 * 1.15
    assert costs.mean_s(1) < 0.001 * 1.15


def test_an_outlier_as_the_first_batch_of_its_size_ruins_nothing_either() -> None:
    costs = fed(learned(r1=1000, r64=8000), 8, 5.0)
    assert costs.mean_s(8) <= 0.008
    costs = fed(learned(r1=1000), 8, 5.0)
    assert costs.mean_s(8) <= 0.008 * STEP


def test_a_time_that_is_none_is_not_believed() -> None:
    assert not fed(Costs(), 4, 0.0, -1.0).known
    assert not fed(Costs(), 0, 1.0).known


def test_promises_are_kept_by_nearly_all_batches() -> None:
    rng, costs, kept = random.Random(1), learned(r8=8000), 0
    for _ in range(1000):
        took = 0.008 * rng.uniform(0.8, 1.2)
        kept += took <= costs.late_s(8)
        costs.observe(8, took)
    assert kept > 850
    assert costs.mean_s(8) == pytest.approx(0.008, rel=0.1)


def test_the_most_rows_within_a_time() -> None:
    costs = learned(r1=1000, r9=9000)
    assert costs.rows_within(0.0055, 64) == 5
    assert costs.rows_within(0.0055, 3) == 3
    assert costs.rows_within(0.0005, 64) == 0
    assert costs.rows_within(9.0, 64) == 64
    assert fed(costs, 9, *[0.018] * 3).rows_within(0.0055, 64) < 5, "what was found is not kept for ever"


BATCHES = st.lists(st.tuples(st.integers(1, 600), st.floats(1e-6, 10.0)), max_size=60)
WARM_UP = st.dictionaries(st.integers(1, 600).map(str), st.integers(1, 10**7), max_size=30)


@given(WARM_UP, BATCHES, st.integers(1, 100), st.floats(1e-6, 10.0))
def test_whatever_was_seen_more_rows_never_cost_less(
    facts: dict[str, int], batches: list[tuple[int, float]], rows_max: int, budget_s: float
) -> None:
    costs = Costs()
    costs.learn(facts)
    for rows, batch_s in batches:
        costs.observe(rows, batch_s)
    curve = [costs.mean_s(rows) for rows in range(1, 700)]
    assert curve == sorted(curve)
    assert not costs.known or curve[0] > 0
    assert all(late >= mean for late, mean in zip(map(costs.late_s, range(1, 700)), curve, strict=True))
    rows = costs.rows_within(budget_s, rows_max)
    assert rows == rows_max or costs.late_s(rows + 1) > budget_s
    assert rows == 0 or costs.late_s(rows) <= budget_s
