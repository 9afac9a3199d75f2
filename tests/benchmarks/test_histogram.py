"""The benchmark's histogram: what its percentiles promise."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.histogram import Histogram, bucket_of, highest_in

VALUES = st.integers(0, 1 << 45)


@given(VALUES)
def test_a_bucket_holds_what_it_is_given_within_its_precision(value: int) -> None:
    highest = highest_in(bucket_of(value))
    assert value <= highest <= value + value / 128


@given(VALUES)
def test_the_next_value_after_a_bucket_is_in_the_next_bucket(value: int) -> None:
    bucket = bucket_of(value)
    assert bucket_of(highest_in(bucket)) == bucket
    assert bucket_of(highest_in(bucket) + 1) == bucket + 1


@given(st.lists(VALUES, min_size=1), st.floats(0, 100))
def test_a_percentile_is_the_exact_one_or_at_most_a_128th_more(values: list[int], percent: float) -> None:
    exact = sorted(values)[max(math.ceil(len(values) * percent / 100), 1) - 1]
    assert exact <= Histogram.of(values).percentile(percent) <= min(exact + exact / 128, max(values))


@given(st.lists(VALUES), st.lists(VALUES, min_size=1))
def test_histograms_add_up(left: list[int], right: list[int]) -> None:
    total = Histogram.of(left)
    total.merge(Histogram.of(right))
    assert total.facts() == Histogram.of(left + right).facts()
    assert total.total == len(left) + len(right)


def test_a_histogram_survives_json() -> None:
    facts = Histogram.of([1, 1, 300, 10**9]).facts()
    again = Histogram.from_facts(json.loads(json.dumps(facts)))
    assert (again.percentile(50), again.percentile(100)) == (1, 10**9)


def test_without_values_there_are_no_percentiles() -> None:
    with pytest.raises(ValueError, match="no values"):
        Histogram().percentile(50)
