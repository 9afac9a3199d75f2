"""Histograms: every observation is in one bucket."""

from __future__ import annotations

from bisect import bisect_left

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.histogram import ROWS, SECONDS, Histogram

VALUES = st.lists(st.tuples(st.floats(0, 100), st.integers(1, 5)))


@given(VALUES)
def test_counts_and_sum_are_those_of_what_was_observed(values):
    histogram = Histogram(SECONDS)
    for value, times in values:
        histogram.observe(value, times)
    facts = histogram.facts()
    assert sum(facts["counts"]) == sum(times for _, times in values)
    assert facts["sum"] == pytest.approx(sum(value * times for value, times in values))


@given(st.floats(0, 1000))
def test_a_bucket_holds_what_is_at_most_its_bound(value):
    histogram = Histogram(ROWS)
    histogram.observe(value)
    place = histogram.counts.index(1)
    assert place == len(ROWS) or value <= ROWS[place]
    assert place == 0 or value > ROWS[place - 1]
    assert place == bisect_left(ROWS, value)


def test_there_is_one_bucket_more_than_bounds():
    facts = Histogram(SECONDS).facts()
    assert facts == {"bounds": SECONDS, "counts": [0] * (len(SECONDS) + 1), "sum": 0.0}


@pytest.mark.parametrize("bounds", [SECONDS, ROWS])
def test_bounds_rise(bounds):
    assert list(bounds) == sorted(set(bounds))
