"""Counters of one model version."""

from __future__ import annotations

from headway_broker.stats import ModelStats
from tests.broker.bench import open_request


def test_a_batchs_rows_and_each_requests_wait_are_observed_when_it_is_sent() -> None:
    stats = ModelStats()
    stats.batch_sent([open_request(1, arrived=1.0, rows=3), open_request(2, arrived=2.0)], now=3.0)
    assert (sum(stats.batch_rows.counts), stats.batch_rows.sum) == (1, 4.0)
    assert (sum(stats.queue_s.counts), stats.queue_s.sum) == (2, 3.0)


def test_a_batchs_time_is_observed_for_each_of_its_requests() -> None:
    stats = ModelStats()
    stats.batch_done(1.0, requests=4)
    stats.batch_done(2.0, requests=3)
    assert (sum(stats.compute_s.counts), stats.compute_s.sum) == (7, 10.0)


def test_outcomes_are_counted_by_name_with_the_time_they_took() -> None:
    stats = ModelStats()
    stats.answered("ok", [open_request(arrived=1.0), open_request(arrived=0.5)], now=1.5)
    stats.answered("ModelError", [open_request(arrived=1.0)], now=2.0)
    assert stats.outcomes == {"ok": 2, "ModelError": 1}
    assert (sum(stats.total_s.counts), stats.total_s.sum) == (3, 2.5)


def test_the_facts_are_plain_for_the_wire() -> None:
    facts = ModelStats().facts()
    assert set(facts) == {"outcomes", "queue_s", "compute_s", "total_s", "batch_rows"}
    assert set(facts["queue_s"]) == {"bounds", "counts", "sum"}
    assert type(facts["outcomes"]) is dict
