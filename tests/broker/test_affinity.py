"""Models with sequences on the bench: which worker gets what, when, and what becomes of it."""

from __future__ import annotations

from typing import Any

import pytest

from headway.errors import (
    DeadlineExceeded,
    InvalidInput,
    NoSequence,
    QueueFull,
    WorkerLost,
)
from headway.messages import OK, Batch
from headway.steps import Step
from headway_broker.events import WorkerGone
from headway_broker.scheduler import TICK_S
from headway_broker.sequence_queue import SequenceQueue
from headway_broker.steering import DRAIN_S
from tests.broker.bench import START, Bench, copy, spec
from tests.broker.test_commands import TOKEN, ordered

SOON_S = 2 * TICK_S


def stateful(**keys: Any) -> Any:
    return spec(**{"sequences_max": 9, "sequence_queue_max": 9, "sequence_opens": "any", **keys})


def serving(*workers: str, **keys: Any) -> Bench:
    bench = Bench(stateful(copies=len(workers), **keys))
    for worker in workers:
        bench.host(worker)
    return bench


def ask(bench: Bench, id: int, name: str, starts: bool = False, ends: bool = False, **keys: Any) -> None:
    bench.ask(id, options=Step(name, starts, ends).options, **keys)


def queue_of(bench: Bench) -> SequenceQueue:
    queue = bench.scheduler.queues[("m", "1")]
    assert isinstance(queue, SequenceQueue)
    return queue


def answered(bench: Bench, batches: list[tuple[str, Batch]]) -> None:
    for worker, batch in batches:
        bench.answers(worker, batch)


def test_a_sequence_stays_with_its_worker_though_another_is_idle() -> None:
    bench = serving("w", "v")
    ask(bench, 1, "a")
    ask(bench, 2, "a")
    first = bench.wake()
    assert first.riders == [("w", [b"t1"])], "its second waits for the first, and v has nothing to do"
    answered(bench, first.batches)
    second = bench.wake()
    assert second.riders == [("w", [b"t2"])]
    assert second.codes() == {1: OK}


def test_sequences_share_batches_and_are_spread() -> None:
    bench = serving("w", "v", batch_size_max=4)
    for id, name in enumerate("abcd", 1):
        ask(bench, id, name)
    assert bench.wake().riders == [("w", [b"t1", b"t3"]), ("v", [b"t2", b"t4"])]


def test_a_busy_worker_is_sent_nothing_ahead_and_at_its_end_what_waits_for_it() -> None:
    bench = serving("w", batch_size_max=2)
    for id, name in enumerate("abcd", 1):
        ask(bench, id, name)
    first = bench.wake()
    assert first.riders == [("w", [b"t1", b"t2"])]
    answered(bench, first.batches)
    assert bench.wake().riders == [("w", [b"t3", b"t4"])]


def test_a_partial_batch_waits_for_its_delay_and_a_full_one_does_not() -> None:
    bench = serving("w", batch_size_max=2, batch_delay_ms=30.0)
    ask(bench, 1, "a")
    assert not bench.wake().batches
    assert bench.scheduler._dispatch.next_wake() == pytest.approx(START + 0.030)
    ask(bench, 2, "a")
    assert not bench.wake(0.010).batches, "of one sequence one may go"
    ask(bench, 3, "b")
    first = bench.wake(0.001)
    assert first.riders == [("w", [b"t1", b"t3"])]
    answered(bench, first.batches)
    assert not bench.wake().batches
    assert bench.wake(0.030).riders == [("w", [b"t2"])]


def test_the_workers_clock_counts_from_when_it_is_idle() -> None:
    bench = serving("w", batch_size_max=2, batch_delay_ms=30.0, batch_clock="worker")
    ask(bench, 1, "a")
    bench.wake()
    [(_, batch)] = bench.wake(0.030).batches
    ask(bench, 2, "b")
    bench.wake(0.5)
    bench.answers("w", batch)
    assert not bench.wake().batches
    assert bench.wake(0.031).riders == [("w", [b"t2"])]


def test_what_waits_while_nothing_is_loaded_goes_to_whoever_is_ready_first() -> None:
    bench = Bench(stateful())
    bench.join("w", copy(state="loading"))
    ask(bench, 1, "a")
    assert not bench.wake().batches
    bench.reports("w", copy())
    assert bench.wake().riders == [("w", [b"t1"])]


def test_a_worker_of_two_models_serves_a_sequence_when_the_other_lets_it() -> None:
    bench = Bench(stateful(), spec("n"))
    bench.host("w", "m", "n")
    bench.ask(1, model="n")
    first = bench.wake()
    ask(bench, 2, "a")
    bench.ask(*range(3, 30), model="n")
    riders, batches = [], first.batches
    for _ in range(4):
        sent = bench.wake()
        riders += sent.riders
        batches += sent.batches
        answered(bench, [batches.pop(0)])
    assert ("w", [b"t2"]) in riders, "a flood of another model does not keep it out"


def test_a_request_without_a_sequence_goes_to_anybody() -> None:
    bench = serving("w", "v")
    ask(bench, 1, "a")
    bench.wake()
    bench.ask(2)
    assert bench.wake().riders == [("v", [b"t2"])]


def test_what_is_wrong_with_a_sequence_is_said_at_once() -> None:
    bench = serving("w", sequences_max=1, sequence_queue_max=1, sequence_opens="start")
    ask(bench, 1, "a")
    ask(bench, 2, "a", starts=True)
    ask(bench, 3, "a")
    ask(bench, 4, "a")
    ask(bench, 5, "b", starts=True)
    bench.ask(6, options={"sequence": 7})
    codes = bench.wake().codes()
    refused = {1: NoSequence, 4: QueueFull, 5: QueueFull, 6: InvalidInput}
    assert codes == {id: error.code for id, error in refused.items()} | ({} if 3 not in codes else {3: 0})


def test_a_lost_worker_takes_its_sequences_with_it_and_nothing_of_them_runs_elsewhere() -> None:
    bench = serving("w", "v")
    ask(bench, 1, "a")
    ask(bench, 2, "a")
    bench.wake()
    bench.handle(WorkerGone(b"w", "killed", dead=True))
    bench.wake()
    ask(bench, 3, "a")
    replies = bench.live(SOON_S, alive="v").replies()
    # the first was answered in the wake above, which is not looked at here
    assert {id: reply.code for id, reply in replies.items()} == {2: NoSequence.code, 3: NoSequence.code}
    assert "its worker was lost (killed), and its state with it" in str(replies[3].content)
    assert bench.outcomes == {"WorkerLost": 1, "NoSequence": 2}
    ask(bench, 4, "a", starts=True)
    assert bench.wake().riders == [("v", [b"t4"])]


def test_the_request_that_ran_in_a_lost_worker_is_told_so() -> None:
    bench = serving("w")
    ask(bench, 1, "a")
    bench.wake()
    bench.handle(WorkerGone(b"w", "killed", dead=True))
    reply = bench.wake().replies()[1]
    assert reply.code == WorkerLost.code and "and the state of its sequence with it" in str(reply.content)


def test_a_sequence_of_which_nothing_ran_moves_when_its_worker_is_lost() -> None:
    bench = serving("w", "v")
    ask(bench, 1, "x")
    ask(bench, 2, "y")
    first = bench.wake()
    ask(bench, 3, "z")
    bench.wake()
    bench.handle(WorkerGone(b"w", "killed", dead=True))
    bench.wake()
    answered(bench, [pair for pair in first.batches if pair[0] == "v"])
    assert bench.wake().riders == [("v", [b"t3"])]


def test_a_leaving_worker_answers_what_runs_and_its_sequences_are_over() -> None:
    bench = serving("w", "v")
    ask(bench, 1, "a")
    ask(bench, 2, "a")
    first = bench.wake()
    bench.leaves("w")
    codes = bench.live(SOON_S, alive="wv").codes()
    assert codes == {2: NoSequence.code}
    answered(bench, first.batches)
    sent = bench.wake()
    assert sent.codes() == {1: OK} and sent.dismissed == [("w", "you asked to leave", 1)]


def test_a_worker_that_drains_waits_for_its_sequences_and_gets_no_new_ones() -> None:
    bench = Bench(stateful(copies=2, sequence_idle_ms=5000.0), token=TOKEN)
    bench.host("w"), bench.host("v")
    ask(bench, 1, "a")
    answered(bench, bench.wake().batches)
    ordered(bench, "drain", worker="w")
    ask(bench, 2, "b")
    ask(bench, 3, "c")
    assert bench.wake().riders == [("v", [b"t2"])], "c waits for v"
    ask(bench, 4, "a")
    [(worker, batch)] = bench.wake().batches
    assert worker == "w"
    bench.answers("w", batch)
    assert not bench.live(4.0, alive="wv").dismissed
    assert bench.live(3.0, alive="wv").dismissed[0] == ("w", "drained", 1), "it expired"


def test_a_drain_does_not_wait_for_ever() -> None:
    bench = Bench(stateful(copies=2, sequence_idle_ms=3600_000.0), token=TOKEN)
    bench.host("w"), bench.host("v")
    ask(bench, 1, "a")
    answered(bench, bench.wake().batches)
    ordered(bench, "drain", worker="w")
    bench.now += DRAIN_S
    bench.alive("w", "v")
    assert bench.live(1.5, alive="wv").dismissed[0] == ("w", "drained", 1)
    ask(bench, 2, "a")
    assert bench.live(SOON_S, alive="v").codes() == {2: NoSequence.code}


def test_an_unloaded_copy_takes_its_sequences_with_it() -> None:
    bench = serving("w", "v")
    ask(bench, 1, "a")
    answered(bench, bench.wake().batches)
    bench.wake()
    bench.reports("w", copy(state="gone"))
    ask(bench, 2, "a")
    codes = bench.live(SOON_S, alive="wv").codes()
    assert codes == {2: NoSequence.code}


def test_a_request_that_is_too_late_or_withdrawn_leaves_the_others_in_order() -> None:
    bench = serving("w")
    for id in (1, 2, 3, 4):
        ask(bench, id, "a", timeout_s=0.1 if id == 2 else 60.0)
    first = bench.wake()
    bench.cancel(3)
    assert bench.live(SOON_S, alive="w").codes() == {2: DeadlineExceeded.code}
    answered(bench, first.batches)
    assert bench.wake().riders == [("w", [b"t4"])]


def test_one_whose_time_runs_out_in_its_batch_holds_its_sequence_until_that_is_over() -> None:
    bench = serving("w")
    ask(bench, 1, "a", timeout_s=0.1)
    ask(bench, 2, "a")
    first = bench.wake()
    assert bench.live(0.4, alive="w").codes() == {1: DeadlineExceeded.code}
    answered(bench, first.batches)
    assert bench.wake().riders == [("w", [b"t2"])]


def test_nothing_of_a_sequence_is_run_that_an_earlier_broker_may_have_sent() -> None:
    bench = serving("w")
    ask(bench, 1, "a", starts=True, attempt=1)
    reply = bench.wake().replies()[1]
    assert reply.code == WorkerLost.code and "the model has sequences" in str(reply.content)


def test_a_new_broker_takes_no_old_sequence_for_a_new_one() -> None:
    bench = Bench(stateful(sequence_idle_ms=2000.0), started=START)
    bench.host("w")
    ask(bench, 1, "a")
    ask(bench, 2, "b", starts=True)
    sent = bench.wake()
    assert sent.codes() == {1: NoSequence.code} and sent.riders == [("w", [b"t2"])]
    bench.live(2.1, alive="w")
    ask(bench, 3, "a")
    answered(bench, sent.batches)
    assert bench.wake().riders == [("w", [b"t3"])]


def test_what_a_new_broker_took_for_new_before_it_met_an_older_copy_is_lost() -> None:
    bench = Bench(stateful(), started=START)
    ask(bench, 1, "a")
    ask(bench, 2, "b", starts=True)
    bench.wake()
    bench.host("w")
    sent = bench.live(SOON_S, alive="w")
    assert sent.codes() == {1: NoSequence.code}


def test_a_worker_that_joins_again_brings_no_old_sequences() -> None:
    bench = Bench(stateful(), started=START)
    bench.join("w")
    bench.wake()
    bench.reports("w", copy())
    ask(bench, 1, "a")
    answered(bench, bench.wake().batches)
    bench.join("w", copy())
    ask(bench, 2, "a")
    assert bench.wake().riders == [("w", [b"t2"])]


def test_a_start_that_is_refused_begins_nothing() -> None:
    bench = serving("w", sequence_queue_max=1)
    for id in (1, 2):
        ask(bench, id, "a")
    ask(bench, 3, "a", starts=True)
    ask(bench, 4, "a")
    first = bench.wake()
    assert first.codes() == {3: QueueFull.code, 4: NoSequence.code}
    answered(bench, first.batches)
    second = bench.wake()
    assert second.riders == [("w", [b"t2"])], "what was accepted before it is served"
    answered(bench, second.batches)
    bench.wake()
    ask(bench, 5, "a")
    ask(bench, 6, "a", starts=True)
    third = bench.wake()
    assert third.codes() == {5: NoSequence.code} and third.riders == [("w", [b"t6"])]


def test_how_many_are_open_is_in_the_counters() -> None:
    bench = serving("w")
    ask(bench, 1, "a")
    ask(bench, 2, "b")
    assert bench.scheduler.report.model_stats(("m", "1"))["sequences"] == 2


def test_a_worker_that_comes_later_brings_no_old_sequences() -> None:
    bench = Bench(stateful(), started=START - 3600.0)
    bench.host("w")
    ask(bench, 1, "a")
    assert bench.wake().riders == [("w", [b"t1"])]


def test_a_sequence_stays_with_its_version_whoever_has_the_traffic() -> None:
    bench = Bench(stateful(), stateful(version="2"))
    bench.join("w", copy(), copy(version="2"))
    bench.wake()
    ask(bench, 1, "a", version="1")
    [(_, batch)] = bench.wake().batches
    bench.answers("w", batch)
    ask(bench, 2, "a")
    ask(bench, 3, "a", starts=True, caller="d")
    ran = {}
    for _ in range(2):
        for _, batch in bench.wake().batches:
            ran[batch.requests[0].tensors] = batch.version
            bench.answers("w", batch)
    assert ran == {b"t2": "1", b"t3": "2"}, "a start goes where traffic goes"


def test_copies_of_open_sequences_are_not_scaled_away() -> None:
    bench = Bench(stateful(copies_min=0, copies_max=1, sequence_idle_ms=900_000.0))
    bench.host("w")
    ask(bench, 1, "a")
    answered(bench, bench.wake().batches)
    for _ in range(70):
        bench.now += 9.0
        assert not bench.live(1.1, alive="w").orders
    bench.now += 900.0
    bench.alive("w")
    orders = [order for _ in range(70) for order in bench.live(1.1, alive="w").orders]
    assert orders == [("w", "unload", "m")]
