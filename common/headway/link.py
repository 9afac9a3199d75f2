"""ZeroMQ sockets with the options that Headway needs, set in one place.

Knows: libzmq's pitfalls. Must not know: messages.

* A plain ROUTER drops messages for a peer that is slow or gone; `ROUTER_MANDATORY` says so instead:
  EHOSTUNREACH (gone) or EAGAIN (its pipe is full). Sends never block.
* A DEALER without `IMMEDIATE` fills a pipe before there is a connection; those messages are lost with it.
* `LINGER` is bounded, or a process that cannot reach its peer never ends.
* Credit does the flow control; the high-water mark is only a seat-belt, and must be far above it.
* An identity is a name and a fresh nonce: a restarted peer with its old identity stays deaf for as long
  as the old connection is half alive.
"""

from __future__ import annotations

import math
import os
import secrets

import zmq

from headway.errors import SettingsError
from headway.messages import MESSAGE_BYTES_MAX

Socket = zmq.Socket[bytes]

LINGER_MS = 200
HIGH_WATER = 100_000
RECONNECT_MS = 50
RECONNECT_MS_MAX = 1000

# PERF: pyzmq's flags are enums; to combine two, or to hear "nothing there" as an exception, costs more
# than the call: 6.9 us to receive, 7.2 to learn that there is no more and 9.8 to send with the plain
# calls, 3.3, 2.9 and 2.4 with these.
_NOW = int(zmq.DONTWAIT)
_MORE = int(zmq.SNDMORE)
_READABLE = int(zmq.POLLIN)


def caller(address: str) -> tuple[zmq.Context[zmq.Socket[bytes]], zmq.Socket[bytes]]:
    """A context and a DEALER for one more caller of the broker. Raises: SettingsError as `dealer`."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    identity = f"client-{os.getpid()}.".encode() + secrets.token_bytes(8)
    try:
        return context, dealer(context, address, identity)
    except SettingsError:
        context.term()
        raise


def dealer(context: zmq.Context[zmq.Socket[bytes]], address: str, identity: bytes) -> zmq.Socket[bytes]:
    """A connected DEALER; it connects again by itself for as long as it is open.

    Raises: SettingsError for an address that is none.
    """
    socket = context.socket(zmq.DEALER)
    _common(socket)
    socket.setsockopt(zmq.IDENTITY, identity)
    socket.setsockopt(zmq.IMMEDIATE, 1)
    socket.setsockopt(zmq.RECONNECT_IVL, RECONNECT_MS)
    socket.setsockopt(zmq.RECONNECT_IVL_MAX, RECONNECT_MS_MAX)
    try:
        socket.connect(address)
    except zmq.ZMQError as error:
        socket.close()
        raise SettingsError(f"address {address!r}: {error.strerror}") from None
    return socket


def router(context: zmq.Context[zmq.Socket[bytes]], address: str) -> zmq.Socket[bytes]:
    """A bound ROUTER that reports unreachable peers."""
    socket = context.socket(zmq.ROUTER)
    _common(socket)
    socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
    socket.setsockopt(zmq.BACKLOG, 4096)
    try:
        socket.bind(address)
    except zmq.ZMQError:
        socket.close()
        raise
    return socket


def receive(socket: zmq.Socket[bytes]) -> bytes | None:
    """A DEALER's next message, or None: now there is none. (Asking makes the descriptor signal again.)"""
    return socket.recv(_NOW) if _is_readable(socket) else None


def receive_from(socket: zmq.Socket[bytes]) -> list[bytes] | None:
    """A ROUTER's next message, its sender's identity first, or None."""
    if not _is_readable(socket):
        return None
    frames = [socket.recv(_NOW)]
    while socket.getsockopt(zmq.RCVMORE):
        frames.append(socket.recv(_NOW))
    return frames


def send(socket: zmq.Socket[bytes], frame: bytes) -> bool:
    """False when it would block: nobody is connected, or the pipe is full."""
    try:
        socket.send(frame, _NOW)
    except zmq.Again:
        return False
    return True


def send_to(socket: zmq.Socket[bytes], peer: bytes, frame: bytes) -> None:
    """Raises: zmq.Again when the peer's pipe is full, zmq.ZMQError (EHOSTUNREACH) when it is gone."""
    socket.send(peer, _NOW | _MORE)
    socket.send(frame, _NOW)


def wait_ms(wake: float | None, now: float) -> int | None:
    """What `next_wake` means for `poll`, in whole milliseconds, rounded up: None waits for an event."""
    if wake is None or wake == math.inf:
        return None
    return math.ceil((wake - now) * 1000) if wake > now else 0


def _is_readable(socket: zmq.Socket[bytes]) -> bool:
    events = socket.getsockopt(zmq.EVENTS)
    return isinstance(events, int) and bool(events & _READABLE)


def _common(socket: zmq.Socket[bytes]) -> None:
    socket.setsockopt(zmq.LINGER, LINGER_MS)
    socket.setsockopt(zmq.MAXMSGSIZE, MESSAGE_BYTES_MAX)
    socket.setsockopt(zmq.HANDSHAKE_IVL, 2000)
    socket.setsockopt(zmq.SNDHWM, HIGH_WATER)
    socket.setsockopt(zmq.RCVHWM, HIGH_WATER)
