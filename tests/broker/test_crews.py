"""Workers that are as good as one another."""

from __future__ import annotations

import pytest

from headway.messages import Join
from headway_broker.crews import Crew
from headway_broker.workers import Flight, Worker
from tests.broker.bench import copy, open_request

KEY = ("m", "1")


def crew_of(*names: str) -> tuple[Crew, list[Worker]]:
    crew = Crew(frozenset({KEY}))
    workers = [Worker(name.encode(), Join(name, "host", 1, "cpu", []), 0.0) for name in names]
    for worker in workers:
        worker.note(copy(), 0.0)
        crew.add(worker)
    return crew, workers


def send(crew: Crew, worker: Worker, id: int, now: float, cost_s: float) -> None:
    worker.start(Flight(id, KEY, [open_request()], 10.0, 10.0, False, cost_s), now)
    crew.place(worker)


def test_who_has_been_idle_longest_is_first_and_so_is_who_has_had_credit_longest() -> None:
    crew, [a, b] = crew_of("a", "b")
    assert crew.first_idle is a
    send(crew, a, 1, 0.0, 1.0)
    send(crew, b, 2, 0.0, 1.0)
    assert (crew.first_idle, crew.first_spare) == (None, a)
    for id, worker in ((2, b), (1, a)):
        worker.finish(id, 1.0)
        crew.place(worker)
    assert (crew.first_idle, crew.first_spare) == (b, None)


def test_nobody_is_waited_for_while_somebody_is_idle() -> None:
    crew, [a, b] = crew_of("a", "b")
    send(crew, a, 1, 0.0, 10.0)
    assert crew.busy_s(1.0) == 0.0
    send(crew, b, 2, 0.0, 6.0)
    assert crew.busy_s(1.0) == pytest.approx((9.0 + 5.0) / 2)


def test_a_worker_past_its_time_is_not_free_before_now() -> None:
    crew, [a] = crew_of("a")
    send(crew, a, 1, 0.0, 1.0)
    assert crew.busy_s(5.0) == 0.0
    assert a.overdue(5.0)
    crew.place(a)
    assert crew.busy_s(5.0) == 5.0


def test_a_worker_that_left_counts_for_nothing() -> None:
    crew, [a, b] = crew_of("a", "b")
    send(crew, a, 1, 0.0, 10.0)
    send(crew, b, 2, 0.0, 2.0)
    crew.remove(a)
    assert (crew.size, crew.first_spare, crew.busy_s(1.0)) == (1, b, 1.0)
    crew.remove(b)
    assert (crew.size, crew.first_spare, crew.busy_s(1.0)) == (0, None, 0.0)


def test_a_busy_worker_is_on_neither_list() -> None:
    crew, [a] = crew_of("a")
    send(crew, a, 1, 0.0, 1.0)
    send(crew, a, 2, 0.0, 1.0)
    assert (crew.idle, crew.spare) == ({}, {})
    assert crew.counts(a)
    a.free_at = 99.0
    assert not crew.counts(a)
