"""Reads the model store in a thread of its own: a store on a slow disk must not hold up requests.

Knows: threads, when to read. Must not know: what a store looks like (that is `headway.store`), the catalog.

It reads when asked, and with `watch_s` when something in the store has changed since it last looked. A change
is taken up at the next look at which nothing changed any more, so that a version that is being copied is read
once.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from pathlib import Path

from headway import logs
from headway.errors import SettingsError
from headway.store import scan, signature
from headway_broker.events import StoreRead

_log = logs.get("headway.broker")


class StoreReader:
    """`fd` can be read when there is something to `take`."""

    def __init__(self, store: Path, watch_s: float) -> None:
        self.fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._store = store
        self._watch_s = watch_s or None
        self._asked = threading.Event()
        self._closing = False
        self._read: deque[StoreRead] = deque()
        self._thread = threading.Thread(target=self._run, name="headway-store", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def ask(self) -> None:
        """Read it now."""
        self._asked.set()

    def take(self) -> list[StoreRead]:
        """What was read since the last call."""
        try:
            os.eventfd_read(self.fd)
        except BlockingIOError:
            return []
        return [self._read.popleft() for _ in range(len(self._read))]

    def close(self) -> None:
        self._closing = True
        self._asked.set()
        self._thread.join(5.0)
        os.close(self.fd)

    def _run(self) -> None:
        seen = taken = signature(self._store) if self._watch_s else None
        while True:
            asked = self._asked.wait(self._watch_s)
            if self._closing:
                return
            self._asked.clear()
            before, seen = seen, signature(self._store) if self._watch_s else None
            if asked or (seen == before and seen != taken):
                taken = seen
                self._tell(self._look()._replace(asked=asked))

    def _look(self) -> StoreRead:
        try:
            found = scan(self._store)
        except SettingsError as error:
            return StoreRead([], {}, str(error))
        except Exception as error:
            _log.exception("defect in reading the model store")
            return StoreRead([], {}, f"a defect in reading the model store: {error!r}")
        return StoreRead(found.specs, found.broken)

    def _tell(self, read: StoreRead) -> None:
        self._read.append(read)
        os.eventfd_write(self.fd, 1)
