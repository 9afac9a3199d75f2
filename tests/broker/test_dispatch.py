"""Dispatch: which requests ride in which batch, to which worker, and when."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from headway.messages import Batch, BatchReply, Copy, Result
from headway.models import ModelSpec
from headway_broker.batching import Waiting
from headway_broker.dispatch import AHEAD_S, Dispatch
from headway_broker.events import WorkerGone
from headway_broker.queues import BATCH_BYTES_MAX
from headway_broker.roster import Roster
from tests.broker.bench import START, Bench, copy, spec


def test_requests_join_a_batch_until_a_worker_is_free() -> None:
    bench = Bench(spec(batch_size_max=8))
    bench.host("w")
    bench.ask(1)
    [(_, first)] = bench.wake().batches
    for id in range(2, 7):
        bench.ask(id)
        assert not bench.wake(0.01).batches, "a partial batch is not sent ahead to a busy worker"
    bench.answers("w", first)
    bench.ask(7)
    assert bench.wake().riders == [("w", [b"t2", b"t3", b"t4", b"t5", b"t6", b"t7"])]


def test_a_full_batch_is_sent_ahead_to_a_busy_worker_and_a_second_is_not() -> None:
    bench = Bench(spec(batch_size_max=2))
    bench.host("w")
    bench.ask(1)
    bench.wake()
    bench.ask(2, 3, 4, 5, 6)
    assert bench.wake().riders == [("w", [b"t2", b"t3"])]
    assert not bench.wake().batches


def test_an_idle_worker_is_preferred_to_a_busy_one() -> None:
    bench = Bench(spec(batch_size_max=2, copies=2))
    bench.host("a")
    bench.host("b")
    bench.ask(1, 2, 3, 4, 5)
    assert bench.wake().riders == [("a", [b"t1", b"t2"]), ("b", [b"t3", b"t4"])]


def test_a_partial_batch_leaves_when_its_delay_is_over_and_not_before() -> None:
    bench = Bench(spec(batch_size_max=4, batch_delay_ms=30.0))
    bench.host("w")
    bench.wake()
    bench.ask(1)
    assert not bench.wake().batches
    assert bench.scheduler.next_wake() == pytest.approx(START + 0.030), "the exact time, no tick"
    bench.now += 0.010
    bench.ask(2)
    assert not bench.wake(0.0199).batches
    assert bench.wake(0.0002).riders == [("w", [b"t1", b"t2"])]


def test_a_batch_that_fills_does_not_wait_for_its_delay() -> None:
    bench = Bench(spec(batch_size_max=2, batch_delay_ms=1000.0))
    bench.host("w")
    bench.ask(1)
    assert not bench.wake().batches
    bench.ask(2)
    assert bench.wake().riders == [("w", [b"t1", b"t2"])]


def test_the_delay_counts_from_the_oldest_request_that_still_waits() -> None:
    bench = Bench(spec(batch_size_max=4, batch_delay_ms=30.0))
    bench.host("w")
    bench.ask(1)
    bench.wake()
    bench.now += 0.020
    bench.ask(2)
    bench.cancel(1)
    assert not bench.wake(0.011).batches, "the one whose delay is over was cancelled"
    assert bench.scheduler.next_wake() == pytest.approx(START + 0.050)
    assert bench.wake(0.0191).riders == [("w", [b"t2"])]


def test_a_deadline_that_would_be_missed_makes_a_batch_ripe() -> None:
    bench = Bench(spec(batch_size_max=4, batch_delay_ms=1000.0))
    bench.host("w")
    bench.ask(1, timeout_s=0.5)
    bench.wake()
    [(_, batch)] = bench.live(0.5, alive="w").batches
    assert START + 0.4 < bench.now < START + 0.51
    bench.answers("w", batch, compute_us=200_000)
    bench.wake()
    asked = bench.now
    bench.ask(2, timeout_s=0.5)
    bench.wake()
    assert bench.scheduler._dispatch.next_wake() == pytest.approx(asked + 0.5 - 0.2 - 0.002)


def test_a_deadline_that_left_with_its_batch_does_not_hurry_the_next_batch() -> None:
    bench = Bench(spec(batch_size_max=2, batch_delay_ms=50.0))
    bench.host("w")
    bench.ask(1, 2, timeout_s=0.01)
    [(_, batch)] = bench.wake().batches
    bench.answers("w", batch)
    bench.wake()
    bench.now += 0.009
    bench.ask(3)
    assert not bench.wake().batches


def test_rows_and_not_requests_fill_a_batch() -> None:
    bench = Bench(spec(batch_size_max=4))
    bench.host("w")
    bench.ask(1)
    bench.wake()
    bench.ask(2, rows=3)
    assert not bench.wake().batches
    bench.ask(3, rows=1)
    [(_, batch)] = bench.wake().batches
    assert [request.rows for request in batch.requests] == [3, 1]


def test_a_batch_is_limited_by_bytes() -> None:
    bench = Bench(spec(batch_size_max=8, queue_bytes_max=1 << 30))
    bench.host("w")
    bench.ask(1, 2, 3, tensors=bytes(BATCH_BYTES_MAX // 2))
    [(_, batch)] = bench.wake().batches
    assert len(batch.requests) == 2


def test_each_request_travels_with_the_time_it_has_left() -> None:
    bench = Bench()
    bench.ask(1, timeout_s=2.0)
    bench.now += 0.5
    bench.join("w", copy())
    [(_, batch)] = bench.wake().batches
    assert batch.requests[0].timeout_ms == 1500
    assert batch.lease_ms == 60_000


@pytest.mark.parametrize("batch_size_max", [1, 4])
@pytest.mark.parametrize(("one", "other"), [("a", "b"), ("b", "a")])
def test_of_two_models_on_one_worker_the_one_that_waited_longest_goes_first(
    one: str, other: str, batch_size_max: int
) -> None:
    bench = Bench(spec("a", batch_size_max=batch_size_max), spec("b", batch_size_max=batch_size_max))
    bench.host("w", "a", "b")
    bench.ask(1, 2, model=one)
    bench.wake()
    bench.now += 1
    bench.ask(3, model=other)
    bench.now += 1
    bench.ask(4, model=one)
    bench.wake()
    assert serve_until_empty(bench) == [b"t3", b"t4"]


def test_a_busy_model_does_not_keep_a_worker_from_another_models_partial_batch() -> None:
    bench = Bench(spec("busy", batch_size_max=2), spec("quiet", batch_size_max=8))
    bench.host("w", "busy", "quiet")
    assert turns_until(bench, b"quiet", lambda: bench.ask(10_000, model="quiet", tensors=b"quiet")) <= 8


def test_a_busy_model_does_not_keep_a_worker_from_a_request_that_came_back() -> None:
    bench = Bench(spec("busy", batch_size_max=2, copies=2))
    bench.join("lost", copy("busy"))
    bench.ask(10_000, model="busy", tensors=b"back")
    bench.wake()

    def lose() -> None:
        bench.join("lost")
        bench.handle(WorkerGone(b"lost", "no route"))

    bench.host("w", "busy")
    assert turns_until(bench, b"back", lose) <= 8


def turns_until(bench: Bench, wanted: bytes, start: Callable[[], None]) -> int:
    """How many batches of the busy model run before `wanted` is sent; full ones wait all the time."""
    held: list[Batch] = []
    ids = iter(range(1, 1000))
    for turn in range(50):
        bench.ask(*(next(ids) for _ in range(4)), model="busy")
        if turn == 3:
            start()
        sent = bench.wake(0.01)
        if any(wanted in tensors for _, tensors in sent.riders):
            return turn - 3
        held += [batch for worker, batch in sent.batches if worker == "w"]
        bench.answers("w", held.pop(0))
    return 50


def serve_until_empty(bench: Bench) -> list[bytes]:
    """Answer each batch of "w" as it comes; the tensors in the order in which they were sent from here."""
    order: list[bytes] = []
    held = [flight.id for flight in bench.scheduler.roster.workers[b"w"].batches.values()]
    while held:
        bench.result("w", Result(held.pop(0), 1000, [BatchReply(0, b"", {})]))
        for _, batch in bench.wake().batches:
            order += [request.tensors for request in batch.requests]
            held.append(batch.id)
    return order


class Never:
    """A policy of a user's: partial batches never leave."""

    def rows_max(self, waiting: Waiting) -> int:
        return waiting.rows_max

    def ripe_at(self, waiting: Waiting) -> float:
        return math.inf


def test_the_policy_can_be_replaced() -> None:
    bench = Bench(spec(batch_size_max=2), policy=Never())
    bench.host("w")
    bench.ask(1)
    assert not bench.live(5.0, alive="w").batches


def test_the_ids_of_two_brokers_batches_do_not_meet() -> None:
    def first_id(nonce: bytes) -> int:
        return Dispatch({}, {}, {}, Roster(), Never(), nonce)._last_id

    ids = [first_id(b"start %d" % i) for i in range(20)]
    assert len(set(ids)) == 20
    assert all(0 <= id < (1 << 63) - (1 << 31) for id in ids)


def test_nothing_is_due_while_nothing_waits() -> None:
    bench = Bench(ModelSpec("m", "1", "/m", "python"))
    assert bench.scheduler.next_wake() is None
    bench.host("w")
    assert bench.scheduler._dispatch.next_wake() == math.inf


def heavy_and_light(**keys: Any) -> Bench:
    """Worker "w" runs a heavy batch, 100 ms; another full one waits."""
    bench = Bench(spec("heavy", batch_size_max=2, **keys), spec("light", batch_size_max=2))
    facts = {"batch_us": {"2": 100_000}}
    bench.join("w", *(Copy(name, "1", "ready", "", facts) for name in ("heavy", "light")))
    bench.wake()
    bench.ask(1, 2, 3, 4, model="heavy")
    return bench


def test_a_worker_with_several_models_is_sent_its_next_batch_just_before_it_is_free() -> None:
    bench = heavy_and_light()
    assert bench.wake().riders == [("w", [b"t1", b"t2"])]
    assert bench.scheduler._dispatch.next_wake() == pytest.approx(bench.now + 0.1 - AHEAD_S)
    assert not bench.wake(0.094).batches
    assert bench.wake(0.002).riders == [("w", [b"t3", b"t4"])]


def test_who_comes_meanwhile_waits_for_the_batch_that_runs_and_for_no_other() -> None:
    bench = heavy_and_light()
    [(_, batch)] = bench.wake().batches
    bench.now += 0.05
    bench.ask(9, model="light")
    assert not bench.wake(0.049).batches, "it is the light one's turn, whose batch is not full"
    bench.answers("w", batch)
    assert bench.wake(0.001).riders == [("w", [b"t9"])]


def test_a_full_batch_that_comes_meanwhile_is_sent_ahead_in_its_turn() -> None:
    bench = heavy_and_light()
    bench.wake()
    bench.ask(8, 9, model="light")
    bench.wake(0.05)
    assert bench.wake(0.046).riders == [("w", [b"t8", b"t9"])]


def test_a_model_that_is_alone_with_its_worker_is_sent_ahead_at_once() -> None:
    bench = Bench(spec(batch_size_max=2))
    bench.join("w", Copy("m", "1", "ready", "", {"batch_us": {"2": 100_000}}))
    bench.ask(1, 2, 3, 4)
    assert bench.wake().riders == [("w", [b"t1", b"t2"]), ("w", [b"t3", b"t4"])]


def test_a_worker_that_joins_is_given_what_waits_for_others_like_it() -> None:
    bench = Bench(spec(copies=2))
    bench.host("a")
    bench.ask(1, 2, 3)
    assert len(bench.wake().batches) == 2
    bench.join("b", copy())
    assert bench.wake().riders == [("b", [b"t3"])]


def test_workers_that_host_different_models_all_take_what_they_have_in_common() -> None:
    bench = Bench(spec("m", copies=2), spec("other"))
    bench.join("a", copy("m"))
    bench.join("b", copy("m"), copy("other"))
    bench.wake()
    bench.ask(1, 2, 3, 4)
    assert sorted(worker for worker, _ in bench.wake().riders) == ["a", "a", "b", "b"]


# ---- a delay that counts from when a worker is idle ----


def clocked(copies: int = 1, **keys: Any) -> Bench:
    """Four to a batch, which waits a second for company once a worker has taken it up."""
    keys = {"batch_size_max": 4, "batch_delay_ms": 1000.0, "batch_clock": "worker", **keys}
    bench = Bench(spec(copies=copies, **keys))
    for worker in "wvu"[:copies]:
        bench.host(worker)
    bench.wake()
    return bench


def left(bench: Bench, seconds: float) -> list[tuple[float, str, int]]:
    """The batches of the next seconds: after how many, to whom, of how many."""
    began, found = bench.now, []
    while bench.now < began + seconds:
        for worker, batch in bench.wake().batches:
            found.append((bench.now - began, worker, len(batch.requests)))
        bench.alive("w", "v", "u")
        bench.now += 0.125  # which is a number that adds up
    return found


def test_one_request_leaves_after_the_delay() -> None:
    bench = clocked()
    bench.ask(1)
    assert left(bench, 2.0) == [(1.0, "w", 1)]


def test_as_many_as_fit_leave_at_once() -> None:
    bench = clocked()
    bench.ask(1, 2, 3, 4)
    assert bench.wake().riders == [("w", [b"t1", b"t2", b"t3", b"t4"])]


def test_one_more_than_fit_waits_for_company_when_the_worker_is_idle_again() -> None:
    bench = clocked()
    bench.ask(1, 2, 3, 4, 5)
    [(_, batch)] = bench.wake().batches
    assert left(bench, 0.5) == []
    bench.answers("w", batch)
    assert left(bench, 2.0) == [(1.0, "w", 1)]


def test_a_request_that_waited_behind_a_batch_still_waits_for_company() -> None:
    bench = clocked()
    bench.ask(1, 2, 3, 4)
    [(_, batch)] = bench.wake().batches
    bench.ask(5)
    assert left(bench, 5.0) == [], "nobody collects while the worker is busy"
    bench.answers("w", batch)
    assert left(bench, 0.625) == []
    bench.ask(6)
    assert left(bench, 2.0) == [(0.375, "w", 2)]


def test_a_full_backlog_is_sent_ahead_and_the_rest_waits_for_an_idle_worker_and_company() -> None:
    bench = clocked()
    bench.ask(*range(1, 12))
    first, second = (batch for _, batch in bench.wake().batches)
    assert (len(first.requests), len(second.requests)) == (4, 4)
    bench.answers("w", first)
    bench.answers("w", second)
    assert left(bench, 0.5) == []
    bench.ask(12)
    assert len(bench.wake().batches[0][1].requests) == 4, "the last makes it full"


def test_with_two_workers_what_is_left_over_waits_for_company_at_the_second() -> None:
    bench = clocked(copies=2)
    bench.ask(1, 2, 3, 4, 5)
    assert [len(batch.requests) for _, batch in bench.wake().batches] == [4]
    assert left(bench, 2.0) == [(1.0, "v", 1)]


def test_a_clock_that_ran_for_a_request_that_went_starts_anew() -> None:
    bench = clocked()
    bench.ask(1)
    assert left(bench, 0.5) == []
    bench.cancel(1)
    bench.ask(2)
    assert left(bench, 2.0) == [(1.0, "w", 1)]


def test_a_request_that_comes_back_does_not_wait_for_company() -> None:
    bench = clocked(copies=2)
    bench.ask(1, 2, 3, 4)
    [(worker, _)] = bench.wake().batches
    bench.handle(WorkerGone(worker.encode(), "no route"))
    assert [len(batch.requests) for _, batch in bench.wake().batches] == [1]


def test_a_delay_that_is_over_is_not_begun_again_because_another_model_has_the_worker() -> None:
    keys = {"batch_size_max": 4, "batch_delay_ms": 1000.0, "batch_clock": "worker"}
    bench = Bench(spec(**keys), spec("n"))
    bench.host("w", "m", "n")
    bench.ask(1)
    bench.wake()
    bench.ask(2, model="n")
    [(_, other)] = bench.wake().batches
    assert left(bench, 1.5) == []
    bench.answers("w", other)
    assert bench.wake().riders == [("w", [b"t1"])]


def test_a_model_with_the_workers_clock_does_not_keep_others_from_their_turn() -> None:
    bench = Bench(spec(batch_size_max=1, batch_clock="worker"), spec("n"))
    bench.host("w", "m", "n")
    bench.ask(1, 2, 3)
    bench.ask(4, 5, 6, model="n")
    seen: list[bytes] = []
    sent = bench.wake()
    while sent.batches:
        for worker, batch in sent.batches:
            seen += [request.tensors for request in batch.requests]
            bench.answers(worker, batch)
        sent = bench.wake()
    assert sorted(seen) == [b"t%d" % id for id in range(1, 7)]
