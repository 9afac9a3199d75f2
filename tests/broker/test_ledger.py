"""The ledger: one outcome for each request."""

from __future__ import annotations

from headway.errors import InternalError, QueueFull, UnknownModel, WorkerLost
from headway.messages import OK, BatchReply
from headway_broker.ledger import Ledger, name_of, reply_of
from headway_broker.stats import ModelStats
from tests.broker.bench import open_request

KEY = ("m", "1")


def ledger() -> Ledger:
    return Ledger({KEY: ModelStats()})


def test_a_request_is_open_until_it_is_settled_and_its_caller_gets_the_reply() -> None:
    book, request = ledger(), open_request(7)
    book.open(request)
    assert book.find(b"c", 7) is request and list(book) == [request] and book.of(b"c") == [request]
    book.settle(request, BatchReply(OK, b"answer", {"k": 1}), now=1.0)
    assert not request.open and request.tensors == b"" and not book.callers
    assert book.find(b"c", 7) is None and book.of(b"c") == []
    assert book.take_replies() == {b"c": [(7, OK, b"answer", {"k": 1})]}
    assert book.take_replies() == {}
    assert book.stats[KEY].outcomes == {"ok": 1}


def test_callers_with_the_same_ids_are_told_apart() -> None:
    book = ledger()
    one, other = open_request(1, caller=b"one"), open_request(1, caller=b"other")
    book.open(one)
    book.open(other)
    book.settle(one, BatchReply(OK, b"for one", {}), now=1.0)
    assert book.find(b"other", 1) is other
    assert list(book.take_replies()) == [b"one"]


def test_a_failure_is_counted_under_its_name() -> None:
    book, request = ledger(), open_request(1)
    book.open(request)
    book.fail(request, WorkerLost("gone"), now=1.0)
    assert book.stats[KEY].outcomes == {"WorkerLost": 1}
    assert book.take_replies()[b"c"][0] == (1, WorkerLost.code, "gone", {})


def test_a_cancelled_request_is_counted_and_not_answered() -> None:
    book, request = ledger(), open_request(1)
    book.open(request)
    book.cancel(request)
    assert not request.open and not book.callers and not book.take_replies()
    assert book.stats[KEY].outcomes == {"Cancelled": 1}


def test_a_refusal_is_counted_with_its_model_or_as_unknown() -> None:
    book = ledger()
    book.refuse(b"c", 1, KEY, QueueFull("full", retry_after_s=0.25))
    book.refuse(b"c", 2, ("nobody", ""), UnknownModel("no"))
    assert book.stats[KEY].outcomes == {"QueueFull": 1}
    assert book.unknown == {"UnknownModel": 1}
    assert [reply.meta for reply in book.take_replies()[b"c"]] == [{"retry_after_ms": 250}, {}]


def test_replies_for_a_caller_who_is_gone_are_dropped() -> None:
    book = ledger()
    book.refuse(b"c", 1, KEY, QueueFull("full"))
    book.forget(b"c")
    book.forget(b"never seen")
    assert not book.take_replies()


def test_a_code_from_a_newer_worker_has_a_name_in_the_counters() -> None:
    assert name_of(InternalError.code) == "InternalError"
    assert name_of(254) == "code 254"


def test_an_error_travels_as_its_code_and_text() -> None:
    assert reply_of(QueueFull("full")) == (QueueFull.code, "full", {})
