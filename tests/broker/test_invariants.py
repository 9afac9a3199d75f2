"""The checks find what they are there for: each test breaks one invariant behind the scheduler's back."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from headway_broker.crews import Crew
from headway_broker.queues import Queue
from headway_broker.scheduler import Scheduler
from headway_broker.workers import Flight, Worker
from tests.broker.bench import Bench, spec

KEY = ("m", "1")


def busy() -> Scheduler:
    """Request 1 rides in worker w; requests 2 and 3 wait."""
    bench = Bench(spec(batch_size_max=4))
    bench.host("w")
    bench.host("idle", "other")
    bench.ask(1)
    bench.wake()
    bench.ask(2, 3)
    bench.wake()
    return bench.scheduler


def queue(s: Scheduler) -> Queue:
    return s.queues[KEY]


def flight(s: Scheduler) -> Flight:
    found = s.roster.workers[b"w"].first
    assert found
    return found


def add_flight(s: Scheduler, alone: bool, count: int) -> None:
    for id in range(count):
        s.roster.workers[b"w"].batches[90 + id] = Flight(90 + id, KEY, [], 1.0, 1.0, alone)


BREAKS: dict[str, Callable[[Scheduler], object]] = {
    "in two places": lambda s: queue(s).put_back(flight(s).requests[0]),
    "2 open requests, 3 queued or in a batch": lambda s: s.ledger.callers[b"c"].pop(2),
    "3 open requests, 2 queued or in a batch": lambda s: queue(s).take(1),
    "has a table": lambda s: s.ledger.callers.update({b"nobody": {}}),
    "a table is wrong": lambda s: s.ledger.callers.update({b"other": {9: s.ledger.callers[b"c"].pop(2)}}),
    "waits": lambda s: setattr(s.ledger.callers[b"c"][2], "open", False),
    "rows are miscounted": lambda s: setattr(queue(s), "rows", 7),
    "bytes are miscounted": lambda s: setattr(queue(s), "bytes", 7),
    "a deadline is overlooked": lambda s: setattr(queue(s), "earliest", math.inf),
    "more batches than its credit": lambda s: add_flight(s, False, 2),
    "a lone batch has company": lambda s: add_flight(s, True, 1),
}


def test_a_busy_scheduler_is_in_order() -> None:
    busy().check()


@pytest.mark.parametrize("what", BREAKS)
def test_a_broken_invariant_is_found(what: str) -> None:
    scheduler = busy()
    BREAKS[what](scheduler)
    with pytest.raises(AssertionError, match=what):
        scheduler.check()


def crew(s: Scheduler) -> Crew:
    found = s.roster.crew_of(worker(s))
    assert found
    return found


def worker(s: Scheduler) -> Worker:
    return s.roster.workers[b"w"]


def finish_unnoticed(s: Scheduler) -> None:
    """The roster is told, and the dispatch is not."""
    done = s.roster.finish(worker(s), flight(s).id, 0.0)
    assert done
    s.ledger.cancel(done.requests[0])


CREWS: dict[str, Callable[[Scheduler], object]] = {
    "a worker that is spare is in no crew": lambda s: s.roster._crew_of.pop(b"w"),
    "a worker that is leaving is misplaced": lambda s: setattr(worker(s), "leaving", True),
    "nobody watches a worker": lambda s: s.roster._watch._valid.clear(),
    "copies that load are miscounted": lambda s: setattr(worker(s), "copies_loading", 1),
    "left to do is miscounted": lambda s: setattr(worker(s), "free_at", 7.0),
    "not found by one of its models": lambda s: s.roster._crews_for[KEY].clear(),
    "has no turn": lambda s: crew(s).turns.pass_over(),
    "waits while a worker is idle": finish_unnoticed,
}


@pytest.mark.parametrize("what", CREWS)
def test_a_broken_invariant_of_crews_is_found(what: str) -> None:
    scheduler = busy()
    CREWS[what](scheduler)
    with pytest.raises(AssertionError, match=what):
        scheduler.check()


def test_a_worker_on_a_wrong_list_is_found() -> None:
    scheduler = busy()
    worker = scheduler.roster.workers[b"w"]
    worker.batches.clear()  # idle, and the roster was not told
    scheduler.ledger.cancel(scheduler.ledger.callers[b"c"][1])
    with pytest.raises(AssertionError, match="idle is misplaced"):
        scheduler.check()
