"""Who may speak to the broker over TCP: the keys in its folders, asked at every handshake.

Knows: pyzmq's authenticator, which answers libzmq (ZAP, RFC 27) in a thread of its own; the folders of
allowed keys. Must not know: what is said once somebody is in.

A key that was added is good at its owner's next attempt, which comes by itself. One that was removed is
found out within LOOK_S: its connections cannot be cut one by one, so what they say is dropped (see
`sockets`).
"""

from __future__ import annotations

import threading
import time
from pathlib import Path

import zmq
from zmq.auth.thread import ThreadAuthenticator

from headway import logs
from headway.keys import Allowed

LOOK_S = 1.0
TELL_S = 60.0  # a peer that is refused comes again every second
TOLD_MAX = 1000

_log = logs.get("headway.broker")


class Gate:
    """`open` starts to answer for the domains, one for each folder; `close` ends that."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], folders: dict[str, Path]) -> None:
        self._lists = {domain: _List(domain, folder) for domain, folder in folders.items()}
        self._look_at = 0.0
        self._authenticator = _Authenticator(context)

    @property
    def refused(self) -> int:
        """How many handshakes were refused so far."""
        return sum(one.refused for one in self._lists.values())

    def open(self) -> None:
        """Read the folders, and answer from now on."""
        for domain, one in self._lists.items():
            one.look()
            self._authenticator.configure_curve_callback(domain, one)
        self._authenticator.start()

    def close(self) -> None:
        """The thread ends."""
        self._authenticator.stop()

    def look(self, now: float) -> None:
        """Read folders again that have changed, if the last look is long enough ago."""
        if now >= self._look_at:
            self._look_at = now + LOOK_S
            for one in self._lists.values():
                one.look()

    def knows(self, domain: str, key: bytes) -> bool:
        """Whether the key is still allowed."""
        return self._lists[domain].name_of(key) is not None


class _Authenticator(ThreadAuthenticator):
    """Refuses for now (300) and not for good (400). libzmq keeps a peer from trying again that was refused
    for good, so a worker whose key is allowed a minute late would have to be started again."""

    def _send_zap_reply(
        self, request_id: bytes, status_code: bytes, status_text: bytes, user_id: str = "anonymous"
    ) -> None:
        status_code = b"300" if status_code == b"400" else status_code
        super()._send_zap_reply(request_id, status_code, status_text, user_id)


class _List:
    """One domain: as the authenticator wants it, with a `callback`. `look` comes from two threads."""

    def __init__(self, domain: str, folder: Path) -> None:
        self.refused = 0
        self._domain = domain
        self._allowed = Allowed(folder)
        self._lock = threading.Lock()
        self._told: dict[bytes, float] = {}

    def look(self) -> None:
        with self._lock:
            for problem in self._allowed.look():
                _log.warning("key file ignored", side=self._domain, reason=problem)

    def name_of(self, key: bytes) -> str | None:
        return self._allowed.name_of(key)

    def callback(self, domain: str, key: bytes) -> bool:
        """Whether this key may come. Must not raise: the thread would end, and nobody could come any more."""
        try:
            self.look()
            if self.name_of(key) is not None:
                return True
            self._refuse(key)
        except Exception:
            _log.exception("defect in looking up a key")
        return False

    def _refuse(self, key: bytes) -> None:
        self.refused += 1
        now = time.monotonic()
        if now < self._told.get(key, 0.0):
            return
        if len(self._told) >= TOLD_MAX:
            self._told.clear()
        self._told[key] = now + TELL_S
        _log.warning("key refused", side=self._domain, key=key.decode("ascii", "replace"), count=self.refused)
