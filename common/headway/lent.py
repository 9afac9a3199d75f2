"""A caller's shared memory: the slots that it lends to workers, one segment of them.

Knows: when there is room, which call lent which slots, how large a model's replies are.
Must not know: files and mappings (`shm`), when a call lets go of its slots (`calls`).

How it works. A slot is taken from any thread, and belongs to a `Lent`. It is free again when nothing
refers to that any more: not the call that it was lent for (`keep` until `release`), and no array that the
user was given. The segment is made at its first use, and where it cannot be made, or has no room, tensors
travel inside messages. A reply slot is reserved when the model's replies so far were large.

Invariant: `__del__` only notes; what it noted is freed under the lock, since it may run at any time in any
thread, one that holds the lock included.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from headway import logs
from headway.errors import QueueFull, RemoteProtocolError
from headway.messages import Reply
from headway.refs import SLOT
from headway.shm import HEADER_BYTES, Segment, folder_of, sweep
from headway.slots import Slot
from headway.tensors import Array, Buffer, Part, dtype_of, frame_of, size_of, write_pieces

_log = logs.get("headway.client")
# PERF: one at a time through the broker, in us, inline and in a slot (benchmarks/slots.py, two cores): 16 KiB
# 1209 and 1312, 64 KiB 1253 and 1180, 128 KiB 1445 and 1211, 602,112 bytes 2491 and 1373, 5 MiB 28 and 3 ms.
# Where they cross, the noise is larger than the difference.
SHM_BYTES_MIN = 65536
RETRY_S = 10.0
REFUSED_S = 0.1  # when to come again
HEAD_BYTES = 2048 - HEADER_BYTES  # room for the packed header in front of an array
TAIL_BYTES_MAX = 15


class Lent:
    """A slot, for as long as anything refers to this object."""

    __slots__ = ("_returned", "segment", "slot")

    def __init__(self, segment: Segment, slot: Slot, returned: deque[tuple[Segment, Slot]]) -> None:
        self.segment = segment
        self.slot = slot
        self._returned = returned

    def __del__(self) -> None:
        self._returned.append((self.segment, self.slot))

    @property
    def data(self) -> memoryview:
        """What may be written, after the header."""
        return self.segment.view(self.slot)[HEADER_BYTES:]

    def request_ref(self, start: int, length: int) -> list[Any]:
        """For a request whose tensors are `length` bytes of `data` from `start`."""
        return [*self._ref(), HEADER_BYTES + start, length]

    def reply_ref(self) -> list[Any]:
        """For a request whose reply may be written to `data`."""
        return [*self._ref(), self.slot.length - HEADER_BYTES]

    def _ref(self) -> list[Any]:
        return [self.segment.name, self.slot.offset, self.slot.generation]


class _Home:
    """What an array in a slot refers to, and views on it too, which keeps the slot."""

    def __init__(self, lent: Lent, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.lent = lent
        self.nbytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        self.address = lent.segment.address + lent.slot.offset + HEADER_BYTES + HEAD_BYTES
        self.head = b""
        plain = np.dtype(f"V{dtype.itemsize}")  # any dtype, bfloat16 included, by its size
        self.__array_interface__ = {
            "version": 3,
            "shape": shape,
            "typestr": plain.str,
            "data": (self.address, False),
        }

    def framed(self, head: bytes, tail: bytes) -> tuple[Lent, list[Any]] | None:
        """The slot and the reference to it with this head written in front of the array, once: an earlier
        request with another head may be on its way, and then the array is copied like any other."""
        if len(head) > HEAD_BYTES or self.head not in (b"", head):
            return None
        self.head = head
        return _framed(self.lent, HEAD_BYTES, self.nbytes, head, tail)


class Received:
    """Bytes that are received into a slot, `length` of them, with room before and after them to make them
    packed tensors where they lie. `view` is where they go."""

    def __init__(self, lent: Lent, start: int, length: int) -> None:
        self.lent = lent
        self._start = start
        self.view = lent.data[start : start + length]

    def framed(self, parts: list[Part]) -> tuple[Lent, list[Any]] | None:
        """The slot and the reference to it, when the parts are one, and its data lies here. What was received
        before that data is overwritten."""
        if len(parts) != 1:
            return None
        name, dtype, shape, data = parts[0]
        if not isinstance(data, memoryview) or not len(data):
            return None
        offset = _address(data) - _address(self.view)
        if not 0 <= offset <= len(self.view) - len(data):
            return None
        return _framed(self.lent, self._start + offset, len(data), *frame_of(name, dtype, shape, len(data)))


def _framed(lent: Lent, start: int, length: int, head: bytes, tail: bytes) -> tuple[Lent, list[Any]] | None:
    """Head and tail written around the data; None when the head has no room."""
    first, end = start - len(head), start + length
    if first < 0:
        return None
    data = lent.data
    data[first:start] = head
    data[end : end + len(tail)] = tail
    return lent, lent.request_ref(first, end + len(tail) - first)


def _address(data: memoryview) -> int:
    address: int = np.frombuffer(data, np.uint8).__array_interface__["data"][0]  # `.ctypes` takes 2 us more
    return address


class Lender:
    """One caller's shared memory, `size` bytes of it; for any thread. `size` 0, or an address that is not on
    this host: none. When all of it is taken, tensors go inside messages, or, if it `refuses`, their request
    is refused: who must not load the broker with them asks again later."""

    def __init__(
        self, address: str, size: int, bytes_min: int = SHM_BYTES_MIN, refuses: bool = False
    ) -> None:
        self.bytes_min = bytes_min
        self._refuses = refuses
        self._folder = folder_of(address) if size > 0 else None
        self._size = size
        self._segment: Segment | None = None
        self._retry_at = 0.0
        self._said = False
        self._lock = threading.Lock()
        self._returned: deque[tuple[Segment, Slot]] = deque()
        self._kept: dict[int, tuple[Lent, ...]] = {}  # by call
        self.reply_bytes: dict[tuple[str, str], int] = {}  # by model and version, where it is large

    @property
    def taken(self) -> int:
        """How many slots are taken."""
        with self._lock:
            self._free_returned()
            return self._segment.taken if self._segment else 0

    def take(self, length: int) -> Lent | None:
        """A slot for `length` bytes. None: there is no room, so send it inline."""
        if self._folder is None or length < self.bytes_min or length > self._size:
            return None
        with self._lock:
            self._free_returned()
            segment = self._made() if self._segment is None else self._segment
            if segment is None or not segment.is_ours:
                return None
            slot = segment.take(length)
        return Lent(segment, slot, self._returned) if slot else None

    def empty(self, shape: Sequence[int] | int, dtype: npt.DTypeLike) -> Array:
        """An array whose bytes a worker can read where they are; an ordinary one when there is no room."""
        wanted = np.dtype(dtype)
        sizes = (shape,) if isinstance(shape, int) else tuple(shape)
        plain: Array = np.empty(sizes, wanted)  # raises for what is no shape; its pages are never touched
        lent = None if wanted.hasobject else self.take(HEAD_BYTES + plain.nbytes + TAIL_BYTES_MAX)
        if lent is None:
            return plain
        return np.asarray(_Home(lent, sizes, wanted)).view(wanted).reshape(sizes)

    def in_place(self, tensors: dict[str, Array]) -> tuple[Lent, list[Any]] | None:
        """The slot, and the reference for it, when the tensors are one array that `empty` made."""
        if len(tensors) != 1:
            return None
        ((name, array),) = tensors.items()
        home: Any = array.base
        while isinstance(home, np.ndarray):
            home = home.base
        if not isinstance(home, _Home) or not array.flags.c_contiguous or array.nbytes != home.nbytes:
            return None
        if home.lent.segment is not self._segment or array.ctypes.data != home.address:
            return None
        head, tail = frame_of(name, dtype_of(array), array.shape, home.nbytes)
        return home.framed(head, tail)

    def receive(self, length: int, before: int) -> Received | None:
        """Room for `length` bytes that are to come, the first `before` of them no tensor's. None: there is no
        room, or it is not worth it. Raises: QueueFull, as `place`."""
        start = HEAD_BYTES + -before % HEADER_BYTES  # so that the tensor's data is aligned
        lent = self._placed(start + length + TAIL_BYTES_MAX) if length >= self.bytes_min else None
        return Received(lent, start, length) if lent else None

    def place(self, pieces: list[Buffer]) -> tuple[Lent, list[Any]] | None:
        """Packed tensors written into a slot, and the reference to it. None: there is no room.

        Raises: QueueFull, if it refuses, for want of room."""
        size = size_of(pieces)
        lent = self._placed(size)
        if lent is None:
            return None
        write_pieces(pieces, lent.data)
        return lent, lent.request_ref(0, size)

    def _placed(self, length: int) -> Lent | None:
        """A slot for a request. Raises: QueueFull when there is no room and that is the way to say so."""
        lent = self.take(length)
        may_fit = self.bytes_min <= length <= self._size - HEADER_BYTES
        if lent is None and self._refuses and self._segment and may_fit:
            raise QueueFull(f"no room for {length} bytes in {self._size} of shared memory", REFUSED_S)
        return lent

    def reply_room(self, model: str, version: str) -> Lent | None:
        """A slot for a reply as large as the model's largest so far; None where that was small."""
        most = self.reply_bytes.get((model, version), 0)
        return self.take((1 << (most + HEADER_BYTES - 1).bit_length()) - HEADER_BYTES) if most else None

    def keep(self, id: int, lent: tuple[Lent, ...]) -> None:
        """The slots are lent for this call, the last one for its reply if it has a reply slot."""
        if lent:
            self._kept[id] = lent

    def release(self, id: int) -> None:
        """No worker touches the slots of this call any more."""
        self._kept.pop(id, None)

    def outcome(self, id: int, outcome: Any, model: tuple[str, str]) -> Any:
        """What comes of a call to a model: a reply as `received` has it, or the error; any other as it is."""
        if not isinstance(outcome, Reply):
            return outcome
        try:
            return self.received(id, outcome, model)
        except RemoteProtocolError as error:
            return error

    def received(self, id: int, reply: Reply, model: tuple[str, str] | None = None) -> Reply:
        """The reply with its content, copied out of its slot. Notes how large the replies of `model` are, a
        name and a version. Raises: RemoteProtocolError."""
        if SLOT in reply.meta:
            meta = dict(reply.meta)
            reply = reply._replace(content=self._copied(id, meta.pop(SLOT)), meta=meta)
        if model and len(reply.content) >= self.bytes_min:
            self.reply_bytes[model] = max(len(reply.content), self.reply_bytes.get(model, 0))
        return reply

    def _copied(self, id: int, length: Any) -> bytes:
        room = self._kept[id][-1].data if id in self._kept else memoryview(b"")
        if type(length) is not int or not 0 <= length <= len(room):
            raise RemoteProtocolError(f"a reply in a slot of {len(room)} bytes says it has {length!r:.20}")
        return bytes(room[:length])

    def close(self) -> None:
        """Remove the segment. Arrays in it stay valid; a later `take` makes another one."""
        with self._lock:
            segment, self._segment = self._segment, None
        self._kept.clear()
        if segment:
            segment.close()

    def _made(self) -> Segment | None:
        now = time.monotonic()
        if now < self._retry_at or self._folder is None:
            return None
        try:
            sweep(self._folder)
            self._segment = Segment(self._folder, self._size)
        except OSError as error:
            self._retry_at = now + RETRY_S
            if not self._said:
                self._said = True
                _log.warning("no shared memory, tensors travel in messages", reason=str(error))
        return self._segment

    def _free_returned(self) -> None:
        while self._returned:
            segment, slot = self._returned.popleft()
            segment.free(slot)
