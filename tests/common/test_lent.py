"""headway.lent: slots are taken, lent, and come back when nothing refers to them any more."""

from __future__ import annotations

import gc
import threading

import ml_dtypes
import numpy as np
import pytest

from headway import shm
from headway.errors import QueueFull, RemoteProtocolError
from headway.lent import SHM_BYTES_MIN, Lender
from headway.messages import Reply
from headway.outgoing import Asked, ask_body, ask_parts, ask_tensors, with_reply_room
from headway.shm import Mapped
from headway.tensors import BY_NAME, pack, pieces_of, unpack

LARGE = 1 << 17


@pytest.fixture
def lender(tmp_path):
    lender = Lender(f"ipc://{tmp_path}/broker.sock", 1 << 21)
    yield lender
    lender.close()


@pytest.fixture
def mapped(tmp_path):
    mapped = Mapped(tmp_path / "segments")
    yield mapped
    mapped.close()


def image(value=1, dtype=np.uint8):
    return np.full(LARGE // np.dtype(dtype).itemsize, value, dtype)


def test_large_tensors_are_packed_into_a_slot_and_small_ones_inline(lender, mapped):
    asked = ask_tensors("m", {"x": image(3)}, lender=lender)
    assert asked.tensors == b"" and len(asked.lent) == 1
    assert (unpack(mapped.request(asked.options["slot"]))["x"] == 3).all()
    small = ask_tensors("m", {"x": np.ones(10)}, lender=lender)
    assert (small.options, small.lent) == ({}, ()) and small.tensors


def test_what_is_packed_in_a_slot_is_what_pack_makes(lender, mapped):
    tensors = {"x": image(), "s": np.array([b"a", b"bc"], object), "y": np.float32(1)}
    asked = ask_tensors("m", tensors, lender=lender)
    assert mapped.request(asked.options["slot"]) == pack({n: np.asarray(t) for n, t in tensors.items()})


def test_a_large_body_is_packed_into_a_slot(lender, mapped):
    asked = ask_body("m", bytes(LARGE), lender=lender)
    assert unpack(mapped.request(asked.options["slot"]))["body"].nbytes == LARGE
    assert asked.options["form"] == "body"


def test_a_slot_comes_back_when_its_call_is_released_and_not_before(lender):
    asked = ask_tensors("m", {"x": image()}, lender=lender)
    lender.keep(1, asked.lent)
    del asked
    assert lender.taken == 1
    lender.release(1)
    lender.release(1)
    assert lender.taken == 0


def test_a_full_segment_means_inline_and_nothing_waits(lender):
    all_asked = [ask_tensors("m", {"x": image()}, lender=lender) for _ in range(20)]
    inline = [asked for asked in all_asked if asked.tensors]
    assert 0 < len(inline) < 20
    assert all(asked.tensors == pack({"x": image()}) for asked in inline)
    del all_asked, inline
    assert lender.taken == 0


def test_a_full_segment_refuses_where_it_is_told_to_and_takes_again_when_there_is_room(tmp_path):
    lender = Lender(f"ipc://{tmp_path}/broker.sock", 1 << 21, refuses=True)
    all_asked = []
    with pytest.raises(QueueFull, match=r"no room for .* bytes in 2097152 of shared memory") as refused:
        for _ in range(20):
            all_asked.append(ask_tensors("m", {"x": image()}, lender=lender))
    assert refused.value.retry_after_s and all_asked and not any(a.tensors for a in all_asked)
    with pytest.raises(QueueFull):
        lender.receive(1 << 20, 0)
    assert lender.reply_room("m", "") is None  # a reply can always go inline
    assert lender.empty(LARGE, np.uint8).nbytes == LARGE
    assert ask_tensors("m", {"x": np.ones(4)}, lender=lender).tensors  # small ones need no room
    assert ask_tensors("m", {"x": np.ones(1 << 22, np.uint8)}, lender=lender).tensors  # never fits
    del all_asked, refused
    assert ask_tensors("m", {"x": image()}, lender=lender).lent
    lender.close()


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "ipc://@abstract", "ipc:///none/such/broker.sock"])
def test_where_nothing_is_shared_tensors_travel_inline(address):
    lender = Lender(address, 1 << 20)
    assert ask_tensors("m", {"x": image()}, lender=lender).tensors
    assert lender.empty(LARGE, np.uint8).nbytes == LARGE


def test_size_zero_turns_it_off(tmp_path):
    lender = Lender(f"ipc://{tmp_path}/broker.sock", 0)
    assert ask_tensors("m", {"x": image()}, lender=lender).tensors
    assert not (tmp_path / "segments").exists()


def test_a_tmpfs_that_is_full_means_inline_and_is_said_once(tmp_path, monkeypatch, caplog):
    def full(*_):
        raise OSError(28, "No space left on device")

    lender = Lender(f"ipc://{tmp_path}/broker.sock", 1 << 20)
    monkeypatch.setattr(shm.os, "posix_fallocate", full)
    monkeypatch.setattr("headway.lent.RETRY_S", 0.0)
    with caplog.at_level("WARNING", "headway.client"):
        for _ in range(3):
            assert ask_tensors("m", {"x": image()}, lender=lender).tensors
    assert len(caplog.records) == 1
    assert list((tmp_path / "segments").iterdir()) == []
    monkeypatch.undo()
    monkeypatch.setattr("headway.lent.RETRY_S", 0.0)
    lender._retry_at = 0.0
    assert ask_tensors("m", {"x": image()}, lender=lender).lent


# ---- empty ----


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64, np.bool_, ml_dtypes.bfloat16, np.int64])
def test_an_array_made_in_a_slot_is_sent_without_a_copy(lender, mapped, dtype):
    x = lender.empty((2, LARGE // 2), dtype)
    assert (x.shape, x.dtype) == ((2, LARGE // 2), np.dtype(dtype))
    x[:] = 1
    asked = ask_tensors("m", {"x": x}, lender=lender)
    assert lender.taken == 1
    seen = unpack(mapped.request(asked.options["slot"]))["x"]
    assert seen.dtype == x.dtype and np.array_equal(seen, x)
    x[0, 0] = 0
    assert seen[0, 0] == 0, "it is the same memory"


def test_an_odd_number_of_bytes_is_padded(lender, mapped):
    x = lender.empty(LARGE + 3, np.uint8)
    asked = ask_tensors("m", {"x": x}, lender=lender)
    assert asked.lent[0] is ask_tensors("m", {"x": x}, lender=lender).lent[0]
    assert mapped.request(asked.options["slot"]) == pack({"x": x})


def test_the_slot_of_an_array_lives_as_long_as_any_view_on_it_or_a_request(lender):
    x = lender.empty(LARGE, np.uint8)
    view = x[5:].reshape(-1)[1:]
    asked = ask_tensors("m", {"x": x}, lender=lender)
    lender.keep(1, asked.lent)
    del x, asked
    gc.collect()
    assert lender.taken == 1
    lender.release(1)
    assert lender.taken == 1
    del view
    gc.collect()
    assert lender.taken == 0


def test_views_other_names_and_several_inputs_are_copied_like_any_other_array(lender, mapped):
    x = lender.empty(2 * LARGE, np.uint8)
    x[:] = 7
    first = ask_tensors("m", {"x": x}, lender=lender)
    for inputs in ({"y": x}, {"x": x[:-1]}, {"x": x[::2]}, {"x": x, "y": x}, {"x": x.view(np.int8)}):
        asked = ask_tensors("m", inputs, lender=lender)
        assert asked.lent and asked.lent[0] is not first.lent[0]
        seen = unpack(mapped.request(asked.options["slot"]))
        assert all(np.array_equal(seen[name], array) for name, array in inputs.items())
    assert (unpack(mapped.request(first.options["slot"]))["x"] == 7).all()


def test_an_array_of_another_client_is_copied(lender, tmp_path):
    other = Lender(f"ipc://{tmp_path}/broker.sock", 1 << 20)
    x = other.empty(LARGE, np.uint8)
    asked = ask_tensors("m", {"x": x}, lender=lender)
    assert asked.lent[0].segment is not other._segment
    other.close()
    x[:] = 1  # still memory


@pytest.mark.parametrize(
    ("shape", "dtype"), [((), np.float32), (0, np.uint8), ((3, 0), np.int64), (9, object)]
)
def test_small_arrays_and_objects_are_ordinary(lender, shape, dtype):
    array = lender.empty(shape, dtype)
    assert array.dtype == np.dtype(dtype) and array.flags.owndata


def test_closing_leaves_arrays_valid_and_removes_the_file(lender, tmp_path):
    x = lender.empty(LARGE, np.uint8)
    lender.close()
    x[:] = 9
    assert x.sum() == 9 * LARGE
    assert list((tmp_path / "segments").iterdir()) == []


# ---- replies ----


def test_a_reply_slot_is_reserved_once_replies_are_known_to_be_large(lender):
    asked = Asked("m", "", 0, {}, b"")
    assert with_reply_room(asked, lender) is asked
    lender.received(1, Reply(1, 0, bytes(SHM_BYTES_MIN - 1), {}), ("m", ""))
    assert with_reply_room(asked, lender) is asked
    lender.received(1, Reply(1, 0, bytes(LARGE), {}), ("m", ""))
    assert with_reply_room(asked._replace(model="other"), lender).lent == ()
    _, _, _, length = with_reply_room(asked, lender).options["reply_slot"]
    assert length >= LARGE


def test_a_reply_is_copied_out_of_its_slot(lender, mapped):
    lender.received(1, Reply(1, 0, bytes(LARGE), {}), ("m", ""))
    asked = with_reply_room(Asked("m", "", 0, {}, b""), lender)
    lender.keep(1, asked.lent)
    mapped.write_reply(asked.options["reply_slot"], lambda room: room.__setitem__(slice(0, 5), b"reply"))
    reply = lender.received(1, Reply(1, 0, b"", {"slot": 5}))
    lender.release(1)
    assert reply.content == b"reply"


@pytest.mark.parametrize("length", [-1, LARGE * 2, "5", True, None])
def test_a_reply_that_lies_about_its_slot_is_refused(lender, length):
    lender.received(1, Reply(1, 0, bytes(LARGE), {}), ("m", ""))
    lender.keep(1, with_reply_room(Asked("m", "", 0, {}, b""), lender).lent)
    with pytest.raises(RemoteProtocolError):
        lender.received(1, Reply(1, 0, b"", {"slot": length}))
    with pytest.raises(RemoteProtocolError):
        lender.received(2, Reply(2, 0, b"", {"slot": 5}))


# ---- received ----


@pytest.mark.parametrize("before", [0, 1, 63, 64, 100])
@pytest.mark.parametrize("size", [LARGE, LARGE + 1])
def test_what_was_received_becomes_packed_tensors_where_it_lies(lender, mapped, before, size):
    received = lender.receive(before + size, before)
    received.view[:] = bytes(before) + b"\x05" * size
    part = ("x", BY_NAME["uint8"], (1, size), received.view[before:])
    asked = ask_parts(Asked("m", "", 1, {"k": 1}, b""), [part], lender, received)
    assert asked.lent[0] is received.lent and asked.options["k"] == 1
    seen = unpack(mapped.request(asked.options["slot"]))["x"]
    assert seen.shape == (1, size) and (seen == 5).all()
    assert seen.ctypes.data % 16 == 0


def test_several_tensors_that_were_received_are_copied(lender, mapped):
    received = lender.receive(2 * LARGE, 0)
    received.view[:] = bytes(2 * LARGE)
    uint8 = BY_NAME["uint8"]
    parts = [("a", uint8, (LARGE,), received.view[:LARGE]), ("b", uint8, (LARGE,), received.view[LARGE:])]
    asked = ask_parts(Asked("m", "", 0, {}, b""), parts, lender, received)
    assert asked.lent[0] is not received.lent
    assert list(unpack(mapped.request(asked.options["slot"]))) == ["a", "b"]


def test_small_bodies_are_not_received_into_slots(lender):
    assert lender.receive(SHM_BYTES_MIN - 1, 0) is None


# ---- threads ----


def test_many_threads_take_and_drop_slots(lender):
    def work():
        for i in range(200):
            pieces = pieces_of({"x": image(i % 100)})
            placed = lender.place(pieces)
            if placed:
                found = placed[0].data[-100:]
                assert bytes(found) == bytes([i % 100]) * 100

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert lender.taken == 0
    lender._segment._slots.check()
