"""The broker's sockets: who is reached through which, and what waits for those that are slow.

Knows: which door an identity belongs to. Must not know: the scheduler, why anything is sent.

Nothing blocks: a peer that is gone is reported, and for one that does not read the messages are kept, in
order, and tried again, up to a bound for each peer.

There are up to four doors: for callers and for workers, each a path (`near`) and, where the settings say so,
TCP (`far`). Everybody else knows a peer by one name, its identity at the door, with
REMOTE before it if it came over TCP. So a name says where it leads, and there is no table to keep: an
identity that somebody chose does not begin with a zero, and one that a door made has five bytes, which no
name with REMOTE has.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection
from pathlib import Path

import zmq

from headway import keys, logs, tcp
from headway.errors import LocalProtocolError, SettingsError
from headway.messages import Message
from headway.settings import BrokerSettings
from headway.wire import encode
from headway_broker.doors import Door, Full, Unreachable
from headway_broker.far import FarDoor
from headway_broker.gate import Gate
from headway_broker.near import NearDoor

CALLERS, WORKERS = "callers", "workers"
REMOTE = b"\0tcp:"

_log = logs.get("headway.broker")

# Gets side, peer, now, a reason, and whether the peer certainly touches no shared memory any more: its
# process is gone, or on another host.
Gone = Callable[[str, bytes, float, str, bool], None]


def is_remote(peer: bytes) -> bool:
    """Whether the peer came over TCP."""
    return peer.startswith(REMOTE) and len(peer) > len(REMOTE)


def shown(peer: bytes) -> str:
    """A peer's name for the log."""
    return f"tcp:{peer.removeprefix(REMOTE).hex()[:16]}" if is_remote(peer) else peer.hex()[:16]


class Sockets:
    """`open` binds them, `close` leaves nothing behind. `most` messages are kept for a peer that does not
    read; `gone` is told of those that are given up."""

    def __init__(self, settings: BrokerSettings, most: int, gone: Gone) -> None:
        self._settings = settings
        self._most = most
        self._gone = gone
        self._doors: list[Door] = []  # workers first: results free credit for the requests that follow
        self._far: list[Door] = []
        self._by_name: dict[tuple[str, bool], Door] = {}
        self._gate: Gate | None = None
        self.backlog: dict[tuple[str, bytes], deque[bytes]] = {}  # what waits for peers that are slow

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
        for side, address in ((WORKERS, settings.workers_address), (CALLERS, settings.callers_address)):
            self._add(_near(side, Path(address.removeprefix("ipc://"))))
        for side, far_address in ((WORKERS, settings.workers_tcp), (CALLERS, settings.callers_tcp)):
            if far_address:
                self._add(FarDoor(side, self._context, far_address, curve, self._gate))
                _tell(side, far_address, curve)
        self._doors.sort(key=lambda door: door.side, reverse=True)

    def _add(self, door: Door) -> None:
        self._doors.append(door)
        if door.far:
            self._far.append(door)
        self._by_name[door.side, door.far] = door

    @property
    def fds(self) -> list[int]:
        """Wait until one of them is readable."""
        return [door.fd for door in self._doors]

    @property
    def has_more(self) -> bool:
        """Whether something waits at a far door that no descriptor tells of any more. (Of a near one its
        reader knows whether it was drained.)"""
        return bool(self._far) and any(door.has_more for door in self._far)

    def ready(self, readable: Collection[int], now: float) -> list[Door]:
        """The doors at which messages wait, in the order in which to drain them."""
        if self._gate:
            self._gate.look(now)
        return [door for door in self._doors if door.fd in readable or door.has_more]

    def receive(self, door: Door, now: float) -> list[bytes] | None:
        """The next message at a door, its sender's name first, or None: there is no more for now."""
        received = door.receive()
        if received is None:
            for lost in door.take_lost():  # after the last that they said
                self._gone(door.side, _name(door, lost.peer), now, lost.reason, lost.is_dead)
        elif door.far:
            received[0] = REMOTE + received[0]
        return received

    def send(self, side: str, peer: bytes, message: Message, now: float) -> None:
        """Send to a peer, after what waits for it."""
        try:
            frame = encode(message)
        except LocalProtocolError as error:
            _log.error("message not sent", peer=shown(peer), reason=str(error))
            return
        key = (side, peer)
        if key not in self.backlog and self._send_frame(side, peer, frame, now):
            return
        waiting = self.backlog.setdefault(key, deque())
        waiting.append(frame)
        if len(waiting) > self._most:
            del self.backlog[key]
            self._gone(side, peer, now, "it does not read what it is sent", is_remote(peer))

    def send_backlog(self, now: float) -> None:
        """Try again what waits."""
        for key, waiting in list(self.backlog.items()):
            while waiting and self._send_frame(*key, waiting[0], now):
                waiting.popleft()
            if not waiting:
                del self.backlog[key]

    def close(self) -> None:
        """Leave nothing behind."""
        for door in self._doors:
            door.close()
            if door.path:
                door.path.unlink(missing_ok=True)
        self._doors.clear()
        if self._gate:
            self._gate.close()
        self._context.term()

    def _send_frame(self, side: str, peer: bytes, frame: bytes, now: float) -> bool:
        """False when the peer does not read."""
        far = is_remote(peer)
        try:
            self._by_name[side, far].send(peer[len(REMOTE) :] if far else peer, frame)
        except Full:
            return False
        except (Unreachable, KeyError):  # there may be no door to other hosts any more
            self._gone(side, peer, now, "its connection is gone", True)
        return True


def _name(door: Door, peer: bytes) -> bytes:
    return REMOTE + peer if door.far else peer


def _near(side: str, path: Path) -> NearDoor:
    try:
        return NearDoor(side, path)
    except OSError as error:
        raise SettingsError(f"run_dir: cannot listen at {path}: {error.strerror or error}") from None


def _tell(side: str, address: str, curve: keys.Curve | None) -> None:
    if curve:
        _log.info("listening for other hosts", side=side, address=address, key=curve.public.decode())
    elif tcp.is_loopback(address):
        _log.info("listening at TCP without keys, on this host alone", side=side, address=address)
    else:
        _log.warning("anybody who reaches this address may speak to the broker", side=side, address=address)
