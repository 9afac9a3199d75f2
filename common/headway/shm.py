"""Shared memory: a segment as its owner has it, and as a worker maps it. The only place with mmap.

Knows: files on tmpfs, locks on them, mappings, the 64 bytes before each slot's data.
Must not know: requests, who may free a slot (`lent` for the owner, the broker for the workers).

A segment is a file `PID-NONCE.seg` in the folder `segments` of the run directory. Its owner, the caller,
holds a lock on it for as long as it lives; `sweep` removes those whose lock can be had. No name is used
twice. Space is taken with `posix_fallocate`: `ftruncate` succeeds on a full tmpfs, and a later write kills
the process with SIGBUS. (`multiprocessing.shared_memory` is not used: its tracker removes what others still
use.)

A slot starts with its generation, 8 bytes little-endian, and zero when the slot is free; its data starts
HEADER_BYTES after its offset. Whoever was given a slot gives its generation, and is refused when it is not
that slot's any more.

A worker trusts nothing that a reference says: the name must look like a segment's, it is opened relative
to the folder and never through a link, and bounds are checked against the file's size at that moment,
because reading a mapping beyond the end of its file is SIGBUS too.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import re
import secrets
import stat
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from headway.errors import InvalidInput
from headway.slots import BLOCK_BYTES_MIN, Slot, Slots

HEADER_BYTES = 64
FOLDER = "segments"
_NAME = re.compile(r"[0-9]{1,10}-[0-9a-f]{16}\.seg", re.ASCII)
_GENERATION = struct.Struct("<Q")
_TRIES = 10


def folder_of(address: str) -> Path | None:
    """Where the segments lie for those who meet at a broker's address; None when that is not one host's."""
    path = address.removeprefix("ipc://")
    return Path(path).parent / FOLDER if path != address and path.startswith("/") else None


class Segment:
    """A segment that this process owns, and its slots. `size` is rounded up to a power of two.

    Not for several threads at once. Raises: OSError when there is no folder, or no room for it.
    """

    def __init__(self, folder: Path, size: int) -> None:
        self.size = 1 << (max(size, BLOCK_BYTES_MIN) - 1).bit_length()
        folder.mkdir(mode=0o700, exist_ok=True)  # not its parents: without a run directory there is no broker
        self._pid = os.getpid()
        self._path, self._fd = _made(folder)
        try:
            os.posix_fallocate(self._fd, 0, self.size)
            self._map = mmap.mmap(self._fd, self.size, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE)
        except OSError:
            self.close()
            raise
        self._view = memoryview(self._map)
        self._slots = Slots(self.size)
        self.address = _address(self._map)

    @property
    def name(self) -> str:
        return self._path.name

    @property
    def taken(self) -> int:
        """How many slots are taken."""
        return len(self._slots)

    @property
    def is_ours(self) -> bool:
        """False in the child of a fork."""
        return os.getpid() == self._pid

    def take(self, length: int) -> Slot | None:
        """A slot with room for `length` bytes of data, or None when there is none."""
        slot = self._slots.take(HEADER_BYTES + length)
        if slot:
            _GENERATION.pack_into(self._map, slot.offset, slot.generation)
        return slot

    def free(self, slot: Slot) -> None:
        """Give a slot back; references to it are stale from here on. Raises: ValueError."""
        self._slots.free(slot)
        _GENERATION.pack_into(self._map, slot.offset, 0)

    def view(self, slot: Slot) -> memoryview:
        """All of a slot, its header included."""
        return self._view[slot.offset : slot.offset + slot.length]

    def close(self) -> None:
        """Remove the file; views stay valid, here and in workers, until they are dropped. In the child of a
        fork it does nothing: the segment is the parent's."""
        if self._fd >= 0 and self.is_ours:
            self._path.unlink(missing_ok=True)
            os.close(self._fd)
            self._fd = -1


def _address(mapping: mmap.mmap) -> int:
    address: int = np.frombuffer(mapping, np.uint8).ctypes.data
    return address


def _made(folder: Path) -> tuple[Path, int]:
    for _ in range(_TRIES):
        path = folder / f"{os.getpid()}-{secrets.token_hex(8)}.seg"
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        if _locked(fd) and os.fstat(fd).st_nlink:
            return path, fd
        os.close(fd)  # a sweep got hold of it between our open and our lock
    raise OSError(f"no segment could be kept in {folder}")


def _locked(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def sweep(folder: Path) -> int:
    """Remove the segments whose owners are gone, and nothing else; returns how many there were."""
    try:
        names = [entry.name for entry in os.scandir(folder) if _NAME.fullmatch(entry.name)]
    except OSError:
        return 0
    return sum(_swept(folder / name) for name in names)


def _swept(path: Path) -> bool:
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode) or not _locked(fd):
            return False
        path.unlink(missing_ok=True)
        return True
    finally:
        os.close(fd)


class Watch(Protocol):
    """Who wants to know which memory is mapped, such as a driver that reads it by itself. Must not raise."""

    def mapped(self, address: int, length: int) -> None:
        """From here on this memory is a segment's."""

    def unmapped(self, address: int) -> None:
        """Its owner is gone. It stays mapped while views on it are left, and nobody is told when it ends:
        whoever reads it without a view must have stopped when this returns."""


class Mapped:
    """Segments of others, as a worker has them: each is mapped once, at its first use.

    `refused` counts references that were none. Not for several threads at once.
    """

    def __init__(self, folder: Path, watch: Watch | None = None) -> None:
        self.refused = 0
        self._folder = folder
        self._watch = watch
        self._maps: dict[str, tuple[int, mmap.mmap]] = {}

    def __len__(self) -> int:
        """How many segments are mapped."""
        return len(self._maps)

    def request(self, ref: Any) -> memoryview:
        """The packed tensors that a request's `slot` names: a view, read-only. Raises: InvalidInput."""
        name, offset, generation, start, length = self._fields(ref, 5)
        if start < HEADER_BYTES:
            raise self._refusal(f"data starts {HEADER_BYTES} bytes into a slot, not {start}")
        return self._slot(name, offset, generation, start + length)[start:].toreadonly()

    def reply_length(self, ref: Any) -> int:
        """How many bytes the slot takes that a request reserved for its reply. Raises: InvalidInput."""
        length: int = self._fields(ref, 4)[3]
        return length

    def write_reply(self, ref: Any, write: Callable[[memoryview], None]) -> None:
        """Let `write` fill the slot that a request reserved for its reply, if it is still that request's.

        Raises: InvalidInput.
        """
        name, offset, generation, length = self._fields(ref, 4)
        write(self._slot(name, offset, generation, HEADER_BYTES + length)[HEADER_BYTES:])

    def tidy(self) -> None:
        """Let go of the segments whose owners have removed them, or are gone."""
        for name, (fd, _) in list(self._maps.items()):
            if not os.fstat(fd).st_nlink:
                self._let_go(name)

    def close(self) -> None:
        for name in list(self._maps):
            self._let_go(name)

    def _let_go(self, name: str) -> None:
        fd, mapping = self._maps.pop(name)  # unmapped when the last view on it is dropped
        if self._watch:
            self._watch.unmapped(_address(mapping))
        os.close(fd)

    def _fields(self, ref: Any, count: int) -> list[Any]:
        if not isinstance(ref, list) or len(ref) != count or not isinstance(ref[0], str):
            raise self._refusal(f"it is a list of a name and {count - 1} numbers")
        if not _NAME.fullmatch(ref[0]):
            raise self._refusal(f"{ref[0]!r:.100} is not the name of a segment")
        if any(type(number) is not int or not 0 <= number < 1 << 63 for number in ref[1:]):
            raise self._refusal("it holds what is not a size")
        return ref

    def _slot(self, name: str, offset: int, generation: int, length: int) -> memoryview:
        """The first `length` bytes of a slot, its header included."""
        fd, mapping = self._maps.get(name) or self._map(name)
        if offset + max(length, HEADER_BYTES) > min(os.fstat(fd).st_size, len(mapping)):
            raise self._refusal(f"it ends after the end of segment {name}")
        if not generation or _GENERATION.unpack_from(mapping, offset)[0] != generation:
            raise self._refusal("the slot is not this request's any more")
        return memoryview(mapping)[offset : offset + length]

    def _map(self, name: str) -> tuple[int, mmap.mmap]:
        self.tidy()
        try:
            fd = self._opened(name)
            try:
                mapping = mmap.mmap(fd, 0, flags=mmap.MAP_SHARED)
            except (OSError, ValueError):
                os.close(fd)
                raise
        except (OSError, ValueError) as error:  # ValueError: it is empty
            reason = getattr(error, "strerror", None) or error
            raise self._refusal(f"segment {name} cannot be mapped by the worker: {reason}") from None
        self._maps[name] = fd, mapping
        if self._watch:
            self._watch.mapped(_address(mapping), len(mapping))
        return fd, mapping

    def _opened(self, name: str) -> int:
        folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fd = os.open(name, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=folder)
        finally:
            os.close(folder)
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
            os.close(fd)
            raise ValueError("it is not a file of the worker's own user")
        return fd

    def _refusal(self, reason: str) -> InvalidInput:
        self.refused += 1
        return InvalidInput(f"shared memory: a reference to a slot is refused: {reason}")
