"""Pieces of replies, through a scheduler on a bench: at once, in order, and to nobody who does not wait."""

from __future__ import annotations

from typing import Any

import pytest

from headway.errors import DeadlineExceeded, QueueFull, WorkerLost
from headway.messages import OK, Batch, BatchReply, Piece, Pieces, Ping, Replies, Reply, Result
from headway.pieces import FRAMING_BYTES, WAITING_BYTES_MAX
from headway_broker.events import WorkerGone
from headway_broker.ledger import Ledger
from headway_broker.stats import ModelStats
from tests.broker.bench import Bench, copy, open_request, spec

TAKES = {"stream": "true"}


def asked(*ids: int, **keys: Any) -> tuple[Bench, Batch]:
    """A bench whose worker has the batch of these requests."""
    bench = Bench(spec(batch_size_max=4, response_timeout_s=keys.pop("response_timeout_s", 60.0)))
    bench.host()
    bench.ask(*ids, options=keys.pop("options", TAKES), **keys)
    ((_, batch),) = bench.wake().batches
    return bench, batch


def sends(
    bench: Bench, batch: int, place: int, content: bytes = b"p", worker: str = "w", **meta: Any
) -> None:
    bench.hears(worker, Pieces([Piece(batch, place, content, meta)]))


def contents(replies: list[Reply]) -> list[tuple[int, object, bool]]:
    return [(reply.id, reply.content, "more" in reply.meta) for reply in replies]


def all_replies(sent: Any) -> list[Reply]:
    return [reply for message in sent.to("c", Replies) for reply in message.replies]


def test_a_piece_reaches_its_caller_in_the_next_wake_and_the_request_stays_open() -> None:
    bench, batch = asked(1, 2)
    sends(bench, batch.id, 1, content_type="text/plain")
    assert all_replies(bench.wake()) == [
        Reply(2, OK, b"p", {"content_type": "text/plain", "version": "1", "more": 1})
    ]
    assert len(list(bench.scheduler.ledger)) == 2
    assert bench.outcomes == {}


def test_pieces_and_the_last_reply_keep_their_order_in_one_message() -> None:
    bench, batch = asked(1)
    sends(bench, batch.id, 0, b"a")
    sends(bench, batch.id, 0, b"b")
    bench.answers("w", batch)
    sends(bench, batch.id, 0, b"late")
    assert contents(all_replies(bench.wake())) == [
        (1, b"a", True),
        (1, b"b", True),
        (1, b"answer to t1", False),
    ]
    assert bench.outcomes == {"ok": 1}


def test_who_takes_no_pieces_gets_none() -> None:
    bench, batch = asked(1, options={})
    sends(bench, batch.id, 0)
    assert all_replies(bench.wake()) == []


@pytest.mark.parametrize(("batch", "place"), [(0, 1), (0, 65536), (1, 0)])
def test_pieces_of_what_the_worker_does_not_hold_are_dropped(batch: int, place: int) -> None:
    bench, sent = asked(1)
    sends(bench, sent.id + batch, place)
    assert all_replies(bench.wake()) == []


def test_a_worker_cannot_send_pieces_of_another_ones_batch() -> None:
    bench, batch = asked(1)
    bench.host("other")
    sends(bench, batch.id, 0, worker="other")
    sends(bench, batch.id, 0, worker="stranger")
    assert all_replies(bench.wake()) == []


def test_pieces_of_a_cancelled_request_are_dropped() -> None:
    bench, batch = asked(1)
    sends(bench, batch.id, 0)
    bench.wake()
    bench.cancel(1)
    sends(bench, batch.id, 0)
    bench.answers("w", batch)
    assert all_replies(bench.wake()) == []


def test_a_request_that_has_begun_is_not_tried_again() -> None:
    bench, batch = asked(1, 2)
    sends(bench, batch.id, 0)
    bench.wake()
    bench.handle(WorkerGone(b"w", "killed", True))
    (reply,) = all_replies(bench.wake())
    assert (reply.id, reply.code) == (1, WorkerLost.code)
    assert "after the reply had begun" in str(reply.content)
    assert bench.outcomes == {"WorkerLost": 1}
    bench.join("other", copy())
    assert bench.wake().riders == [("other", [b"t2"])], "the other one runs again"


def test_the_attempt_is_said_with_pieces_and_with_the_last() -> None:
    bench, batch = asked(1, attempt=2)
    sends(bench, batch.id, 0)
    bench.answers("w", batch)
    assert [reply.meta["attempt"] for reply in all_replies(bench.wake())] == [2, 2]


def test_the_attempt_is_not_said_to_others() -> None:
    bench, batch = asked(1, attempt=2, options={})
    bench.answers("w", batch)
    assert all_replies(bench.wake()) == [Reply(1, OK, b"answer to t1", {"version": "1"})]


def test_the_deadline_is_for_the_whole_reply() -> None:
    bench, batch = asked(1, timeout_s=1.0)
    replies: list[Reply] = []
    for _ in range(12):
        sends(bench, batch.id, 0)
        replies += all_replies(bench.live(0.1, ["w"]))
    assert [reply.code for reply in replies[-2:]] == [OK, DeadlineExceeded.code]


def test_pieces_renew_the_lease_of_a_batch_that_somebody_waits_for() -> None:
    bench, batch = asked(1, response_timeout_s=1.0)
    for _ in range(5):
        bench.live(0.6, ["w"])
        sends(bench, batch.id, 0)
    assert not bench.live(0.9, ["w"]).dismissed
    bench.cancel(1)
    dismissed: list[Any] = []
    for _ in range(3):
        sends(bench, batch.id, 0)
        dismissed += bench.live(0.1).dismissed
    assert dismissed == [("w", "batch not done in 1 s", 1)]


def test_a_result_in_parts_follows_its_pieces() -> None:
    bench, batch = asked(1, 2)
    sends(bench, batch.id, 1)
    bench.result("w", Result(batch.id, 10, [BatchReply(OK, b"one", {})], 0, 0))
    sends(bench, batch.id, 1)
    bench.result("w", Result(batch.id, 10, [BatchReply(OK, b"two", {})], 1, 1))
    assert contents(all_replies(bench.wake())) == [
        (2, b"p", True), (1, b"one", False), (2, b"p", True), (2, b"two", False),
    ]  # fmt: skip


# ---- a caller that does not read


def ledger() -> Ledger:
    return Ledger({("m", "1"): ModelStats()})


def advanced(book: Ledger, request: Any, pieces: int) -> None:
    half = BatchReply(OK, bytes(WAITING_BYTES_MAX // 2 - FRAMING_BYTES), {"more": 1})
    for _ in range(pieces):
        book.advance(request, half, 1.0)


def test_a_caller_that_does_not_read_its_pieces_gets_an_error() -> None:
    book, request, other = ledger(), open_request(7), open_request(7, caller=b"other")
    book.open(request)
    book.open(other)
    advanced(book, request, 2)
    advanced(book, other, 2)
    assert request.open and request.begun
    advanced(book, request, 1)
    assert not request.open and other.open
    assert [reply.code for reply in book.take_replies()[b"c"]] == [OK, OK, QueueFull.code]


def test_a_caller_that_pings_may_be_sent_any_number() -> None:
    bench, batch = asked(1)
    for _ in range(6):
        for _ in range(2):
            sends(bench, batch.id, 0, bytes(WAITING_BYTES_MAX // 3))
        bench.says("c", Ping())
        assert {reply.code for reply in all_replies(bench.wake())} == {OK}


def test_nothing_is_remembered_of_callers_that_have_nothing_open() -> None:
    book, request = ledger(), open_request(7)
    book.open(request)
    advanced(book, request, 2)
    book.settle(request, BatchReply(OK, b"", {}), now=1.0)
    assert not book._unread
    request = open_request(8)
    book.open(request)
    advanced(book, request, 2)
    assert request.open
    book.forget(b"c")
    assert not book._unread and not book.replies


def test_one_that_is_sent_again_is_answered_as_the_attempt_that_its_caller_waits_for() -> None:
    bench, batch = asked(1)
    bench.ask(1, options=TAKES, attempt=1)
    assert bench.wake().batches == []
    sends(bench, batch.id, 0)
    bench.answers("w", batch)
    assert [reply.meta["attempt"] for reply in all_replies(bench.wake())] == [1, 1]


def test_one_that_is_sent_again_after_its_reply_had_begun_is_not_begun_anew() -> None:
    bench, batch = asked(1)
    sends(bench, batch.id, 0)
    bench.wake()
    bench.ask(1, options=TAKES, attempt=1)
    [reply] = all_replies(bench.wake())
    assert reply.code == WorkerLost.code
    sends(bench, batch.id, 0)
    bench.answers("w", batch)
    assert all_replies(bench.wake()) == []
