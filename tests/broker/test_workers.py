"""A worker as the broker sees it."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from headway.messages import Join
from headway_broker.workers import Flight, Worker
from tests.broker.bench import copy, open_request


def worker_of() -> Worker:
    return Worker(b"w", Join("w", "host", 1, "cpu", []), 0.0)


def flight(id: int, cost_s: float = 1.0) -> Flight:
    return Flight(id, ("m", "1"), [open_request(1, rows=3), open_request(2)], 10.0, 10.0, False, cost_s)


def test_a_worker_is_expected_to_run_its_batches_one_after_the_other() -> None:
    worker = worker_of()
    worker.start(flight(1, 2.0), 100.0)
    worker.start(flight(2, 3.0), 101.0)
    assert worker.free_at == 105.0
    worker.finish(1, 101.5)
    assert worker.free_at == 104.5, "the first was faster than was expected"
    worker.finish(2, 104.0)
    worker.start(flight(3, 1.0), 200.0)
    assert worker.free_at == 201.0


def test_a_batch_begins_when_it_is_the_first() -> None:
    worker, first, second = worker_of(), flight(1), flight(2)
    worker.start(first, 100.0)
    worker.start(second, 101.0)
    assert (first.began, second.began) == (100.0, math.inf)
    worker.finish(1, 103.0)
    assert (second.began, second.lease_until) == (103.0, 113.0)
    assert second.rows == 4


def test_a_batch_that_takes_twice_as_long_as_was_expected_is_expected_to_take_as_long_again() -> None:
    worker = worker_of()
    assert not worker.overdue(99.0)
    worker.start(flight(1, 1.0), 100.0)
    assert not worker.overdue(101.9)
    assert worker.overdue(103.0)
    assert worker.free_at == 106.0
    assert not worker.overdue(106.9)


def test_what_it_never_had_it_does_not_finish() -> None:
    worker = worker_of()
    worker.start(flight(1), 100.0)
    assert worker.finish(9, 100.5) is None
    assert worker.free_at == 101.0


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(("loading", "ready", "failed", "gone")))))
def test_copies_that_load_are_counted(reports: list[tuple[str, str]]) -> None:
    worker = worker_of()
    for model, state in reports:
        worker.note(copy(model, state), 1.0)
        loading = [c for c in worker.copies.values() if c.state == "loading"]
        assert (worker.copies_loading, worker.loading) == (len(loading), bool(loading))
        assert all(c.state != "gone" for c in worker.copies.values())


def test_the_first_of_deadline_lease_and_being_overdue_is_due() -> None:
    worker = worker_of()
    assert worker.batches_due == math.inf
    worker.start(flight(1, cost_s=50.0), 0.0)
    worker.batches[1].earliest = 20.0
    assert worker.batches_due == 10.0, "its lease"
    worker.batches[1].lease_until = 30.0
    assert worker.batches_due == 20.0, "its deadline"
    worker.batches[1].earliest = worker.batches[1].lease_until = 500.0
    assert worker.batches_due == 100.0, "twice what was expected"
