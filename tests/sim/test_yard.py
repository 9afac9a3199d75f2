"""Promises about time, in the shunting yard: what an SLO keeps at any load, and how models share workers."""

from __future__ import annotations

import random
from typing import Any

import pytest

from headway.models import ModelSpec
from headway_broker.dispatch import AHEAD_S
from tests.sim.yard import Cost, Yard, p99

FIXED_S, ROW_S = 0.005, 0.001  # of a batch
SLO_S, TRIP_S = 0.060, 0.002
ROWS = range(1, 65)
BEST = max(rows / (FIXED_S + ROW_S * rows) for rows in ROWS if FIXED_S + ROW_S * rows + TRIP_S <= SLO_S)
"""Requests a second that one worker can answer in time at the very best: back to back, in the largest batch
whose own time keeps the SLO, with nobody ever waiting for the batch before."""


def spec(name: str, **keys: Any) -> ModelSpec:
    return ModelSpec(name, "1", "/models", "python", **keys)


def slo_yard(workers: int = 1, slower: tuple[float, float] = (99.0, 99.0), seed: int = 3) -> Yard:
    """One model whose batches cost a + b rows, within 5 %; twice that while it is `slower`."""
    rng = random.Random(seed)

    def cost(model: str, rows: int, now: float) -> float:
        twice = 2 if slower[0] <= now < slower[1] else 1
        return (FIXED_S + ROW_S * rows) * rng.uniform(0.95, 1.05) * twice

    return Yard([spec("m", batch_size_max=64, slo_ms=SLO_S * 1000, queue_size_max=100_000)], cost, workers)


def in_time(yard: Yard, start: float, end: float) -> float:
    """Answers a second that kept the SLO, of those between the two times."""
    times = zip(yard.answered_at["m"], yard.took["m"], strict=True)
    return sum(start <= at < end and took <= SLO_S for at, took in times) / (end - start)


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("load", [0.5, 0.85, 1.0, 3.0])
def test_answers_keep_the_slo_at_any_load_and_the_workers_stay_busy(load: float, workers: int) -> None:
    seconds = 1.5 / workers
    yard = slo_yard(workers)
    yard.arrive("m", load * BEST * workers, 0.0, seconds)
    yard.run(seconds + 1.0)
    assert p99(yard.took["m"]) <= SLO_S + 0.001
    assert len(yard.took["m"]) + len(yard.refused["m"]) == len(yard.asked)
    assert in_time(yard, 0.1, seconds) >= 0.85 * min(load, 1.0) * BEST * workers
    if load == 0.5:
        assert not yard.refused["m"]
    if load == 3.0:
        assert p99(yard.refused["m"]) < 0.05, "a refusal is fast"
        assert sorted(yard.refused["m"])[len(yard.refused["m"]) // 2] == 0.0, "and mostly at once"


def test_a_worker_that_becomes_slower_is_adapted_to_and_believed_when_it_recovers() -> None:
    yard = slo_yard(slower=(0.6, 1.6))
    yard.arrive("m", 3.0 * BEST, 0.0, 2.8)
    yard.run(5.0)
    answers = list(zip(yard.answered_at["m"], yard.took["m"], strict=True))
    assert p99([took for at, took in answers if 1.0 < at < 1.6]) <= SLO_S * 1.05
    slow_best = max(n / (FIXED_S + ROW_S * n) / 2 for n in ROWS if 2 * (FIXED_S + ROW_S * n) <= SLO_S)
    assert in_time(yard, 1.0, 1.6) >= 0.65 * slow_best, "the fixed part weighs more in small batches"
    assert in_time(yard, 2.1, 2.8) >= 0.85 * BEST


def test_an_slo_that_cannot_be_kept_leaves_a_trickle_and_no_silence() -> None:
    yard = Yard([spec("m", batch_size_max=8, slo_ms=5.0)], lambda *_: 0.02)
    yard.arrive("m", 200.0, 0.0, 2.0)
    yard.run(3.0)
    assert len(yard.took["m"]) > 40
    assert len(yard.refused["m"]) > 200


def test_without_an_slo_nothing_is_refused_early() -> None:
    yard = Yard([spec("m", batch_size_max=8, queue_size_max=10_000)], lambda *_: 0.02)
    yard.arrive("m", 800.0, 0.0, 1.0)
    yard.run(30.0)
    assert not yard.refused["m"]


def test_a_deadline_shorter_than_the_slo_is_what_counts() -> None:
    yard = slo_yard()
    yard.arrive("m", 3.0 * BEST, 0.0, 1.0, timeout_s=0.04)
    yard.run(2.0)
    assert p99(yard.took["m"]) <= 0.041
    assert in_time(yard, 0.1, 1.0) > 0.5 * BEST


def shared(costs: dict[str, float], workers: int = 1, **keys: dict[str, Any]) -> Yard:
    """Models with batches of 2 that cost so much, within 10 %, whatever their rows."""
    rng = random.Random(5)
    cost: Cost = lambda model, rows, now: costs[model] * rng.uniform(0.9, 1.1)  # noqa: E731
    specs = [spec(name, batch_size_max=2, queue_size_max=40, **keys.get(name, {})) for name in costs]
    return Yard(specs, cost, workers)


@pytest.mark.parametrize("workers", [1, 3])
def test_a_quiet_model_waits_for_one_batch_of_a_flooded_one_and_not_for_more(workers: int) -> None:
    yard = shared({"heavy": 0.1, "light": 0.005}, workers)
    yard.arrive("heavy", 60.0 * workers, 0.0, 12.0)
    yard.arrive("light", 10.0 * workers, 0.0, 12.0)
    yard.run(12.0)
    assert p99(yard.took["light"]) < 0.110 + 2 * 0.0055 + AHEAD_S + 0.010
    assert yard.busy["heavy"] > 0.85 * 12.0 * workers, "and nobody pays more than that for it"


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(("share", "ratio"), [(1.0, 1.0), (2.0, 2.0), (0.5, 0.5)])
def test_flooded_models_get_time_by_their_shares_whatever_their_batches_cost(
    share: float, ratio: float, workers: int
) -> None:
    yard = shared({"a": 0.05, "b": 0.01}, workers, a={"share": share})
    yard.arrive("a", 50.0 * workers, 0.0, 6.0 / workers)
    yard.arrive("b", 220.0 * workers, 0.0, 6.0 / workers)
    yard.run(6.0 / workers)
    assert yard.busy["a"] / yard.busy["b"] == pytest.approx(ratio, rel=0.1)
    assert sum(yard.busy.values()) > 0.96 * 6.0, "somebody always waits, so the workers always run"


def test_a_model_that_was_quiet_has_saved_nothing() -> None:
    yard = shared({"a": 0.02, "b": 0.02})
    yard.arrive("a", 150.0, 0.0, 6.0)
    yard.arrive("b", 150.0, 3.0, 6.0)
    yard.run(3.0)
    alone = yard.busy["a"]
    yard.run(6.0)
    assert alone > 2.9
    assert yard.busy["a"] - alone == pytest.approx(1.5, rel=0.1)


def test_an_slo_beside_a_heavy_neighbour_is_kept_by_what_is_answered() -> None:
    yard = shared({"heavy": 0.04, "m": 0.01}, m={"slo_ms": SLO_S * 1000})
    yard.arrive("heavy", 80.0, 0.0, 5.0)
    yard.arrive("m", 300.0, 0.0, 5.0)
    yard.run(5.0)
    assert p99(yard.took["m"]) <= SLO_S + 0.001
    assert in_time(yard, 0.0, 5.0) > 0.6 * 0.5 * 200
