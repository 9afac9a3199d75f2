"""Batches for other hosts: what lies in real segments goes into messages, and what is wrong fails alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from headway import shm
from headway.errors import InvalidInput, TooLarge
from headway.messages import Batch, BatchRequest, Ping, Request, Requests
from headway.shm import HEADER_BYTES, Segment
from headway.slots import Slot
from headway_broker import inlining
from headway_broker.inlining import Inlined, Inliner, from_elsewhere


class Caller:
    """A segment, and requests that refer to it."""

    def __init__(self, folder: Path) -> None:
        self.segment = Segment(folder, 1 << 20)
        self.slots: list[Slot] = []

    def request(self, data: bytes, start: int = 0, **options: Any) -> BatchRequest:
        slot = self.segment.take(start + len(data))
        assert slot
        self.slots.append(slot)
        first = HEADER_BYTES + start
        self.segment.view(slot)[first : first + len(data)] = data
        ref = [self.segment.name, slot.offset, slot.generation]
        options |= {"slot": [*ref, first, len(data)], "reply_slot": [*ref, 100]}
        return BatchRequest(1000, 0, options, b"")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / shm.FOLDER


@pytest.fixture
def caller(folder: Path) -> Iterator[Caller]:
    made = Caller(folder)
    yield made
    made.segment.close()


@pytest.fixture
def inliner(folder: Path) -> Iterator[Inliner]:
    made = Inliner(folder)
    yield made
    made.close()


def inline(data: bytes, **options: Any) -> BatchRequest:
    return BatchRequest(1000, 0, options, data)


def batch(*requests: BatchRequest, id: int = 7) -> Batch:
    return Batch(id, "m", "1", 60_000, list(requests))


def sent(inlined: Inlined) -> list[Batch]:
    return [batch for message in inlined.messages for batch in message.batches]


def test_what_lies_in_slots_travels_inside_and_in_its_place(inliner: Inliner, caller: Caller) -> None:
    requests = [caller.request(b"one", form="body"), inline(b"two"), caller.request(b"three", start=128)]
    got = inliner.outgoing([batch(*requests)])
    assert got.results == []
    [out] = sent(got)
    assert out == batch(inline(b"one", form="body"), inline(b"two"), inline(b"three"))


def test_what_is_sent_is_a_copy(inliner: Inliner, caller: Caller) -> None:
    [out] = sent(inliner.outgoing([batch(caller.request(b"before"))]))
    caller.segment.view(caller.slots[0])[HEADER_BYTES : HEADER_BYTES + 6] = b"after!"
    assert out.requests[0].tensors == b"before"


def test_a_batch_without_references_is_left_as_it_is(inliner: Inliner) -> None:
    whole = batch(inline(b"x", form="body"))
    assert sent(inliner.outgoing([whole]))[0] is whole


def test_a_reply_slot_alone_is_taken_away_too(inliner: Inliner) -> None:
    [out] = sent(inliner.outgoing([batch(inline(b"x", reply_slot=["1-0123456789abcdef.seg", 0, 1, 9]))]))
    assert out == batch(inline(b"x"))


WRONG: list[Any] = [
    "nonsense",
    ["1-0123456789abcdef.seg", 0, 1, 64, 10],
    ["../../etc/passwd", 0, 1, 64, 10],
]


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_reference_is_answered_for_the_worker_and_the_others_go_on(
    inliner: Inliner, caller: Caller, wrong: Any
) -> None:
    got = inliner.outgoing([batch(caller.request(b"a"), inline(b"", slot=wrong), caller.request(b"c"))])
    [out] = sent(got)
    assert [request.tensors for request in out.requests] == [b"a", b"", b"c"]
    assert all(request.options == {} for request in out.requests)
    [result] = got.results
    assert (result.batch, result.first, result.done) == (7, 1, 0)
    assert [reply.code for reply in result.replies] == [InvalidInput.code]
    assert "shared memory" in str(result.replies[0].content)


def test_a_stale_reference_is_refused_and_a_batch_with_nothing_left_is_done(
    inliner: Inliner, caller: Caller
) -> None:
    requests = [caller.request(b"a"), caller.request(b"b")]
    for slot in caller.slots:
        caller.segment.free(slot)
    got = inliner.outgoing([batch(*requests), batch(inline(b"x"), id=8)])
    assert [out.id for out in sent(got)] == [8]
    assert [(r.batch, r.first, r.done) for r in got.results] == [(7, 0, 0), (7, 1, 1)]


def test_what_makes_a_batch_larger_than_a_message_is_refused_and_the_rest_goes(
    inliner: Inliner, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inlining, "BATCH_BYTES_MAX", 700)
    requests = [caller.request(bytes(size)) for size in (300, 400, 200)]
    got = inliner.outgoing([batch(*requests)])
    assert [len(request.tensors) for request in sent(got)[0].requests] == [300, 0, 200]
    [result] = got.results
    assert (result.first, result.replies[0].code) == (1, TooLarge.code)
    assert "700" in str(result.replies[0].content)


def test_batches_that_are_large_now_leave_in_messages_of_their_own(
    inliner: Inliner, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headway.parts.PART_BYTES_MAX", 500)
    monkeypatch.setattr(inlining.parts, "__defaults__", (500,))
    got = inliner.outgoing([batch(caller.request(bytes(400)), id=id) for id in (1, 2)])
    assert [[b.id for b in message.batches] for message in got.messages] == [[1], [2]]


def test_segments_of_callers_that_are_gone_are_let_go(inliner: Inliner, caller: Caller) -> None:
    inliner.outgoing([batch(caller.request(b"a"))])
    assert len(inliner._mapped) == 1
    caller.segment.close()
    inliner.tidy()
    assert len(inliner._mapped) == 0


def test_a_caller_elsewhere_has_no_references_to_memory_here() -> None:
    theirs = Request(1, "m", "", 1000, 0, 0, {"slot": [], "reply_slot": [], "form": "body"}, b"x")
    plain = Request(2, "m", "", 1000, 0, 0, {}, b"y")
    message = from_elsewhere(Requests([theirs, plain]))
    assert isinstance(message, Requests)
    assert [request.options for request in message.requests] == [{"form": "body"}, {}]
    assert [request.tensors for request in message.requests] == [b"x", b"y"]
    for same in (Requests([plain]), Ping()):
        assert from_elsewhere(same) is same
