"""The callers' shared memory, as the runner uses it: requests are read from slots, replies written to them.

Knows: which references may be in a request's options, when a reply is worth a slot.
Must not know: files and mappings (that is `headway.shm`), models, batches.

A request whose reference is refused fails alone, and is counted and logged. A reply whose slot is refused
(its request was given up meanwhile) or too small goes inline. For several threads: requests are read in one
while replies are written in the other.
"""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import Any, Protocol

from headway.errors import InvalidInput
from headway.lent import SHM_BYTES_MIN
from headway.refs import REPLY_SLOT, SLOT
from headway.shm import Mapped, Watch
from headway.tensors import Buffer, size_of, write_pieces

log = logging.getLogger("headway.worker")


class Pages(Watch, Protocol):
    """Mapped memory that is page-locked for a device."""

    def holds(self, address: int, size: int) -> bool: ...


class Sharing:
    """The segments in `folder`; None where there are none that the worker shares with its callers."""

    def __init__(self, folder: Path | None = None, pages: Pages | None = None) -> None:
        # absolute: a model's code may have changed the folder that relative paths begin in
        self._mapped = Mapped(folder.absolute(), pages) if folder else None
        self._pages = pages
        self._lock = threading.Lock()  # a tidy closes files that another thread may be looking at

    @property
    def refused(self) -> int:
        """How many references were refused so far."""
        return self._mapped.refused if self._mapped else 0

    def packed(self, options: dict[str, Any], inline: bytes) -> Buffer:
        """The packed tensors of a request: from its slot, or what it has inline. Raises: InvalidInput."""
        if SLOT not in options:
            return inline
        if self._mapped is None:
            raise InvalidInput("shared memory: the worker shares none with its callers")
        try:
            with self._lock:
                return self._mapped.request(options[SLOT])
        except InvalidInput as error:
            log.warning("request refused, %d so far: %s", self._mapped.refused, error)
            raise

    def put(self, options: dict[str, Any], pieces: list[Buffer]) -> int | None:
        """Write a reply into the slot that its request reserved, and return its length; None: it must go
        inline."""
        if REPLY_SLOT not in options or self._mapped is None:
            return None
        size = size_of(pieces)
        if size < SHM_BYTES_MIN:
            return None
        ref = options[REPLY_SLOT]
        try:
            with self._lock:
                if size > self._mapped.reply_length(ref):
                    return None
                self._mapped.write_reply(ref, lambda room: write_pieces(pieces, room))
        except InvalidInput as error:
            log.info("a reply goes inline: %s", error)
            return None
        return size

    def tidy(self) -> None:
        """Let go of the segments of callers that are gone."""
        if self._mapped:
            with self._lock:
                self._mapped.tidy()

    def holds(self, address: int, size: int) -> bool:
        """Whether a device reads this memory by itself."""
        return self._pages is not None and self._pages.holds(address, size)
