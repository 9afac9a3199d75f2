"""The open loop's schedule: random from a seed, and nothing in it is lost or moved."""

from __future__ import annotations

import statistics
from itertools import pairwise

from benchmarks.arrivals import NS, Arrivals, poisson


def test_a_seed_gives_the_same_times_again_and_another_seed_others() -> None:
    assert poisson(100, 10, seed=1) == poisson(100, 10, seed=1)
    assert poisson(100, 10, seed=1) != poisson(100, 10, seed=2)


def test_arrivals_have_the_rate_and_the_spread_of_a_poisson_process() -> None:
    offsets = poisson(1000, 100, seed=3)
    gaps = [b - a for a, b in pairwise(offsets)]
    assert abs(len(offsets) - 100_000) < 1000  # three standard deviations
    assert abs(statistics.stdev(gaps) / statistics.mean(gaps) - 1) < 0.02
    assert offsets == sorted(offsets)
    assert offsets[-1] < 100 * NS


def test_nothing_is_taken_before_it_is_due() -> None:
    arrivals = Arrivals([10, 20])
    assert arrivals.take(9) is None and arrivals.next_due() == 10
    assert arrivals.take(10) == 10 and arrivals.take(19) is None


def test_what_could_not_be_sent_in_time_keeps_its_time_and_its_place() -> None:
    arrivals = Arrivals([10, 20, 30])
    assert [arrivals.take(1000) for _ in range(4)] == [10, 20, 30, None]
    assert arrivals.next_due() is None


def test_the_rest_can_be_taken_at_once() -> None:
    arrivals = Arrivals([10, 20])
    arrivals.take(15)
    assert arrivals.rest() == [20] and len(arrivals) == 0
