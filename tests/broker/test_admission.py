"""Who is refused early, and who never is."""

from __future__ import annotations

from typing import Any

import pytest

from headway.errors import DeadlineExceeded, QueueFull
from headway.messages import OK, Copy
from headway_broker.batching import MARGIN_S
from headway_broker.events import WorkerGone
from tests.broker.bench import START, Bench, spec

SLO_MS = 100.0


def ready(model: str = "m", per_row_ms: float = 10.0) -> Copy:
    """A batch of n rows takes n times so long."""
    micros = int(per_row_ms * 1000)
    return Copy(model, "1", "ready", "", {"batch_us": {str(n): n * micros for n in (1, 8)}})


def serving(*workers: str, **keys: Any) -> Bench:
    """Batches of 4 rows, 40 ms, are what the SLO of 100 ms leaves room for twice."""
    keys = {"batch_size_max": 8, "slo_ms": SLO_MS, "copies": len(workers) or 1, **keys}
    bench = Bench(spec(**keys))
    for worker in workers or ("w",):
        bench.join(worker, ready())
    bench.wake()
    return bench


def done_in(bench: Bench, rows: int = 1) -> float:
    return bench.scheduler._dispatch._admission.done_at(("m", "1"), rows, bench.now) - bench.now


def test_a_batch_holds_as_many_as_keep_the_slo_twice() -> None:
    bench = serving()
    bench.ask(*range(1, 9))
    assert [len(tensors) for _, tensors in bench.wake().riders] == [4, 4], "one runs, one is sent ahead"


def test_a_request_that_cannot_make_it_is_refused_at_once_with_the_estimate_and_the_slo() -> None:
    bench = serving()
    bench.ask(*range(1, 9))
    bench.wake()
    bench.ask(9)
    assert not bench.wake().replies(), "80 ms for the two batches, and its own 10 ms"
    bench.ask(10)
    reply = bench.wake().replies()[10]
    assert reply.code == QueueFull.code
    assert (
        reply.content == f"model 'm' would answer after {80 + 20 + MARGIN_S * 1000:.0f} ms, and slo_ms is 100"
    )
    assert reply.meta == {"retry_after_ms": 100}
    assert bench.outcomes == {"QueueFull": 1}


def test_what_is_before_a_request_is_counted() -> None:
    bench = serving()
    assert done_in(bench) == -float("inf"), "the worker is idle"
    bench.ask(1, 2, 3)
    assert done_in(bench) == pytest.approx(0.04 + MARGIN_S), "it rides with them"
    assert done_in(bench, rows=2) == pytest.approx(0.04 + 0.02 + MARGIN_S), "or in the next"
    bench.wake()
    assert done_in(bench) == pytest.approx(0.03 + 0.01 + MARGIN_S)
    bench.now += 0.02
    assert done_in(bench) == pytest.approx(0.01 + 0.01 + MARGIN_S), "less as time goes by"


def wait_s(bench: Bench, work_s: float) -> float:
    return bench.scheduler._dispatch._admission._wait_s(("m", "1"), work_s, bench.now)


def test_two_workers_are_twice_as_fast() -> None:
    bench = serving("a", "b")
    bench.ask(*range(1, 9))
    bench.wake()
    assert wait_s(bench, 0.0) == pytest.approx(0.04)
    assert wait_s(bench, 0.08) == pytest.approx(0.04 + 0.08 / 2)


def test_other_models_that_wait_for_the_same_worker_take_their_share() -> None:
    bench = Bench(spec(slo_ms=1000.0), spec("other", share=3.0), spec("quiet"))
    bench.join("w", ready(), ready("other"), ready("quiet"))
    bench.ask(1, 2, 3, model="other")
    bench.ask(4)
    bench.wake()
    assert wait_s(bench, 0.1) == pytest.approx(0.01 + 0.1 * 4)


def test_nobody_is_refused_while_a_worker_is_idle_and_nothing_waits() -> None:
    bench = serving(slo_ms=1.0)
    bench.ask(1)
    [(_, batch)] = bench.wake().batches
    bench.answers("w", batch, compute_us=500_000)
    assert bench.wake().codes() == {1: OK}
    bench.ask(2)
    assert len(bench.wake().batches) == 1


def test_nobody_is_refused_before_the_costs_are_known() -> None:
    bench = Bench(spec(slo_ms=1.0))
    bench.host("w")
    bench.ask(*range(50))
    assert not bench.wake().replies()


def test_nobody_is_refused_without_a_copy_that_is_ready() -> None:
    bench = serving()
    bench.handle(WorkerGone(b"w", "no route"))
    bench.ask(*range(50))
    assert not bench.wake().replies()


def test_without_an_slo_nobody_is_refused_for_being_late() -> None:
    bench = serving(slo_ms=0.0)
    bench.ask(*range(500), timeout_s=0.1)
    assert not bench.wake().replies()


def test_a_deadline_that_is_shorter_than_the_slo_is_what_counts() -> None:
    bench = serving()
    bench.ask(1, 2, 3, 4)
    bench.wake()
    bench.ask(5, timeout_s=0.05)
    assert bench.wake().replies()[5].content == "model 'm' would answer after 52 ms, and it has 50 ms"
    bench.ask(6, timeout_s=0.06)
    assert not bench.wake().replies()


def test_what_waits_and_has_no_hope_any_more_is_refused_though_no_worker_is_free() -> None:
    bench = serving()
    bench.ask(*range(1, 9))
    bench.wake()
    bench.ask(9)
    bench.wake()
    late = bench.live(0.2, alive="w")
    assert late.codes() == {9: QueueFull.code}
    assert bench.now - START < 0.25


def test_of_those_that_wait_for_an_idle_worker_the_last_is_served_however_late() -> None:
    bench = serving()
    bench.ask(1, 2, 3, 4)
    [(_, batch)] = bench.wake().batches
    bench.ask(5, 6)
    bench.now += 0.099
    bench.answers("w", batch)
    sent = bench.wake()
    assert sent.riders == [("w", [b"t6"])]
    assert sent.codes()[5] == QueueFull.code
    assert b"slo_ms is 100" in sent.replies()[5].content.encode()  # type: ignore[union-attr]


def test_a_request_whose_worker_was_lost_is_served_however_late() -> None:
    bench = serving("a", "b")
    bench.ask(1)
    bench.wake()
    bench.now += 5.0
    bench.alive("a", "b")
    bench.handle(WorkerGone(b"a", "no route"))
    assert bench.wake().riders == [("b", [b"t1"])]


def test_expiry_goes_before_refusal() -> None:
    bench = serving()
    bench.handle(WorkerGone(b"w", "no route"))
    bench.ask(1, timeout_s=0.05)
    assert bench.live(0.2).codes() == {1: DeadlineExceeded.code}


def test_a_tick_does_not_refuse_what_an_idle_worker_is_about_to_take() -> None:
    bench = serving(slo_ms=1.0)
    bench.now += 0.5
    bench.alive("w")
    bench.ask(1)
    assert bench.wake().riders == [("w", [b"t1"])]
