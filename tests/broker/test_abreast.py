"""Models whose batches run beside one another: continuous ones, and those with in_flight_max."""

from __future__ import annotations

import pytest

from headway.errors import DeadlineExceeded, QueueFull, WorkerLost
from headway.messages import OK, Batch, BatchReply, Cancels, Drops, Piece, Pieces, Result
from headway.pieces import NOBODY, STREAM, TRUE
from headway_broker.events import CallerGone, WorkerGone
from headway_broker.scheduler import TICK_S
from tests.broker.bench import Bench, copy, spec

LEASE_S = 2.0


def serving(*workers: str, **keys: object) -> Bench:
    """A bench whose workers have m, which is continuous and takes three at a time."""
    given = {"batch_size_max": 3, "continuous": True, "response_timeout_s": LEASE_S, **keys}
    bench = Bench(
        spec(**{"copies": max(len(workers), 1), **given}),
        spec("other", batch_size_max=2, response_timeout_s=5.0),
    )
    for worker in workers or ("w",):
        bench.host(worker, "m", "other")
    return bench


def sent_all(bench: Bench, *ids: int, **keys: object) -> dict[bytes, Batch]:
    """Ask, and the batches by what is in them."""
    bench.ask(*ids, **keys)  # type: ignore[arg-type]
    return {batch.requests[0].tensors: batch for _, batch in bench.wake().batches}


def piece(bench: Bench, batch: Batch, place: int = 0, worker: str = "w") -> None:
    bench.hears(worker, Pieces([Piece(batch.id, place, b"a piece", {})]))


def test_each_request_is_a_batch_of_its_own_and_leaves_at_once_as_long_as_the_copy_has_room() -> None:
    bench = serving()
    bench.ask(1, 2, 3, 4)
    assert bench.wake().riders == [("w", [b"t1"]), ("w", [b"t2"]), ("w", [b"t3"])]
    assert not bench.wake().batches


def test_they_end_in_any_order_and_each_makes_room_for_the_next() -> None:
    bench = serving()
    batches = sent_all(bench, 1, 2, 3)
    bench.ask(4, 5)
    bench.answers("w", batches[b"t2"])
    sent = bench.wake()
    assert (sent.codes(), sent.riders) == ({2: OK}, [("w", [b"t4"])])
    bench.answers("w", batches[b"t3"])
    assert bench.wake().riders == [("w", [b"t5"])]


def test_the_copy_that_holds_the_fewest_gets_the_next() -> None:
    bench = serving("a", "b")
    bench.ask(1, 2, 3, 4, 5)
    assert sorted(worker for worker, _ in bench.wake().riders) == ["a", "a", "a", "b", "b"]


def test_other_models_of_the_worker_have_their_own_credit() -> None:
    bench = serving()
    sent_all(bench, 1, 2, 3)
    bench.ask(10, 11, 12, 13, model="other")
    assert bench.wake().riders == [("w", [b"t10", b"t11"]), ("w", [b"t12", b"t13"])]


def test_a_worker_busy_with_another_model_takes_them_all_the_same() -> None:
    bench = serving()
    bench.ask(10, 11, 12, 13, model="other")
    bench.wake()
    bench.ask(1)
    assert bench.wake().riders == [("w", [b"t1"])]


def test_with_in_flight_max_batches_are_formed_as_ever_and_run_beside_one_another() -> None:
    bench = serving(continuous=False, in_flight_max=2, batch_size_max=2, batch_delay_ms=50.0)
    bench.ask(1, 2, 3)
    assert bench.wake().riders == [("w", [b"t1", b"t2"])]
    assert bench.wake(0.06).riders == [("w", [b"t3"])], "its delay is over"
    bench.ask(4, 5)
    assert not bench.wake().batches, "two are in flight"


def test_the_workers_clock_counts_from_when_a_copy_has_room() -> None:
    keys = {"continuous": False, "in_flight_max": 1, "batch_delay_ms": 50.0, "batch_clock": "worker"}
    bench = serving(batch_size_max=4, **keys)
    bench.ask(1)
    assert not bench.wake().batches
    [(_, first)] = bench.wake(0.06).batches
    bench.ask(2)
    assert not bench.wake(0.2).batches
    bench.answers("w", first)
    assert not bench.wake(0.01).batches, "room is there since a moment ago"
    assert bench.wake(0.06).riders == [("w", [b"t2"])]


def test_a_cancelled_request_is_dropped_at_its_worker_and_its_room_is_free_when_the_worker_says_so() -> None:
    bench = serving()
    batches = sent_all(bench, 1, 2, 3)
    bench.ask(4)
    bench.cancel(2)
    sent = bench.wake()
    assert sent.to("w", Drops) == [Drops([batches[b"t2"].id])]
    assert not sent.batches
    bench.result("w", Result(batches[b"t2"].id, 0, [BatchReply(OK, b"too late", {})]))
    sent = bench.wake()
    assert sent.riders == [("w", [b"t4"])] and not sent.replies()


def test_a_caller_that_is_gone_leaves_nothing_running() -> None:
    bench = serving()
    batches = sent_all(bench, 1, 2)
    bench.ask(9, caller="d")
    bench.wake()
    bench.handle(CallerGone(b"c"))
    dropped = [id for message in bench.wake().to("w", Drops) for id in message.batches]
    assert dropped == [batches[b"t1"].id, batches[b"t2"].id]


def test_a_batch_is_dropped_when_all_of_its_requests_are_over() -> None:
    bench = serving(continuous=False, in_flight_max=2, batch_size_max=2)
    [batch] = sent_all(bench, 1, 2).values()
    bench.cancel(1)
    assert not bench.wake().to("w", Drops)
    bench.cancel(2)
    assert bench.wake().to("w", Drops) == [Drops([batch.id])]


def test_an_ordinary_batch_is_not_dropped() -> None:
    bench = serving()
    bench.ask(1, model="other")
    bench.wake()
    bench.cancel(1)
    assert not bench.wake().to("w", Drops)


def test_what_never_left_its_queue_is_not_dropped_anywhere() -> None:
    bench = serving()
    sent_all(bench, 1, 2, 3)
    bench.ask(4)
    bench.wake()
    bench.says("c", Cancels([4]))
    assert not bench.wake().to("w", Drops)


def test_a_request_whose_time_runs_out_in_the_running_batch_is_answered_and_dropped() -> None:
    bench = serving()
    batches = sent_all(bench, 1, timeout_s=0.5)
    sent = bench.live(1.0, ["w"])
    assert sent.codes() == {1: DeadlineExceeded.code}
    assert sent.to("w", Drops) == [Drops([batches[b"t1"].id])], "once"


def test_each_sign_of_life_of_one_is_one_of_all() -> None:
    bench = serving()
    first, _ = sent_all(bench, 1, 2).values()
    for _ in range(6):
        bench.live(0.7 * LEASE_S, ["w"])
        piece(bench, first, NOBODY)
    assert not bench.live(0.7 * LEASE_S, ["w"]).dismissed
    assert not bench.wake().replies(), "it was for nobody"


def test_a_model_that_stands_still_for_its_lease_costs_the_worker_its_place() -> None:
    bench = serving()
    sent_all(bench, 1, 2)
    sent = bench.live(LEASE_S + 2 * TICK_S, ["w"])
    assert sent.codes() == {1: WorkerLost.code, 2: WorkerLost.code}, "it had its time, and is not run again"
    assert sent.dismissed[0] == ("w", f"nothing of the batches that it runs in {LEASE_S:g} s", 1)


def test_one_that_goes_on_does_not_excuse_another_model_that_hangs() -> None:
    bench = serving()
    first, *_ = sent_all(bench, 1).values()
    bench.ask(10, model="other")
    bench.wake()
    for _ in range(4):
        piece(bench, first, NOBODY)
        assert not bench.live(1.0, ["w"]).dismissed
    piece(bench, first, NOBODY)
    assert bench.live(1.5, ["w"]).dismissed[0] == ("w", "batch not done in 5 s", 1)


def test_what_a_lost_worker_ran_goes_to_others_once_unless_its_reply_has_begun() -> None:
    bench = serving("a")
    bench.host("b", "other")
    bench.ask(1, options={STREAM: TRUE})
    bench.ask(2, 3)
    batches = {batch.requests[0].tensors: batch for _, batch in bench.wake().batches}
    piece(bench, batches[b"t1"], worker="a")
    bench.handle(WorkerGone(b"a", "killed", True))
    bench.reports("b", copy("m"))
    sent = bench.wake()
    assert sent.codes() == {1: WorkerLost.code}
    assert sent.riders == [("b", [b"t2"]), ("b", [b"t3"])], "beside one another"
    bench.handle(WorkerGone(b"b", "killed", True))
    assert bench.wake().codes() == {2: WorkerLost.code, 3: WorkerLost.code}


def test_a_worker_that_leaves_may_go_when_the_last_has_ended() -> None:
    bench = serving()
    first, second = sent_all(bench, 1, 2).values()
    bench.leaves("w")
    bench.answers("w", second)
    assert not bench.wake().dismissed
    bench.answers("w", first)
    assert bench.wake().dismissed == [("w", "you asked to leave", 1)]


def test_without_a_queue_as_many_are_taken_as_there_is_room() -> None:
    bench = serving(queue_size_max=0)
    bench.ask(1, 2, 3, 4)
    sent = bench.wake()
    assert [riders for _, riders in sent.riders] == [[b"t1"], [b"t2"], [b"t3"]]
    assert sent.codes() == {4: QueueFull.code}


def test_the_time_of_a_worker_counts_while_it_runs_anything() -> None:
    bench = serving()
    first, second = sent_all(bench, 1, 2).values()
    start, worker = bench.now, bench.scheduler.roster.workers[b"w"]
    bench.live(1.0, ["w"])
    bench.answers("w", first)
    bench.ask(10, model="other")
    [(_, other)] = bench.wake().batches
    bench.live(0.5, ["w"])
    bench.answers("w", second)
    bench.answers("w", other)
    bench.wake()
    assert worker.busy_for(bench.now + 9.0) == pytest.approx(bench.now - start)


def test_a_count_that_is_wrong_is_found() -> None:
    bench = serving()
    sent_all(bench, 1, 2)
    bench.scheduler.roster.workers[b"w"].abreast._counts[("m", "1")] = 1
    with pytest.raises(AssertionError, match="batches abreast are miscounted"):
        bench.scheduler.check()


def test_a_queue_that_is_overlooked_while_a_copy_has_room_is_found() -> None:
    bench = serving()
    sent_all(bench, 1)
    bench.ask(2)
    bench.scheduler._dispatch._look.clear()
    with pytest.raises(AssertionError, match="waits while a copy has room"):
        bench.scheduler.check()
