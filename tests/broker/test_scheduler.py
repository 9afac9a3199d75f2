"""The scheduler, on a bench: what becomes of each request, whatever its peers do."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headway.errors import (
    DeadlineExceeded,
    InternalError,
    ModelError,
    NotReady,
    QueueFull,
    RemoteProtocolError,
    TooLarge,
    UnknownModel,
    WorkerLost,
)
from headway.messages import (
    OK,
    REQUEST_BYTES_MAX,
    Alive,
    Batches,
    BatchReply,
    Bye,
    Dismiss,
    Heartbeat,
    Join,
    Ping,
    Reclaims,
    Replies,
    Result,
    Welcome,
)
from headway.parts import PART_BYTES_MAX
from headway_broker.events import CallerGone, FromCaller, FromWorker, WorkerGone
from headway_broker.scheduler import PROBE_S, TICK_S
from tests.broker.bench import START, Bench, Sent, copy, spec
from tests.broker.test_commands import TOKEN, ordered

SOON_S = 2 * TICK_S
TRACEBACK = "Traceback (most recent call last):\n  File x\nRuntimeError: no such file: weights.pt\n"


def serving(*workers: str, **keys: object) -> Bench:
    """A bench whose workers have m ready."""
    bench = Bench(spec(**{"copies": max(len(workers), 1), **keys}))
    for worker in workers or ("w",):
        bench.host(worker)
    return bench


# ---- the way of a request ----


def test_a_request_is_answered_with_what_its_worker_said_and_the_version_that_ran() -> None:
    bench = serving()
    bench.ask(1)
    [(worker, batch)] = bench.wake().batches
    assert (worker, batch.model, batch.version) == ("w", "m", "1")
    bench.result("w", Result(batch.id, 10, [BatchReply(OK, b"answer", {"k": 2})]))
    assert bench.wake().replies()[1] == (1, OK, b"answer", {"k": 2, "version": "1"})
    assert bench.outcomes == {"ok": 1}


def test_only_a_request_with_headers_is_told_how_long_it_waited_and_ran() -> None:
    bench = serving(batch_size_max=2)
    bench.ask(1, options={"headers": {}})
    bench.ask(2)
    bench.now += 0.25
    [(_, batch)] = bench.wake().batches
    bench.now += 0.5
    bench.answers("w", batch, compute_us=300_000)
    times = {"queue_us": 250_000, "worker_us": 500_000, "compute_us": 300_000}
    found = bench.wake().replies()
    assert found[1].meta == {"version": "1", **times}
    assert found[2].meta == {"version": "1"}


def test_an_error_of_the_models_goes_to_its_request_alone() -> None:
    bench = serving(batch_size_max=2)
    bench.ask(1, 2)
    [(_, batch)] = bench.wake().batches
    bench.result("w", Result(batch.id, 10, [BatchReply(ModelError.code, "no", {}), BatchReply(OK, b"", {})]))
    assert bench.wake().codes() == {1: ModelError.code, 2: OK}


def test_the_same_id_of_two_callers_is_two_requests() -> None:
    bench = serving(batch_size_max=2)
    bench.ask(1, caller="a", tensors=b"a")
    bench.ask(1, caller="b", tensors=b"b")
    [(_, batch)] = bench.wake().batches
    bench.answers("w", batch)
    sent = bench.wake()
    assert (sent.replies("a")[1].content, sent.replies("b")[1].content) == (b"answer to a", b"answer to b")


def test_results_may_come_in_parts() -> None:
    bench = serving(batch_size_max=3)
    bench.ask(1, 2, 3)
    [(_, batch)] = bench.wake().batches
    bench.result("w", Result(batch.id, 10, [BatchReply(OK, b"1", {}), BatchReply(OK, b"2", {})], 0, 0))
    assert {id: r.content for id, r in bench.wake().replies().items()} == {1: b"1", 2: b"2"}
    assert bench.scheduler.roster.workers[b"w"].state == "spare", "the batch is not done"
    bench.result("w", Result(batch.id, 10, [BatchReply(OK, b"3", {})], 2, 1))
    assert bench.wake().replies()[3].content == b"3"
    assert bench.scheduler.roster.workers[b"w"].state == "idle"


def test_a_request_that_gets_no_reply_from_its_worker_is_an_internal_error() -> None:
    bench = serving(batch_size_max=2)
    bench.ask(1, 2)
    [(_, batch)] = bench.wake().batches
    bench.result("w", Result(batch.id, 10, [BatchReply(OK, b"", {})]))
    assert bench.wake().codes() == {1: OK, 2: InternalError.code}


def test_replies_too_many_are_dropped() -> None:
    bench = serving()
    bench.ask(1)
    [(_, batch)] = bench.wake().batches
    bench.result("w", Result(batch.id, 10, [BatchReply(OK, b"mine", {}), BatchReply(OK, b"whose?", {})]))
    assert [r.content for r in bench.wake().replies().values()] == [b"mine"]


def test_a_result_for_a_batch_that_is_not_known_is_dropped() -> None:
    bench = serving()
    bench.ask(1)
    [(_, batch)] = bench.wake().batches
    bench.result("w", Result(batch.id + 1, 10, [BatchReply(OK, b"", {})]))
    assert not bench.wake().replies()


def test_a_worker_cannot_answer_anothers_batch() -> None:
    bench = serving("a", "b")
    bench.ask(1)
    [(_, batch)] = bench.wake().batches
    bench.answers("b", batch)
    assert not bench.wake().replies()


# ---- refusals ----


def refusal(bench: Bench, **keys: object) -> tuple[int, str, dict[str, int]]:
    bench.ask(99, **keys)  # type: ignore[arg-type]
    reply = bench.wake().replies()[99]
    return reply.code, str(reply.content), reply.meta


def test_an_unknown_model_or_version_is_refused() -> None:
    bench = serving()
    assert refusal(bench, model="nobody")[:2] == (UnknownModel.code, "there is no model 'nobody'")
    assert refusal(bench, version="8")[:2] == (UnknownModel.code, "model 'm' has no version '8'")
    assert bench.scheduler.ledger.unknown == {"UnknownModel": 2}


def test_a_broken_version_is_refused_with_its_reason() -> None:
    code, text, _ = refusal(Bench(spec(), broken={("m", "2"): "copies: wrong"}), version="2")
    assert code == NotReady.code and "copies: wrong" in text


def test_more_rows_than_a_batch_holds_are_refused_with_both_numbers() -> None:
    code, text, _ = refusal(serving(batch_size_max=4), rows=5)
    assert (code, text) == (TooLarge.code, "5 rows, and batch_size_max of 'm' is 4")


def test_tensors_that_fill_a_message_are_refused() -> None:
    """A batch has a little more around them than the caller's own message, and could not be sent."""
    bench = serving(queue_bytes_max=1 << 30)
    assert refusal(bench, tensors=bytes(REQUEST_BYTES_MAX + 1))[0] == TooLarge.code
    bench.ask(1, tensors=bytes(REQUEST_BYTES_MAX))
    assert bench.wake().batches


def test_a_request_without_time_is_refused() -> None:
    assert refusal(serving(), timeout_s=0)[0] == DeadlineExceeded.code


def test_a_full_queue_is_refused_at_once_with_a_time_to_retry() -> None:
    bench = serving(queue_size_max=2, batch_size_max=1)
    bench.ask(1)
    [(_, batch)] = bench.wake().batches
    bench.answers("w", batch, compute_us=3_000_000)
    bench.ask(2)
    bench.wake()
    bench.ask(3)
    bench.wake()  # sent ahead
    bench.ask(4, 5)
    bench.wake()
    code, text, meta = refusal(bench)
    assert code == QueueFull.code and "its 2 requests" in text
    assert meta == {"retry_after_ms": 6000}, "two batches wait, and one takes three seconds"
    assert bench.outcomes["QueueFull"] == 1


def codes_of(bench: Bench, *ids: int) -> dict[int, int]:
    """The codes of requests that come in one turn, as far as they are answered in it."""
    bench.ask(*ids)
    return bench.wake().codes()


def test_a_queue_does_not_count_what_idle_copies_take_at_once() -> None:
    bench = Bench(spec(queue_size_max=2, batch_size_max=4, batch_delay_ms=100.0, copies=2))
    bench.host("a")
    bench.host("b")
    refused = codes_of(bench, *range(1, 13))
    assert refused == dict.fromkeys((11, 12), QueueFull.code), "two batches of four, and two that wait"


def test_with_the_worker_s_clock_a_busy_copy_has_its_batch_and_the_queue_its_number() -> None:
    bench = serving(queue_size_max=2, batch_clock="worker")
    assert codes_of(bench, 1) == {}
    assert codes_of(bench, 2, 3, 4) == {4: QueueFull.code}


def test_with_the_worker_s_clock_what_was_sent_ahead_still_counts_for_the_queue() -> None:
    bench = serving(queue_size_max=2, batch_size_max=1, batch_clock="worker")
    for id in (1, 2, 3):  # one runs, one is sent ahead, one waits
        assert codes_of(bench, id) == {}
        bench.wake()
    assert len(bench.scheduler.queues[("m", "1")]) == 1
    assert codes_of(bench, 4) == {4: QueueFull.code}


def test_a_model_without_a_queue_takes_a_request_only_if_a_copy_is_idle() -> None:
    bench = Bench(spec(queue_size_max=0, copies=2))
    bench.host("a")
    bench.host("b")
    assert codes_of(bench, 1, 2, 3) == {3: QueueFull.code}, "each takes one, in one turn or in two"
    assert codes_of(bench, 4) == {4: QueueFull.code}
    assert bench.outcomes["QueueFull"] == 2


def test_a_model_without_a_queue_takes_the_next_request_when_its_copy_is_through() -> None:
    bench = serving(queue_size_max=0, batch_size_max=4, batch_delay_ms=50.0)
    assert codes_of(bench, 1) == {}
    assert codes_of(bench, 2) == {2: QueueFull.code}, "the first waits for company, and none is let in"
    [(_, batch)] = bench.wake(0.05).batches
    code, text, meta = refusal(bench)
    assert (code, text) == (QueueFull.code, "no copy of 'm' is idle, and it keeps no queue")
    assert meta["retry_after_ms"] >= 100
    bench.answers("w", batch)
    bench.wake()
    assert codes_of(bench, 3) == {}
    assert len(bench.wake(0.05).batches) == 1


def test_a_model_without_a_queue_refuses_while_it_is_loaded_and_is_loaded_all_the_same() -> None:
    bench = Bench(spec(queue_size_max=0, copies_min=0, copies_max=1))
    bench.host("w")
    assert bench.live(310, ["w"]).orders == [("w", "unload", "m")]
    bench.reports("w", copy(state="gone"))
    bench.wake()
    bench.ask(1)
    sent = bench.wake()
    assert sent.codes() == {1: QueueFull.code} and sent.orders == [("w", "load", "m")]


def test_a_queue_is_full_by_bytes_too() -> None:
    bench = serving(queue_bytes_max=10)
    bench.scheduler.roster.leave(bench.scheduler.roster.workers[b"w"])
    bench.ask(1, tensors=b"12345678")
    bench.wake()
    code, text, meta = refusal(bench, tensors=b"123")
    assert code == QueueFull.code and "its 10 bytes" in text
    assert meta == {"retry_after_ms": 100}


def test_a_request_is_refused_when_the_model_failed_wherever_it_could_be_with_the_last_line_of_why() -> None:
    bench = Bench()
    bench.join("w")
    bench.wake()
    bench.reports("w", copy(state="failed", detail=TRACEBACK))
    code, text, _ = refusal(bench)
    assert (code, text) == (
        NotReady.code,
        "model 'm' failed to load in w: RuntimeError: no such file: weights.pt",
    )


def test_what_waited_for_a_load_is_answered_when_it_fails_everywhere() -> None:
    bench = Bench()
    bench.join("w")
    bench.ask(1, 2)
    assert not bench.wake().replies()
    bench.reports("w", copy(state="failed", detail=TRACEBACK))
    assert bench.wake().codes() == {1: NotReady.code, 2: NotReady.code}


def test_a_model_that_wants_no_copies_says_so() -> None:
    bench = Bench(spec(copies=0))
    bench.join("w")
    code, text, _ = refusal(bench)
    assert code == NotReady.code and text == "no copies of version 1 of model 'm' are ordered"
    [model] = bench.scheduler.report.models()
    assert (model["state"], model["error"]) == ("asleep", "")


def test_a_request_waits_while_its_model_loads_or_no_worker_has_joined() -> None:
    bench = Bench()
    bench.ask(1)
    assert not bench.wake().replies()
    bench.join("w")
    bench.ask(2)
    assert not bench.wake().replies()
    bench.reports("w", copy())
    assert bench.wake().riders == [("w", [b"t1"]), ("w", [b"t2"])]


def test_a_request_waits_while_there_is_another_worker_to_try() -> None:
    bench = Bench()
    bench.join("a")
    bench.join("b")
    bench.wake()
    bench.reports("a", copy(state="failed", detail=TRACEBACK))
    bench.ask(1)
    sent = bench.wake()
    assert not sent.replies() and sent.orders == [("b", "load", "m")]


# ---- time ----


def test_a_request_whose_time_ran_out_in_the_queue_is_answered_and_costs_no_worker_anything() -> None:
    bench = Bench()
    bench.ask(1, timeout_s=0.5)
    sent = bench.live(0.5 + SOON_S)
    assert sent.codes() == {1: DeadlineExceeded.code}
    bench.host("w")
    assert not bench.wake().batches


def test_a_request_whose_time_ran_out_in_its_batch_is_answered_and_the_late_reply_is_dropped() -> None:
    bench = serving(batch_size_max=2)
    bench.ask(1, timeout_s=0.5)
    bench.ask(2, timeout_s=9.0)
    [(_, batch)] = bench.wake().batches
    assert bench.live(0.5 + SOON_S, ["w"]).codes() == {1: DeadlineExceeded.code}
    bench.answers("w", batch)
    assert bench.wake().codes() == {2: OK}
    assert bench.outcomes == {"DeadlineExceeded": 1, "ok": 1}


def test_each_of_several_deadlines_in_one_batch_is_kept() -> None:
    bench = serving(batch_size_max=3)
    for id in (1, 2, 3):
        bench.ask(id, timeout_s=id * 1.0)
    bench.wake()
    for id in (1, 2, 3):
        assert bench.live(1.0 + SOON_S / 4, ["w"]).codes() == {id: DeadlineExceeded.code}
        bench.live(SOON_S, ["w"])
        bench.now = START + id + SOON_S


def test_next_wake_is_soon_enough_for_a_deadline() -> None:
    bench = Bench()
    bench.ask(1, timeout_s=0.5)
    bench.wake()
    wakes = 0
    while not (sent := bench.wake(max((bench.scheduler.next_wake() or math.inf) - bench.now, 0))).replies():
        wakes += 1
        assert wakes < 20
    assert sent.codes() == {1: DeadlineExceeded.code}
    assert bench.now <= START + 0.5 + TICK_S


# ---- callers ----


def test_a_cancelled_request_is_taken_from_the_queue() -> None:
    bench = Bench()
    bench.ask(1, 2)
    bench.cancel(1, 77)
    bench.host("w")
    assert bench.wake().replies() == {}
    assert bench.outcomes == {"Cancelled": 1}


def test_a_request_cancelled_in_its_batch_is_not_answered() -> None:
    bench = serving(batch_size_max=2)
    bench.ask(1, 2)
    [(_, batch)] = bench.wake().batches
    bench.cancel(1)
    bench.answers("w", batch)
    assert bench.wake().codes() == {2: OK}
    assert bench.outcomes == {"Cancelled": 1, "ok": 1}


@pytest.mark.parametrize("gone", [FromCaller(b"a", Bye()), CallerGone(b"a")])
def test_a_caller_who_leaves_cancels_what_is_its_own_and_gets_nothing_more(gone: object) -> None:
    bench = Bench(spec(batch_size_max=4))
    bench.ask(1, 2, caller="a")
    bench.ask(1, caller="b")
    bench.ask(3, caller="a", model="nobody")
    bench.handle(gone)
    bench.join("w", copy())
    sent = bench.wake()
    assert sent.riders == [("w", [b"t1"])] and not sent.replies("a")
    assert bench.outcomes == {"Cancelled": 2}
    bench.handle(gone)
    assert not bench.wake().to("a", Replies)


def test_a_request_sent_again_while_it_is_open_keeps_its_place_and_runs_once() -> None:
    bench = serving(batch_size_max=4)
    bench.ask(1)
    [(_, batch)] = bench.wake().batches
    bench.ask(2)
    bench.ask(1, 2, attempt=1)
    assert not bench.wake().batches
    bench.answers("w", batch)
    sent = bench.wake()
    assert sent.codes() == {1: OK} and sent.riders == [("w", [b"t2"])]


def test_an_id_is_free_again_once_it_is_answered() -> None:
    bench = serving()
    for _ in range(2):
        bench.ask(1)
        [(_, batch)] = bench.wake().batches
        bench.answers("w", batch)
        assert bench.wake().codes() == {1: OK}


def test_a_request_sent_again_to_a_new_broker_is_refused_if_its_model_is_not_idempotent() -> None:
    assert refusal(serving(idempotent=False), attempt=1)[0] == WorkerLost.code
    bench = serving(idempotent=True)
    bench.ask(1, attempt=1)
    assert bench.wake().batches


def test_a_ping_is_answered_with_the_brokers_nonce() -> None:
    bench = Bench()
    bench.says("c", Ping())
    assert bench.wake().to("c", Heartbeat) == [Heartbeat(b"nonce")]


def test_callers_with_open_requests_are_probed_and_others_are_not() -> None:
    bench = Bench()
    bench.ask(1, caller="waits")
    bench.ask(1, caller="done", model="nobody")
    sent = bench.live(3 * PROBE_S)
    assert 3 <= len(sent.to("waits", Heartbeat)) <= 4
    assert not sent.to("done", Heartbeat)


def test_a_message_from_the_wrong_side_is_a_protocol_error() -> None:
    bench = serving()
    with pytest.raises(RemoteProtocolError, match="a caller sends no Alive"):
        bench.says("c", Alive())
    with pytest.raises(RemoteProtocolError, match="a worker sends no Ping"):
        bench.hears("w", Ping())


# ---- workers come ----


def test_a_worker_that_joins_is_welcomed_and_told_what_to_load() -> None:
    bench = Bench(spec("a"), spec("b"), heartbeat_s=0.25)
    bench.join("w")
    sent = bench.wake()
    assert sent.to("w", Welcome) == [Welcome(b"nonce", 250)]
    assert sent.orders == [("w", "load", "a"), ("w", "load", "b")]
    assert [note.event for note in sent.notes] == ["worker joined"]


def test_a_worker_that_joins_again_with_its_copies_loads_nothing_again() -> None:
    bench = Bench()
    bench.join("w", copy())
    assert bench.wake().orders == []
    bench.join("w", copy())
    sent = bench.wake()
    assert sent.orders == [] and len(sent.to("w", Welcome)) == 1
    bench.ask(1)
    assert bench.wake().batches


def test_a_copy_that_serves_is_kept_when_its_worker_joins_after_one_that_was_told_to_load() -> None:
    bench = Bench()
    bench.join("slow")
    assert bench.wake().orders == [("slow", "load", "m")]
    bench.join("had it", copy())
    assert bench.wake().orders == [("slow", "unload", "m")]
    bench.ask(1)
    assert bench.wake().riders == [("had it", [b"t1"])]


def test_those_who_join_together_are_planned_for_together() -> None:
    bench = Bench()
    bench.join("slow")
    bench.join("has it", copy())
    assert bench.scheduler.next_wake() == -math.inf
    assert not bench.wake().orders, "nothing is loaded to be unloaded at once"


def test_a_join_counts_as_a_sign_of_life() -> None:
    bench = Bench(silence_s=1.0)
    bench.join("w", copy())
    for _ in range(10):
        bench.join("w", copy())
        assert not bench.wake(0.5).dismissed


def test_a_copy_that_failed_is_placed_in_another_worker() -> None:
    bench = Bench()
    bench.join("a")
    bench.join("b")
    assert bench.wake().orders == [("a", "load", "m")]
    bench.reports("a", copy(state="failed"))
    assert bench.wake().orders == [("b", "load", "m")]


def test_surplus_and_unknown_copies_are_unloaded() -> None:
    bench = Bench()
    bench.join("a", copy())
    bench.join("b", copy(), copy("strange"))
    assert sorted(bench.wake().orders) == [("b", "unload", "m"), ("b", "unload", "strange")]


def test_a_model_is_only_loaded_where_its_device_is() -> None:
    bench = Bench(spec(device="cuda"))
    bench.join("a", device="cpu")
    bench.join("b", device="cuda:0")
    assert bench.wake().orders == [("b", "load", "m")]


def test_somebody_who_is_not_on_the_roster_is_told_to_join() -> None:
    bench = Bench()
    bench.alive("stranger")
    bench.leaves("other")
    assert bench.wake().dismissed == [
        ("stranger", "not on the roster: join again", 0),
        ("other", "not on the roster: join again", 0),
    ]


def test_workers_hear_a_heartbeat() -> None:
    bench = Bench(heartbeat_s=0.5)
    bench.host("w")
    beats = bench.live(5.0, ["w"]).to("w", Heartbeat)
    assert 8 <= len(beats) <= 11 and set(beats) == {Heartbeat(b"nonce")}


# ---- workers are lost ----


def lost(bench: Bench, worker: str = "w") -> None:
    bench.handle(WorkerGone(worker.encode(), "no route"))


def test_an_idle_worker_that_is_silent_is_lost() -> None:
    bench = Bench(silence_s=3.0)
    bench.host("w")
    assert not bench.live(2.9).dismissed
    assert bench.live(0.3).dismissed == [("w", "silent for 3 s", 0)]
    assert len(bench.scheduler.roster) == 0


def test_any_message_of_a_worker_ends_its_silence() -> None:
    bench = Bench(silence_s=1.0)
    bench.host("w")
    for _ in range(5):
        bench.live(0.8)
        bench.reports("w", copy())
    assert len(bench.scheduler.roster) == 1


def test_a_busy_worker_may_be_silent_until_its_lease_ends() -> None:
    bench = Bench(spec(response_timeout_s=10.0), silence_s=1.0)
    bench.host("w")
    bench.ask(1)
    assert bench.wake().batches
    assert not bench.live(9.9).dismissed
    assert bench.live(0.2).dismissed == [("w", "batch not done in 10 s", 1)]


def test_the_lease_of_a_batch_sent_ahead_begins_when_its_turn_comes() -> None:
    bench = serving(batch_size_max=1, response_timeout_s=10.0)
    bench.ask(1, 2)
    [(_, first), _] = bench.wake().batches
    bench.live(8.0)
    bench.answers("w", first)
    assert not bench.live(8.0).dismissed
    assert bench.live(2.2).dismissed == [("w", "batch not done in 10 s", 1)]


def test_a_request_whose_batch_outlived_its_lease_is_not_tried_again() -> None:
    bench = serving("w", "x", batch_size_max=2, response_timeout_s=10.0)
    bench.ask(1, 2, timeout_s=60.0)
    assert len(bench.wake().batches) == 1
    sent = bench.live(10.2, ["w", "x"])
    assert {reason for _, reason, final in sent.dismissed if final} == {"batch not done in 10 s"}
    assert sent.codes() == {1: WorkerLost.code, 2: WorkerLost.code}
    assert "its worker was ended: batch not done in 10 s" in sent.replies()[1].content
    assert not bench.live(1.0, ["w", "x"]).batches


def test_a_batch_sent_ahead_to_a_worker_that_outlived_its_lease_is_run_by_another() -> None:
    bench = serving("w", batch_size_max=1, response_timeout_s=10.0)
    bench.ask(1, 2, timeout_s=60.0)
    assert len(bench.wake().batches) == 2
    sent = bench.live(10.2, ["w"])
    assert sent.codes() == {1: WorkerLost.code}
    bench.join("x", copy())
    [(worker, batch)] = bench.wake().batches
    bench.answers(worker, batch)
    assert worker == "x" and bench.wake().codes() == {2: OK}


def test_a_worker_that_loads_may_be_silent_until_the_load_timeout() -> None:
    bench = Bench(silence_s=1.0, load_timeout_s=20.0)
    bench.join("w")
    assert not bench.live(19.8).dismissed
    assert bench.live(0.4).dismissed == [("w", "model not loaded in 20 s", 1)]


def test_the_load_timeout_is_for_each_model_and_not_for_all_together() -> None:
    bench = Bench(spec("a"), spec("b"), spec("c"), load_timeout_s=20.0)
    bench.join("w")
    for model in "abc":
        bench.reports("w", copy(model, "loading"))
        assert not bench.live(15.0).dismissed
        bench.reports("w", copy(model))
    assert not bench.wake().dismissed


def test_a_version_may_have_a_load_timeout_of_its_own() -> None:
    bench = Bench(spec("a", load_timeout_s=3.0), spec("b"), load_timeout_s=20.0)
    bench.join("w")
    assert [model for _, _, model in bench.wake().orders] == ["a", "b"], "one after the other"
    bench.live(2.9, ["w"])
    bench.reports("w", copy("a"))
    assert not bench.live(19.8).dismissed, "what the first said does not count for the second"
    assert bench.live(0.4).dismissed == [("w", "model not loaded in 20 s", 1)]
    bench.join("v")
    assert len(bench.wake().orders) == 2
    assert bench.live(3.2).dismissed == [("v", "model not loaded in 3 s", 1)]


def test_a_load_timeout_begins_when_what_is_unloaded_before_is_gone() -> None:
    bench = Bench(spec("a"), spec("b", copies=0, load_timeout_s=3.0), token=TOKEN, load_timeout_s=20.0)
    bench.host("w", "a")
    ordered(bench, "scale", model="a", min=0)
    ordered(bench, "scale", model="b", min=1)
    assert not bench.live(10.0).dismissed
    bench.reports("w", copy("a", "gone"))
    assert not bench.live(2.8).dismissed
    assert bench.live(0.4).dismissed == [("w", "model not loaded in 3 s", 1)]


def test_the_state_says_why_a_version_is_not_loaded() -> None:
    bench = Bench(spec(load_timeout_s=3.0))
    bench.join("a")
    bench.wake()
    [model] = bench.scheduler.report.models()
    assert (model["state"], model["error"]) == ("loading", "")
    bench.live(3.2)
    [model] = bench.scheduler.report.models()
    lost = "a worker was lost while it loaded it (a: model not loaded in 3 s)"
    assert model["error"] == f"{lost}; no worker has joined"
    bench.join("b")
    bench.wake()
    [model] = bench.scheduler.report.models()
    assert (model["state"], model["error"]) == ("loading", lost)
    bench.live(3.2)
    [model] = bench.scheduler.report.models()
    assert model["state"] == "failed"
    assert model["error"].startswith("it is not loaded for now: 2 workers were lost while they loaded it")
    assert model["error"].endswith("(the last, b: model not loaded in 3 s)")
    bench = Bench()
    bench.join("a")
    bench.wake()
    bench.reports("a", copy(state="failed", detail=TRACEBACK))
    bench.wake()
    [model] = bench.scheduler.report.models()
    assert model["state"] == "failed"
    assert model["error"].strip().endswith("RuntimeError: no such file: weights.pt")
    assert model["copies"] == [{"worker": "a", "state": "failed", "error": TRACEBACK, "facts": {}}]


def test_a_version_that_is_loaded_at_last_has_nothing_against_it() -> None:
    bench = Bench(spec(load_timeout_s=3.0))
    bench.join("a")
    bench.live(3.2)
    bench.join("b")
    bench.wake()
    bench.reports("b", copy())
    bench.wake()
    [model] = bench.scheduler.report.models()
    assert (model["state"], model["error"]) == ("ready", "")


def test_the_requests_of_a_lost_worker_go_back_to_the_head_each_alone_and_to_an_idle_worker() -> None:
    bench = serving("a", "b", batch_size_max=4)
    bench.ask(1, 2)
    [(first, _)] = bench.wake().batches
    bench.ask(3)
    bench.wake()
    bench.ask(4, 5, 6, 7)  # a full batch; but it is not sent ahead while others wait to go alone
    lost(bench, first)
    sent = bench.wake()
    assert sent.dismissed == [(first, "no route", 0)] and not sent.replies()
    assert not sent.batches, "the other worker is busy"
    [flight] = bench.scheduler.roster.workers[b"b"].batches.values()
    bench.result("b", Result(flight.id, 10, [BatchReply(OK, b"", {})]))
    served = []
    for _ in range(3):
        [(worker, batch)] = bench.wake().batches
        served.append([request.tensors for request in batch.requests])
        bench.answers(worker, batch)
    assert served == [[b"t1"], [b"t2"], [b"t4", b"t5", b"t6", b"t7"]]


def test_a_lone_batch_has_no_company() -> None:
    bench = serving("a", "b", batch_size_max=1)
    bench.ask(1)
    [(first, _)] = bench.wake().batches
    lost(bench, first)
    bench.ask(2, 3)
    assert bench.wake().riders == [("b", [b"t1"])], "nothing is sent ahead to a worker that it may take down"


def test_both_batches_of_a_lost_worker_come_back_in_order() -> None:
    bench = serving(batch_size_max=1)
    bench.ask(1, 2, 3)
    bench.wake()
    lost(bench)
    bench.join("v", copy())
    assert bench.wake().riders == [("v", [b"t1"])]
    assert [request.id for request in bench.scheduler.queues[("m", "1")]] == [2, 3]


def test_a_request_that_takes_two_workers_down_is_answered_and_not_tried_again() -> None:
    bench = serving("a", "b", "c")
    bench.ask(1)
    for worker in ("a", "b"):
        assert [w for w, _ in bench.wake().batches] == [worker]
        lost(bench, worker)
    sent = bench.wake()
    assert not sent.batches
    assert (sent.codes(), str(sent.replies()[1].content)) == (
        {1: WorkerLost.code},
        "2 workers were lost with it (the last: no route)",
    )


def test_a_request_of_a_model_that_is_not_idempotent_is_not_tried_again_at_all() -> None:
    bench = serving("a", "b", idempotent=False)
    bench.ask(1)
    bench.wake()
    lost(bench, "a")
    sent = bench.wake()
    assert sent.codes() == {1: WorkerLost.code} and not sent.batches


def test_requests_with_an_outcome_do_not_come_back_with_their_lost_worker() -> None:
    bench = serving("a", "b", batch_size_max=4)
    bench.ask(1, timeout_s=0.3)
    bench.ask(2, 3)
    [(_, batch)] = bench.wake().batches
    bench.result("a", Result(batch.id, 10, [BatchReply(OK, b"", {})], 1, 0))
    bench.cancel(3)
    bench.live(0.5, ["b"])
    lost(bench, "a")
    assert not bench.wake().batches
    assert bench.outcomes == {"ok": 1, "Cancelled": 1, "DeadlineExceeded": 1}


def test_the_late_result_of_a_worker_that_was_given_up_is_dropped() -> None:
    bench = serving("a", "b")
    bench.ask(1)
    [(_, batch)] = bench.wake().batches
    lost(bench, "a")
    bench.wake()
    bench.join("a", copy())
    bench.answers("a", batch)
    assert not bench.wake().replies()


def test_losing_somebody_who_is_not_there_changes_nothing() -> None:
    bench = Bench()
    lost(bench, "nobody")
    assert not bench.wake().actions


def test_the_copies_of_a_lost_worker_are_placed_elsewhere() -> None:
    bench = Bench()
    bench.host("a")
    bench.join("b")
    assert bench.wake().orders == []
    lost(bench, "a")
    assert bench.wake().orders == [("b", "load", "m")]


# ---- workers leave ----


def test_a_worker_that_leaves_finishes_what_it_has_and_gets_nothing_new() -> None:
    bench = serving("a", batch_size_max=1)
    bench.ask(1, 2)
    [(_, first), (_, second)] = bench.wake().batches
    bench.leaves("a")
    bench.ask(3)
    assert not bench.wake().batches
    bench.answers("a", first)
    assert not bench.wake().dismissed
    bench.answers("a", second)
    sent = bench.wake()
    assert sent.dismissed == [("a", "you asked to leave", 1)] and sent.codes() == {2: OK}
    assert len(bench.scheduler.roster) == 0
    assert bench.scheduler.queues[("m", "1")].rows == 1


def test_a_worker_with_nothing_to_do_leaves_at_once_and_its_copies_are_placed_elsewhere() -> None:
    bench = Bench()
    bench.host("a")
    bench.join("b")
    bench.wake()
    bench.leaves("a")
    sent = bench.wake()
    assert sent.dismissed == [("a", "you asked to leave", 1)]
    assert sent.orders == [("b", "load", "m")]


# ---- messages ----


def test_each_peer_gets_one_message_for_each_wake() -> None:
    bench = serving("a", "b", batch_size_max=2)
    bench.ask(1, 2, 3, 4)
    bench.ask(*range(1, 9), caller="d")
    sent = bench.wake()
    assert [len(m.batches) for m in sent.to("a", Batches)] == [2]
    assert [len(m.batches) for m in sent.to("b", Batches)] == [2]
    for worker, batch in sent.batches:
        bench.answers(worker, batch)
    sent = bench.wake()
    assert [len(m.replies) for m in sent.to("c", Replies)] == [4]
    assert [len(m.replies) for m in sent.to("d", Replies)] == [4]


def test_replies_that_are_large_together_are_sent_in_parts() -> None:
    bench = serving(batch_size_max=4)
    bench.ask(1, 2, 3)
    [(_, batch)] = bench.wake().batches
    large = BatchReply(OK, bytes(PART_BYTES_MAX // 2), {})
    bench.result("w", Result(batch.id, 10, [large, large, large]))
    assert [[r.id for r in m.replies] for m in bench.wake().to("c", Replies)] == [[1, 2], [3]]


def test_batches_that_are_large_together_are_sent_in_parts() -> None:
    bench = serving(batch_size_max=1)
    bench.ask(1, 2, tensors=bytes(PART_BYTES_MAX // 2 + 1))
    assert [len(m.batches) for m in bench.wake().to("w", Batches)] == [1, 1]


def test_more_replies_than_a_message_may_list_are_sent_in_parts() -> None:
    bench = Bench()
    bench.ask(*range(40_000), model="nobody")
    bench.ask(*range(40_000, 80_000), model="nobody")
    assert [len(m.replies) for m in bench.wake().to("c", Replies)] == [65_536, 80_000 - 65_536]


def test_what_is_to_be_sent_is_sent_at_once() -> None:
    bench = Bench()
    assert bench.scheduler.next_wake() is None
    bench.says("c", Ping())
    assert bench.scheduler.next_wake() == -math.inf
    bench.wake()
    assert bench.scheduler.next_wake() is None
    bench.ask(1, model="nobody")
    assert bench.scheduler.next_wake() == -math.inf


# ---- conservation ----

KINDS = ["ask"] * 3 + ["again", "cancel", "answer", "part", "lose", "join", "leave", "bye", "time"]
STEPS = st.tuples(st.sampled_from(KINDS), st.integers(0, 3))


@settings(max_examples=60)
@given(st.lists(STEPS, max_size=40), st.booleans())
def test_every_accepted_request_is_answered_cancelled_or_open(
    steps: list[tuple[str, int]], idempotent: bool
) -> None:
    keys = {"batch_size_max": 3, "queue_size_max": 6, "idempotent": idempotent, "copies": 9}
    bench, asked = Bench(spec(**keys), silence_s=1.0), 0
    held: list[tuple[str, object]] = []
    answered: Counter[tuple[str, int]] = Counter()
    for number, (step, n) in enumerate(steps):
        caller, worker = "ab"[n % 2], f"w{n}"
        if step == "ask":
            bench.ask(*range(number * 10, number * 10 + n + 1), caller=caller, timeout_s=0.2 + n)
            asked += n + 1
        elif step == "again":
            bench.ask(*(r.id for r in bench.scheduler.ledger.of(caller.encode())), caller=caller, attempt=1)
        elif step == "cancel":
            bench.cancel(*(r.id for r in bench.scheduler.ledger.of(caller.encode())[:n]), caller=caller)
        elif step in ("answer", "part") and held:
            who, batch = held.pop(n % len(held))
            if step == "answer":
                bench.answers(who, batch)  # type: ignore[arg-type]
            else:
                bench.result(who, Result(batch.id, 1, [BatchReply(OK, b"", {})], 0, 0))  # type: ignore[attr-defined]
                held.append((who, batch))
        elif step == "lose":
            lost(bench, worker)
        elif step == "join":
            bench.join(worker, copy())
        elif step == "leave":
            bench.leaves(worker)
        elif step == "bye":
            bench.handle(FromCaller(caller.encode(), Bye()))
        sent = bench.wake(0.3 * n if step == "time" else 0.001)
        held += sent.batches
        for name in "ab":
            answered.update((name, id) for id in sent.replies(name))
    outcomes = bench.scheduler.stats[("m", "1")].outcomes
    still_open = len(list(bench.scheduler.ledger))
    assert asked == sum(outcomes.values()) + still_open
    assert not answered or max(answered.values()) == 1
    assert sum(answered.values()) == sum(outcomes.values()) - outcomes["Cancelled"]


def test_a_dismissed_worker_hears_it_before_anything_else() -> None:
    bench = Bench(silence_s=1.0)
    bench.host("w")
    sent = bench.live(1.2)
    assert [type(a.message) for a in sent.actions if getattr(a, "worker", b"") == b"w"][-1] is Dismiss
    bench.handle(FromWorker(b"w", Alive()))
    assert bench.wake().dismissed == [("w", "not on the roster: join again", 0)]


# ---- shared memory ----

SLOTS = {"slot": ["s", 0, 1, 64, 5], "reply_slot": ["s", 4096, 2, 100], "k": 1}


def test_a_reply_says_nothing_of_slots_when_its_worker_is_through() -> None:
    bench = serving()
    bench.ask(1, options=SLOTS)
    [(worker, batch)] = bench.wake().batches
    assert batch.requests[0].options == SLOTS
    bench.answers(worker, batch)
    sent = bench.wake()
    assert sent.replies()[1].meta == {"version": "1"} and sent.released() == []


def test_a_request_that_expires_in_its_batch_is_held_until_the_batch_is_done() -> None:
    bench = serving()
    bench.ask(1, options=SLOTS, timeout_s=1.0)
    [(worker, batch)] = bench.wake().batches
    sent = bench.live(2.0, alive=["w"])
    assert sent.replies()[1].meta["held"] == 1 and sent.released() == []
    bench.answers(worker, batch)
    assert bench.wake().released() == [1]


def test_slots_of_a_queued_request_are_released_when_they_are_reclaimed() -> None:
    bench = Bench()
    bench.ask(1, options=SLOTS)
    bench.says("c", Reclaims([1, 2]))
    assert sorted(bench.wake().released()) == [1, 2]
    assert bench.outcomes == {"Cancelled": 1}


def test_slots_of_a_running_request_are_released_when_it_is_done() -> None:
    bench = serving()
    bench.ask(1, options=SLOTS)
    [(worker, batch)] = bench.wake().batches
    bench.says("c", Reclaims([1]))
    bench.says("c", Reclaims([1]))
    assert bench.wake().released() == []
    bench.answers(worker, batch)
    assert bench.wake().released() == [1]


def test_a_worker_that_is_known_to_be_dead_holds_nothing() -> None:
    bench = serving("w", "x")
    bench.ask(1, options=SLOTS)
    [(worker, _)] = bench.wake().batches
    bench.handle(WorkerGone(worker.encode(), "killed"))
    [(worker, batch)] = bench.wake().batches
    assert batch.requests[0].options == {"slot": SLOTS["slot"], "k": 1}, "no reply slot the second time"
    bench.answers(worker, batch)
    assert "held" not in bench.wake().replies()[1].meta


@pytest.mark.parametrize("end", ["its process ends", "it says so", "it joins again and says so"])
def test_a_worker_that_outlived_its_lease_holds_slots_until(end: str) -> None:
    bench = serving("w", "x", response_timeout_s=1.0)
    bench.ask(1, options=SLOTS)
    [(lost, old)] = bench.wake().batches
    other = "x" if lost == "w" else "w"
    sent = bench.live(1.2, alive=["w", "x"])
    assert sent.codes() == {1: WorkerLost.code} and sent.replies()[1].meta["held"] == 1
    sent = bench.live(2.0, alive=[other])
    assert sent.to(lost, Heartbeat) and sent.released() == []
    if end == "its process ends":
        bench.handle(WorkerGone(lost.encode(), "no route"))
    else:
        if end == "it joins again and says so":
            bench.host(lost)
        bench.result(lost, Result(old.id, 0, []))
    assert bench.wake().released() == [1]
    assert bench.scheduler.holds.limbo == {}


def test_a_worker_that_does_not_read_may_live_and_holds_its_slots() -> None:
    bench = serving("w", "x")
    bench.ask(1, options=SLOTS)
    [(worker, _)] = bench.wake().batches
    bench.handle(WorkerGone(worker.encode(), "does not read", dead=False))
    [(worker, batch)] = bench.wake().batches
    bench.answers(worker, batch)
    assert bench.wake().replies()[1].meta["held"] == 1


def test_a_request_that_was_sent_to_the_broker_before_has_no_reply_slot() -> None:
    bench = serving()
    bench.ask(1, options=SLOTS, attempt=1)
    [(_, batch)] = bench.wake().batches
    assert "reply_slot" not in batch.requests[0].options


def test_a_caller_that_left_is_told_all_the_same_when_its_slots_are_free() -> None:
    bench = serving()
    bench.ask(1, options=SLOTS)
    [(worker, batch)] = bench.wake().batches
    bench.handle(CallerGone(b"c"))
    bench.says("c", Reclaims([1]))
    assert bench.wake().released() == []
    bench.answers(worker, batch)
    assert bench.wake().released() == [1]


def test_a_broker_with_a_worker_in_limbo_does_not_sleep() -> None:
    bench = serving(response_timeout_s=1.0)
    bench.ask(1, options=SLOTS, timeout_s=1.05)
    bench.wake()
    bench.live(1.5)
    assert bench.scheduler.holds.limbo
    assert bench.scheduler.next_wake() is not None


# ---- costs and heartbeats ----


def learned_us(bench: Bench) -> dict[str, int]:
    return bench.scheduler.costs[("m", "1")].facts()


def test_a_batch_costs_what_it_kept_its_worker_when_that_is_longer_than_the_model_ran() -> None:
    bench = serving()
    bench.ask(1)
    [(_, batch)] = bench.wake().batches
    bench.now += 0.05
    bench.answers("w", batch, compute_us=10_000)
    bench.wake()
    assert learned_us(bench)["1"] == pytest.approx(50_000, rel=1e-3)


def test_a_batch_sent_ahead_costs_nothing_until_it_is_its_turn() -> None:
    bench = serving()
    bench.ask(1, 2)
    batches = [batch for _, batch in bench.wake().batches]
    for batch in batches:
        bench.now += 0.05
        bench.answers("w", batch, compute_us=10_000)
    assert learned_us(bench)["1"] == pytest.approx(50_000, rel=1e-3)


def test_a_batch_that_was_not_run_teaches_nothing() -> None:
    bench = serving()
    bench.ask(1)
    [(_, batch)] = bench.wake().batches
    bench.now += 0.05
    bench.answers("w", batch, code=ModelError.code, compute_us=0)
    assert learned_us(bench) == {}


def test_facts_that_are_nonsense_do_no_harm() -> None:
    bench = Bench()
    bench.join("w", copy()._replace(facts={"batch_us": ["nonsense", {"1": "x"}]}))
    bench.reports("w", copy()._replace(facts={"batch_us": {"1": [], "2": 7, "-3": 1}}))
    bench.wake()
    assert learned_us(bench) == {"2": 7}


def test_the_heartbeats_of_many_workers_are_spread_over_the_ticks() -> None:
    bench = Bench(spec(copies=0))
    names = [f"w{i}" for i in range(20)]
    for name in names:
        bench.join(name)
    heard = [sum(len(sent.to(name, Heartbeat)) for name in names) for sent in ticks(bench, 15, names)]
    assert sum(heard) == 3 * 20, "each has three in 1.5 s"
    assert max(heard) == 4


def ticks(bench: Bench, count: int, alive: list[str]) -> list[Sent]:
    bench.alive(*alive)
    return [bench.wake(TICK_S * 1.0001) for _ in range(count)]


def test_a_turn_is_charged_at_what_it_took() -> None:
    bench = Bench(spec("a"), spec("b"))
    facts = {"batch_us": {"1": 10_000}}
    bench.join("w", *(copy(name)._replace(facts=facts) for name in ("a", "b")))
    bench.wake()
    for id, model, took_s in ((1, "a", 0.05), (2, "b", 0.02)):
        bench.ask(id, model=model)
        [(_, batch)] = bench.wake().batches
        bench.now += took_s
        bench.answers("w", batch)
    bench.ask(3, model="a")
    bench.ask(4, model="b")
    assert bench.wake().riders == [("w", [b"t4"])], "a came first, and had more than its share"


def test_a_batch_that_takes_much_longer_than_was_expected_is_expected_to_go_on() -> None:
    bench = Bench()
    bench.join("w", copy()._replace(facts={"batch_us": {"1": 10_000}}))
    bench.ask(1)
    bench.wake()
    bench.live(1.0)
    assert bench.scheduler.roster.workers[b"w"].free_at > START + 0.5


def test_a_load_that_takes_too_long_is_noticed_before_silence_would_be() -> None:
    bench = Bench(load_timeout_s=0.5, silence_s=30.0)
    bench.join("w")
    assert bench.wake().orders == [("w", "load", "m")]
    assert "not loaded in 0.5 s" in str(bench.live(0.8).dismissed)


def asks_to_join(bench: Bench, identity: str, name: str = "w", pid: int = 8) -> None:
    bench.hears(identity, Join(name, "host", pid, "cpu", []))


def test_of_two_workers_with_one_name_the_first_stays_and_the_second_is_sent_away() -> None:
    bench = Bench()
    bench.host("w")
    dismissed = []
    for _ in range(12):
        bench.alive("w")
        asks_to_join(bench, "w.2")
        dismissed += bench.wake(0.4).dismissed
    assert dismissed[0] == ("w.2", "a worker named w is there: host, pid 7", 1)
    assert list(bench.scheduler.roster.workers) == [b"w"]
    bench.ask(1)
    assert [who for who, _ in bench.wake().batches] == ["w"]


def test_a_worker_that_was_restarted_gets_in_as_soon_as_the_dead_one_is_missed() -> None:
    bench = Bench()
    bench.host("w")
    asks_to_join(bench, "w.2")
    sent = bench.wake()
    assert len(sent.to("w", Heartbeat)) == 1, "which finds no route"
    bench.handle(WorkerGone(b"w", "no route"))
    asks_to_join(bench, "w.2")
    assert len(bench.wake().to("w.2", Welcome)) == 1
    assert list(bench.scheduler.roster.workers) == [b"w.2"]


def test_whoever_asked_for_a_name_long_ago_and_went_is_not_remembered() -> None:
    bench = Bench()
    bench.host("w")
    asks_to_join(bench, "w.2")
    bench.live(60.0, ["w"])
    asks_to_join(bench, "w.2")
    assert bench.wake().dismissed == [], "it asks anew"
    bench.live(60.0, ["w"])
    assert not bench.scheduler._twins


def test_replies_may_leave_before_anything_else_is_noted_of_their_batch() -> None:
    bench = Bench(spec(queue_size_max=0))  # whoever asks is refused, unless a worker is idle
    bench.host("w")
    bench.ask(1)
    [(_, batch)] = bench.wake().batches
    bench.answers("w", batch)
    assert Sent(bench.scheduler.answers()).codes() == {1: OK}
    assert bench.scheduler.answers() == []
    bench.ask(2)
    sent = bench.wake()
    assert (sent.codes(), sent.riders) == ({}, [("w", [b"t2"])])


def test_results_of_several_workers_are_noted_each_at_its_time() -> None:
    bench = Bench(spec(copies=2))
    bench.host("v")
    bench.host("w")
    bench.ask(1, 2)
    sent = bench.wake()
    assert len({worker for worker, _ in sent.batches}) == 2
    for worker, batch in sent.batches:
        bench.now += 0.01
        bench.answers(worker, batch)
    assert Sent(bench.scheduler.answers()).codes() == {1: OK, 2: OK}
    bench.ask(3, 4)
    assert sorted(worker for worker, _ in bench.wake().batches) == ["v", "w"]
