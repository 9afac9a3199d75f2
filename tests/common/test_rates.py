"""headway.rates: what two looks at a state say of the time between them."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.histogram import SECONDS, Histogram
from headway.rates import UNKNOWN, Traffic, counts_between, quantile, traffic, traffic_between

BOUNDS = (0.1, 0.2, 0.4)


def histogram(*values: float, bounds: tuple[float, ...] = BOUNDS) -> dict:
    made = Histogram(bounds)
    for value in values:
        made.observe(value)
    return {**made.facts(), "counts": list(made.counts)}


def stats(outcomes: dict, *values: float) -> dict:
    return {"outcomes": outcomes, "total_s": histogram(*values)}


def state(pid: int = 1, uptime_s: float = 10.0, **models: dict) -> dict:
    shown = [{"name": name, "version": "1", "stats": found} for name, found in models.items()]
    return {"broker": {"host": "h", "pid": pid, "uptime_s": uptime_s}, "models": shown}


def test_a_rate_is_what_was_answered_in_between_by_the_second():
    before = stats({"ok": 100}, 0.3)
    after = stats({"ok": 140, "ModelError": 6, "Cancelled": 4}, 0.3, 0.05, 0.05, 0.15)
    found = traffic(before, after, 2.0)
    assert (found.rate, found.failing) == (25.0, 3.0)
    assert found.p50_s == pytest.approx(0.075)
    assert 0.1 < found.p99_s <= 0.2


def test_old_requests_do_not_count_in_the_latencies():
    before, after = stats({"ok": 9}, *[0.4] * 9), stats({"ok": 10}, *[0.4] * 9, 0.01)
    assert traffic(before, after, 1.0).p99_s <= 0.1


def test_nothing_in_between_is_a_rate_of_nought_and_no_latency():
    one = stats({"ok": 9}, 0.1)
    assert traffic(one, one, 1.0) == Traffic(0.0, 0.0, None, None)


def test_one_look_alone_tells_nothing():
    after = state(m=stats({"ok": 1}, 0.1))
    assert traffic_between(None, after, 1.0) == {("m", "1"): UNKNOWN}
    assert traffic_between(after, after, 0.0) == {("m", "1"): UNKNOWN}


@pytest.mark.parametrize("again", [state(pid=2), state(uptime_s=3.0)])
def test_another_brokers_counts_are_not_compared(again):
    again["models"] = state(m=stats({"ok": 500}, 0.1))["models"]
    assert traffic_between(state(m=stats({"ok": 1}, 0.1)), again, 1.0) == {("m", "1"): UNKNOWN}


def test_counts_that_fell_are_not_compared():
    assert traffic(stats({"ok": 9}), stats({"ok": 3}), 1.0) == UNKNOWN
    assert counts_between(histogram(0.1, 0.1), histogram(0.1)) == ([], [])
    assert counts_between(histogram(bounds=(1.0,)), histogram()) == ([], [])


def test_a_version_that_is_new_did_all_of_it_since():
    found = traffic_between(state(), state(m=stats({"ok": 8}, 0.1)), 2.0)
    assert found[("m", "1")].rate == 4.0


def test_a_version_without_counts_is_unknown():
    assert traffic_between(state(m={}), state(m={}), 1.0) == {("m", "1"): UNKNOWN}
    nothing = {"broker": {}, "models": [{"name": "m", "version": "1"}]}
    assert traffic_between(nothing, nothing, 1.0) == {("m", "1"): UNKNOWN}


def test_a_quantile_lies_inside_its_bucket():
    assert quantile(BOUNDS, [0, 10, 0, 0], 0.5) == pytest.approx(0.15)
    assert quantile(BOUNDS, [10, 0, 10, 0], 0.5) == pytest.approx(0.1)
    assert quantile(BOUNDS, [10, 0, 10, 0], 0.75) == pytest.approx(0.3)
    assert quantile(BOUNDS, [0, 0, 0, 7], 0.5) == 0.4
    assert quantile(BOUNDS, [0, 0, 0, 0], 0.5) is None
    assert quantile((), [], 0.5) is None


@given(st.lists(st.floats(0.0, 60.0), min_size=1, max_size=200), st.floats(0.0, 1.0))
def test_a_quantile_is_in_the_same_bucket_as_the_true_one(values, q):
    counts = histogram(*values, bounds=SECONDS)["counts"]
    found = quantile(SECONDS, counts, q)
    rank = max(1, math.ceil(q * len(values)))
    true = sorted(values)[rank - 1]
    index = next(i for i, bound in enumerate(SECONDS) if true <= bound)
    low = SECONDS[index - 1] if index else 0.0
    assert low - 1e-9 <= found <= SECONDS[index] + 1e-9


def test_quantiles_rise_with_their_share():
    chance = random.Random(1)
    counts = [chance.randint(0, 9) for _ in range(len(SECONDS) + 1)]
    found = [quantile(SECONDS, counts, q / 100) for q in range(101)]
    assert found == sorted(found)
