"""How a program reaches the broker: a connection that is made again by itself, on this host or over TCP.

Knows: the two ways, and what a DEALER does. Must not know: messages, where keys come from.

On this host it is a Unix socket, and ZMTP spoken by ourselves (`lines`); over TCP it is libzmq, with keys and
heartbeats (`link`). Both look the same from outside, and to the broker.

A caller must know when it may have met another broker, before it asks that one anything (see `calls`). So its
dealer refuses a message where the connection is another one than for the message before, and goes on refusing
until all that came over the old one was received: what a caller hears after a refusal was not said by a
broker that is gone. Over TCP that is as good as certain: libzmq tells of a loss beside the messages, and it
connects again 50 ms later or more, so that what is sent would have to take that long on its way into libzmq.
"""

from __future__ import annotations

import os
import secrets
import select
import socket
from collections import deque
from typing import Protocol

import zmq

from headway import link
from headway.errors import SettingsError
from headway.keys import Curve
from headway.lines import Closed, Line

_IPC = "ipc://"
PATH_BYTES_MAX = 107


class Dealer(Protocol):
    """One connection to the broker. Not for several threads at once.

    Wait for `fileno()` to be readable, then `receive` until it has nothing more; and look at `has_more`
    before waiting.
    """

    def fileno(self) -> int:
        """The same for as long as it is open."""

    @property
    def has_more(self) -> bool:
        """Whether frames wait that the descriptor may not tell of (any more)."""

    def send(self, frame: bytes) -> bool:
        """False when it would block, or nobody is there."""

    def receive(self) -> bytes | None:
        """The next frame; None: now there is none."""

    def close(self) -> None: ...


def dial(address: str, identity: bytes, curve: Curve | None = None, *, is_caller: bool = False) -> Dealer:
    """Does not wait for the broker. Raises: SettingsError for an address that is none."""
    if not address.startswith(_IPC):
        return _Far(address, identity, curve, is_caller)
    path = address.removeprefix(_IPC)
    if not path or len(os.fsencode(path)) > PATH_BYTES_MAX:
        raise SettingsError(f"address {address!r}: a path of 1 to {PATH_BYTES_MAX} bytes")
    return _Near(path, identity, is_caller)


def dial_as_caller(address: str, curve: Curve | None = None) -> Dealer:
    """For one more caller of the broker. Raises: as `dial`."""
    identity = f"client-{os.getpid()}.".encode() + secrets.token_bytes(8)
    return dial(address, identity, curve, is_caller=True)


class _Near:
    """On this host. It connects when there is something to send, so there is no timer: whoever has calls
    open, or a place on the roster, says something several times a second.

    A new connection is of use at once, or a caller's for the second message: what is sent before the broker
    has taken it waits in the line.
    """

    def __init__(self, path: str, identity: bytes, is_caller: bool) -> None:
        self._path = path
        self._identity = identity
        self._is_caller = is_caller
        self._line: Line | None = None
        self._frames: deque[bytes] = deque()
        self._drained = False  # the last read found less than there could have been
        self._epoll = select.epoll()  # a descriptor that stays the same while connections come and go
        self._connect()

    def fileno(self) -> int:
        return self._epoll.fileno()

    @property
    def has_more(self) -> bool:
        return bool(self._frames)

    def send(self, frame: bytes) -> bool:
        for _ in range(2):  # the first try may find that the broker has gone, and the second a new one
            if self._line is None and not self._reconnect():
                return False
            assert self._line
            try:
                return self._line.send(frame)
            except Closed:
                self._read(self._line)  # what it said before
                self._hang_up()
        return False

    def receive(self) -> bytes | None:
        if self._frames:
            return self._frames.popleft()
        if self._drained or self._line is None:  # its descriptor says when there is more
            self._drained = False
            return None
        self._read(self._line)
        return self._frames.popleft() if self._frames else None

    def close(self) -> None:
        self._hang_up()
        self._epoll.close()

    def _read(self, line: Line) -> None:
        try:
            for frames in line.read():
                self._frames.extend(frames)
            self._drained = bool(self._frames)
        except Closed:
            self._hang_up()

    def _reconnect(self) -> bool:
        """Whether there is a connection again, and it takes this message."""
        if self._is_caller and self._frames:
            return False
        return self._connect() and not self._is_caller

    def _connect(self) -> bool:
        connecting = socket.socket(socket.AF_UNIX)
        connecting.setblocking(False)
        try:
            connecting.connect(self._path)
            self._line = Line(connecting, b"DEALER", self._identity, self._epoll)
        except (OSError, Closed):
            connecting.close()
            return False
        return True

    def _hang_up(self) -> None:
        line, self._line = self._line, None  # first: a KeyboardInterrupt may come at any point
        if line:
            line.close()


class _Far:
    """Over TCP."""

    def __init__(self, address: str, identity: bytes, curve: Curve | None, is_caller: bool) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._is_lost = False  # a connection was, and that is not told yet
        try:
            self._socket = link.dealer(self._context, address, identity, curve)
        except SettingsError:
            self._context.term()
            raise
        self._losses = link.losses(self._socket) if is_caller else None

    def fileno(self) -> int:
        return self._socket.fileno()

    @property
    def has_more(self) -> bool:
        """It signals once, and what is sent may swallow that."""
        return link.is_readable(self._socket)

    def send(self, frame: bytes) -> bool:
        return not self._tells_loss() and link.send(self._socket, frame)

    def receive(self) -> bytes | None:
        return link.receive(self._socket)

    def _tells_loss(self) -> bool:
        """Whether this message is to be refused, for the sake of those that follow."""
        while self._losses and link.is_readable(self._losses):
            self._losses.recv_multipart()
            self._is_lost = True
        is_lost, self._is_lost = self._is_lost, self._is_lost and self.has_more
        return is_lost

    def close(self) -> None:
        if self._losses:
            self._socket.disable_monitor()
            self._losses.close()
        self._socket.close()
        self._context.term()  # waits for the last message, at most link.LINGER_MS
