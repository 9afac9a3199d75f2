"""headway_broker.companies: a batch does not wait where nobody is left who could join."""

from __future__ import annotations

from typing import Any

import pytest

from headway.company import COMPANY
from tests.broker.bench import Bench, Sent, spec

DELAY_S = 0.1
QUIET_MS = 2000  # twenty delays


def bench_of(**keys: Any) -> Bench:
    """Four to a batch, which waits for company."""
    keys = {"batch_size_max": 4, "batch_delay_ms": DELAY_S * 1000, **keys}
    bench = Bench(spec(**keys))
    bench.host("w")
    return bench


def complete(bench: Bench, id: int, said: Any = QUIET_MS, caller: str = "c") -> Sent:
    """A request comes that completes its caller's company."""
    bench.ask(id, caller=caller, options={COMPANY: said})
    return bench.wake()


def rides(sent: Sent) -> list[list[bytes]]:
    return [tensors for _, tensors in sent.riders]


@pytest.mark.parametrize("clock", ["arrival", "worker"])
def test_the_last_of_a_company_takes_all_with_it_at_once(clock: str) -> None:
    bench = bench_of(batch_clock=clock)
    bench.ask(1, 2)
    assert not bench.wake().batches
    assert rides(complete(bench, 3)) == [[b"t1", b"t2", b"t3"]]


@pytest.mark.parametrize("said", [QUIET_MS - 1, 0, "2000", 2000.0, True, None, [], 1 << 70])
def test_a_company_that_somebody_joined_lately_is_waited_for_and_so_is_one_that_says_nonsense(
    said: Any,
) -> None:
    bench = bench_of()
    sent = complete(bench, 1, said)
    assert bool(sent.batches) == (said == 1 << 70)
    if not sent.batches:
        assert rides(bench.wake(DELAY_S)) == [[b"t1"]]


def test_with_the_first_answer_somebody_may_ask_again() -> None:
    bench = bench_of(batch_size_max=2)
    bench.ask(1, 2)
    [(_, batch)] = bench.wake().batches
    complete(bench, 3)
    bench.answers("w", batch)
    assert not bench.wake().batches, "the clients of 1 and 2 have their answers"
    assert rides(complete(bench, 4)) == [[b"t3", b"t4"]]


def test_a_request_that_completes_nothing_says_that_somebody_has_joined() -> None:
    bench = bench_of()
    bench.ask(1, options={COMPANY: QUIET_MS})
    bench.ask(2)
    assert not bench.wake().batches


@pytest.mark.parametrize("end", ["cancelled", "refused"])
def test_whoever_gets_no_answer_may_ask_again_too(end: str) -> None:
    bench = bench_of()
    bench.ask(1)
    bench.wake()
    bench.ask(2, options={COMPANY: QUIET_MS})
    bench.cancel(1) if end == "cancelled" else bench.ask(3, rows=9)
    assert not bench.wake().batches


def test_each_caller_that_asked_lately_has_to_be_complete() -> None:
    bench = bench_of()
    bench.ask(1, caller="d")
    assert not complete(bench, 2).batches
    assert rides(complete(bench, 3, caller="d")) == [[b"t1", b"t2", b"t3"]]


def test_a_caller_that_asked_long_ago_does_not_count() -> None:
    bench = bench_of()
    bench.ask(1, caller="d")
    [(_, batch)] = bench.wake(DELAY_S).batches
    bench.answers("w", batch)
    bench.live(1.8, ["w"])
    assert not complete(bench, 2).batches
    [(_, batch)] = bench.wake(DELAY_S).batches
    bench.answers("w", batch)
    bench.live(0.2, ["w"])
    assert rides(complete(bench, 3)) == [[b"t3"]]


def test_a_model_may_wait_all_the_same() -> None:
    bench = bench_of(batch_early=False)
    assert not complete(bench, 1).batches
    assert rides(bench.wake(DELAY_S)) == [[b"t1"]]


def test_nothing_is_remembered_of_callers_without_open_requests() -> None:
    bench = bench_of()
    [(_, batch)] = complete(bench, 1).batches
    assert len(bench.scheduler.ledger.companies.complete) == 1
    bench.answers("w", batch)
    bench.wake()
    assert len(bench.scheduler.ledger.companies.complete) == 0
