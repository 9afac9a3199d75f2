"""headway_worker.sharing: requests from slots, replies into slots, and what is refused alone."""

from __future__ import annotations

import numpy as np
import pytest

from headway.errors import InvalidInput
from headway.lent import Lender
from headway.messages import Reply
from headway.outgoing import Asked, ask_tensors, with_reply_room
from headway.tensors import pieces_of, unpack
from headway_worker.sharing import Sharing

X = np.arange(1 << 15, dtype=np.float32)


@pytest.fixture
def lender(tmp_path):
    lender = Lender(f"ipc://{tmp_path}/broker.sock", 1 << 22)
    lender.received(1, Reply(1, 0, bytes(1 << 18), {}), ("m", ""))
    yield lender
    lender.close()


@pytest.fixture
def sharing(tmp_path):
    return Sharing(tmp_path / "segments")


def test_tensors_are_read_where_they_are(lender, sharing):
    asked = ask_tensors("m", {"x": X}, lender=lender)
    seen = unpack(sharing.packed(asked.options, b""))["x"]
    assert np.array_equal(seen, X) and not seen.flags.writeable


def test_what_is_inline_stays_so(sharing):
    assert sharing.packed({}, b"inline") == b"inline"


def test_a_large_reply_goes_into_its_slot(lender, sharing):
    asked = with_reply_room(Asked("m", "", 0, {}, b""), lender)
    lender.keep(1, asked.lent)
    length = sharing.put(asked.options, pieces_of({"y": X}))
    reply = lender.received(1, Reply(1, 0, b"", {"slot": length}))
    assert np.array_equal(unpack(reply.content)["y"], X)


def test_replies_that_are_small_too_large_or_not_expected_go_inline(lender, sharing):
    asked = with_reply_room(Asked("m", "", 0, {}, b""), lender)
    assert sharing.put(asked.options, [b"small"]) is None
    assert sharing.put(asked.options, [bytes(1 << 20)]) is None
    assert sharing.put({}, [bytes(1 << 17)]) is None
    assert Sharing().put(asked.options, [bytes(1 << 17)]) is None


def test_a_reply_whose_request_was_given_up_goes_inline_and_touches_nothing(lender, sharing):
    options = with_reply_room(Asked("m", "", 0, {}, b""), lender).options
    again = lender.reply_room("m", "")  # the first one is free again, and taken by another request
    assert again.reply_ref()[1] == options["reply_slot"][1]
    again.data[:] = bytes(len(again.data))
    assert sharing.put(options, [b"x" * (1 << 17)]) is None
    assert not any(again.data)


def test_a_stale_reference_is_refused_and_counted(lender, sharing, caplog):
    options = ask_tensors("m", {"x": X}, lender=lender).options
    lender.take(1 << 17)  # notices that the slot came back
    with pytest.raises(InvalidInput, match="shared memory"):
        sharing.packed(options, b"")
    assert sharing.refused == 1
    assert "request refused, 1 so far" in caplog.text


def test_a_worker_without_shared_memory_says_so(lender):
    with pytest.raises(InvalidInput, match="shares none"):
        Sharing().packed(ask_tensors("m", {"x": X}, lender=lender).options, b"")


def test_segments_of_callers_that_are_gone_are_let_go(lender, sharing):
    sharing.packed(ask_tensors("m", {"x": X}, lender=lender).options, b"")
    assert len(sharing._mapped) == 1
    lender.close()
    sharing.tidy()
    assert len(sharing._mapped) == 0
