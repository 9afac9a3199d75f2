"""The broker's sockets: who is reached through which, and what waits for those that are slow.

Knows: ZeroMQ, which door an identity belongs to. Must not know: the scheduler, why anything is sent.

Nothing blocks: a peer that is gone is reported, and for one whose pipe is full the messages are kept, in
order, and tried again, up to a bound for each peer.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import zmq

from headway import link, logs
from headway.errors import LocalProtocolError, SettingsError
from headway.messages import Message
from headway.settings import BrokerSettings
from headway.wire import encode

CALLERS, WORKERS = "callers", "workers"

_log = logs.get("headway.broker")
# Gets side, peer, now, a reason, and whether the peer is known to be dead.
Gone = Callable[[str, bytes, float, str, bool], None]


class Door(NamedTuple):
    """One ROUTER, for the callers' or the workers' side."""

    side: str
    socket: zmq.Socket[bytes]

    def receive(self) -> list[bytes] | None:
        """The next message, its sender's identity first, or None."""
        return link.receive_from(self.socket)


class Sockets:
    """`open` binds them, `close` leaves nothing behind. `most` messages are kept for a peer that does not
    read; `gone` is told of those that are given up."""

    def __init__(self, settings: BrokerSettings, most: int, gone: Gone) -> None:
        self._settings = settings
        self._most = most
        self._gone = gone
        self._doors: list[Door] = []  # workers first: results free credit for the requests that follow
        self._backlog: dict[tuple[str, bytes], deque[bytes]] = {}

    @property
    def has_backlog(self) -> bool:
        """Whether anything waits for a peer that is slow."""
        return bool(self._backlog)

    def open(self) -> None:
        """Raises: SettingsError for an address that cannot be bound."""
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        for side, address in (
            (WORKERS, self._settings.workers_address),
            (CALLERS, self._settings.callers_address),
        ):
            self._doors.append(Door(side, self._bound("run_dir", address)))
        self._local = {door.side: door for door in self._doors}

    def register(self, poller: zmq.Poller) -> None:
        """Let it wait for messages at every door."""
        for door in self._doors:
            poller.register(door.socket, zmq.POLLIN)

    def ready(self, polled: dict[object, int]) -> list[Door]:
        """The doors at which messages wait, in the order in which to drain them."""
        return [door for door in self._doors if door.socket in polled]

    def send(self, side: str, peer: bytes, message: Message, now: float) -> None:
        """Send to a peer, after what waits for it."""
        try:
            frame = encode(message)
        except LocalProtocolError as error:
            _log.error("message not sent", peer=peer.hex()[:16], reason=str(error))
            return
        key = (side, peer)
        if key not in self._backlog and self._send_frame(side, peer, frame, now):
            return
        waiting = self._backlog.setdefault(key, deque())
        waiting.append(frame)
        if len(waiting) > self._most:
            del self._backlog[key]
            self._gone(side, peer, now, "it does not read what it is sent", False)

    def send_backlog(self, now: float) -> None:
        """Try again what waits."""
        for key, waiting in list(self._backlog.items()):
            while waiting and self._send_frame(*key, waiting[0], now):
                waiting.popleft()
            if not waiting:
                del self._backlog[key]

    def close(self) -> None:
        """Leave nothing behind."""
        for door in self._doors:
            door.socket.close()
        self._context.term()
        for address in (self._settings.callers_address, self._settings.workers_address):
            Path(address.removeprefix("ipc://")).unlink(missing_ok=True)

    def _bound(self, key: str, address: str) -> zmq.Socket[bytes]:
        try:
            return link.router(self._context, address)
        except zmq.ZMQError as error:
            raise SettingsError(f"{key}: cannot listen at {address}: {error}") from None

    def _send_frame(self, side: str, peer: bytes, frame: bytes, now: float) -> bool:
        """False when the peer's pipe is full."""
        try:
            link.send_to(self._local[side].socket, peer, frame)
        except zmq.Again:
            return False
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            self._gone(side, peer, now, "its connection is gone", True)
        return True
