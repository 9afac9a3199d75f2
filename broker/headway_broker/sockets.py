"""The broker's sockets: who is reached through which, and what waits for those that are slow.

Knows: ZeroMQ, which door an identity belongs to. Must not know: the scheduler, why anything is sent.

Nothing blocks: a peer that is gone is reported, and for one whose pipe is full the messages are kept, in
order, and tried again, up to a bound for each peer.

There are up to four doors: for callers and for workers, each a path and, where the settings say so, TCP,
since keys belong to a socket. Everybody else knows a peer by one name, its identity at the door, with
REMOTE before it if it came over TCP. So a name says where it leads, and there is no table to keep: an
identity that somebody chose does not begin with a zero, and one that ZeroMQ made has five bytes, which no
name with REMOTE has.

What comes over TCP from a key that is not allowed any more is dropped, and its sender reported gone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import zmq

from headway import keys, link, logs, tcp
from headway.errors import LocalProtocolError, SettingsError
from headway.messages import Message
from headway.settings import BrokerSettings
from headway.wire import encode
from headway_broker.gate import Gate

CALLERS, WORKERS = "callers", "workers"
REMOTE = b"\0tcp:"

_log = logs.get("headway.broker")
DROPPED_MAX = 100  # in one turn at one door

# Gets side, peer, now, a reason, and whether the peer certainly touches no shared memory any more: its
# process is gone, or on another host.
Gone = Callable[[str, bytes, float, str, bool], None]


def is_remote(peer: bytes) -> bool:
    """Whether the peer came over TCP."""
    return peer.startswith(REMOTE) and len(peer) > len(REMOTE)


def shown(peer: bytes) -> str:
    """A peer's name for the log."""
    return f"tcp:{peer.removeprefix(REMOTE).hex()[:16]}" if is_remote(peer) else peer.hex()[:16]


class Door(NamedTuple):
    """One ROUTER, for the callers' or the workers' side. `remote`: those who come here are on other hosts, or
    might be. `path` is what it leaves on disk, if anything."""

    side: str
    socket: zmq.Socket[bytes]
    remote: bool
    path: Path | None


class Sockets:
    """`open` binds them, `close` leaves nothing behind. `most` messages are kept for a peer that does not
    read; `gone` is told of those that are given up."""

    def __init__(self, settings: BrokerSettings, most: int, gone: Gone) -> None:
        self._settings = settings
        self._most = most
        self._gone = gone
        self._doors: list[Door] = []  # workers first: results free credit for the requests that follow
        self._by_name: dict[tuple[str, bool], zmq.Socket[bytes]] = {}
        self._gate: Gate | None = None
        self._backlog: dict[tuple[str, bytes], deque[bytes]] = {}

    @property
    def has_backlog(self) -> bool:
        """Whether anything waits for a peer that is slow."""
        return bool(self._backlog)

    def open(self) -> None:
        """Raises: SettingsError for an address that cannot be bound, or keys that are not as they must be;
        nothing is left open then."""
        curve = keys.of_broker(self._settings)
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        try:
            self._open(curve)
        except SettingsError:
            self.close()
            raise

    def _open(self, curve: keys.Curve | None) -> None:
        settings = self._settings
        if curve:
            folders = {side: settings.keys_path / side for side in (WORKERS, CALLERS)}
            self._gate = Gate(self._context, folders)
            self._gate.open()
        self._bind(WORKERS, "run_dir", settings.workers_address)
        self._bind(CALLERS, "run_dir", settings.callers_address)
        for side, key in ((WORKERS, "workers_tcp"), (CALLERS, "callers_tcp")):
            if address := getattr(settings, key):
                self._bind(side, key, address, curve)
                _tell(side, address, curve)
        self._doors.sort(key=lambda door: door.side, reverse=True)

    def register(self, poller: zmq.Poller) -> None:
        """Let it wait for messages at every door."""
        for door in self._doors:
            poller.register(door.socket, zmq.POLLIN)

    def ready(self, polled: dict[object, int], now: float) -> list[Door]:
        """The doors at which messages wait, in the order in which to drain them."""
        if self._gate:
            self._gate.look(now)
        return [door for door in self._doors if door.socket in polled]

    def receive(self, door: Door, now: float) -> list[bytes] | None:
        """The next message at a door, its sender's name first, or None: there is no more for now."""
        if not door.remote:
            return link.receive_from(door.socket)
        for _ in range(DROPPED_MAX):
            received = link.receive_known(door.socket)
            if received is None:
                return None
            (identity, *frames), key = received
            if self._gate is None or self._gate.knows(door.side, key):
                return [REMOTE + identity, *frames]
            self._gone(door.side, REMOTE + identity, now, "its key is not allowed any more", True)
        return None

    def send(self, side: str, peer: bytes, message: Message, now: float) -> None:
        """Send to a peer, after what waits for it."""
        try:
            frame = encode(message)
        except LocalProtocolError as error:
            _log.error("message not sent", peer=shown(peer), reason=str(error))
            return
        key = (side, peer)
        if key not in self._backlog and self._send_frame(side, peer, frame, now):
            return
        waiting = self._backlog.setdefault(key, deque())
        waiting.append(frame)
        if len(waiting) > self._most:
            del self._backlog[key]
            self._gone(side, peer, now, "it does not read what it is sent", is_remote(peer))

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
            if door.path:
                door.path.unlink(missing_ok=True)
        self._doors.clear()
        if self._gate:
            self._gate.close()
        self._context.term()

    def _bind(self, side: str, key: str, address: str, curve: keys.Curve | None = None) -> None:
        try:
            socket = link.router(self._context, address, curve, domain=side)
        except zmq.ZMQError as error:
            raise SettingsError(f"{key}: cannot listen at {address}: {error}") from None
        remote = tcp.is_tcp(address)
        path = None if remote else Path(address.removeprefix("ipc://"))
        self._doors.append(Door(side, socket, remote, path))
        self._by_name[side, remote] = socket

    def _send_frame(self, side: str, peer: bytes, frame: bytes, now: float) -> bool:
        """False when the peer's pipe is full."""
        try:
            if is_remote(peer):
                link.send_to(self._by_name[side, True], peer[len(REMOTE) :], frame)
            else:
                link.send_to(self._by_name[side, False], peer, frame)
        except zmq.Again:
            return False
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            self._gone(side, peer, now, "its connection is gone", True)
        return True


def _tell(side: str, address: str, curve: keys.Curve | None) -> None:
    if curve:
        _log.info("listening for other hosts", side=side, address=address, key=curve.public.decode())
    elif tcp.is_loopback(address):
        _log.info("listening at TCP without keys, on this host alone", side=side, address=address)
    else:
        _log.warning("anybody who reaches this address may speak to the broker", side=side, address=address)
