"""ZeroMQ sockets with the options that Headway needs, set in one place.

Knows: libzmq's pitfalls. Must not know: messages, where keys come from.

* A plain ROUTER drops messages for a peer that is slow or gone; `ROUTER_MANDATORY` says so instead:
  EHOSTUNREACH (gone) or EAGAIN (its pipe is full). Sends never block.
* A DEALER without `IMMEDIATE` fills a pipe before there is a connection; those messages are lost with it.
* `LINGER` is bounded, or a process that cannot reach its peer never ends.
* Credit does the flow control; the high-water mark is only a seat-belt, and must be far above it.
* An identity is a name and a fresh nonce: a restarted peer with its old identity stays deaf for as long
  as the old connection is half alive.

Over TCP, where both ends may live and not reach each other:

* Each end asks the other whether it is there (ZMTP heartbeats), or a cut link would go unnoticed for as
  long as the kernel sends again: minutes. A connection that does not come about is given up after seconds,
  likewise.
* A peer that comes back with its identity while its old connection is half open would be deaf for ever:
  `ROUTER_HANDOVER` lets the new one have it. Those who could abuse that have a key that is allowed.
* CURVE belongs to a socket, so a ROUTER has either a path or an address. `ZAP_ENFORCE_DOMAIN` refuses
  everybody when nobody is there who knows the keys; without it libzmq lets everybody in then.
"""

from __future__ import annotations

import zmq

from headway import tcp
from headway.errors import SettingsError
from headway.keys import Curve
from headway.messages import MESSAGE_BYTES_MAX

LINGER_MS = 200
HIGH_WATER = 100_000
RECONNECT_MS = 50
RECONNECT_MS_MAX = 1000
BEAT_MS, BEAT_TIMEOUT_MS = 1000, 3000
CONNECT_TIMEOUT_MS = 2000
KEEPALIVE_S, KEEPALIVE_INTERVAL_S, KEEPALIVE_COUNT = 30, 5, 4

# PERF: pyzmq's flags are enums; to combine two, or to hear "nothing there" as an exception, costs more
# than the call: 6.9 us to receive, 7.2 to learn that there is no more and 9.8 to send with the plain
# calls, 3.3, 2.9 and 2.4 with these.
_NOW = int(zmq.DONTWAIT)
_MORE = int(zmq.SNDMORE)
_READABLE = int(zmq.POLLIN)


def dealer(
    context: zmq.Context[zmq.Socket[bytes]], address: str, identity: bytes, curve: Curve | None = None
) -> zmq.Socket[bytes]:
    """A connected DEALER; it connects again by itself for as long as it is open.

    Raises: SettingsError for an address that is none.
    """
    socket = context.socket(zmq.DEALER)
    _common(socket)
    socket.setsockopt(zmq.IDENTITY, identity)
    socket.setsockopt(zmq.IMMEDIATE, 1)
    socket.setsockopt(zmq.RECONNECT_IVL, RECONNECT_MS)
    socket.setsockopt(zmq.RECONNECT_IVL_MAX, RECONNECT_MS_MAX)
    if tcp.is_tcp(address):
        _over_tcp(socket, address)
        socket.setsockopt(zmq.CONNECT_TIMEOUT, CONNECT_TIMEOUT_MS)
    if curve:
        _with_keys(socket, curve)
        socket.setsockopt(zmq.CURVE_SERVERKEY, curve.broker)
    try:
        socket.connect(address)
    except zmq.ZMQError as error:
        socket.close()
        raise SettingsError(f"address {address!r}: {error.strerror}") from None
    return socket


def losses(socket: zmq.Socket[bytes]) -> zmq.Socket[bytes]:
    """Gives a message whenever the socket has lost a connection, before it has another one. To be closed
    after the socket's `disable_monitor`."""
    monitor: zmq.Socket[bytes] = socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
    return monitor


def router(
    context: zmq.Context[zmq.Socket[bytes]], address: str, curve: Curve | None = None, domain: str = ""
) -> zmq.Socket[bytes]:
    """A bound ROUTER that reports unreachable peers. With keys, whoever answers ZAP requests in this context
    for `domain` says who may come. Raises: zmq.ZMQError."""
    socket = context.socket(zmq.ROUTER)
    _common(socket)
    socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
    socket.setsockopt(zmq.BACKLOG, 4096)
    if tcp.is_tcp(address):
        _over_tcp(socket, address)
        socket.setsockopt(zmq.ROUTER_HANDOVER, 1)
    if curve:
        _with_keys(socket, curve)
        socket.setsockopt(zmq.CURVE_SERVER, 1)
        socket.setsockopt(zmq.ZAP_DOMAIN, domain.encode())
        socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
    try:
        socket.bind(address)
    except zmq.ZMQError:
        socket.close()
        raise
    return socket


def receive(socket: zmq.Socket[bytes]) -> bytes | None:
    """A DEALER's next message, or None: now there is none. (Asking makes the descriptor signal again.)"""
    return socket.recv(_NOW) if is_readable(socket) else None


def receive_known(socket: zmq.Socket[bytes]) -> tuple[list[bytes], bytes] | None:
    """A ROUTER's next message, its sender's identity first, and the public key of who sent it, which is empty
    where keys are not used; or None."""
    if not is_readable(socket):
        return None
    frames = [socket.recv(_NOW, copy=False)]
    while socket.getsockopt(zmq.RCVMORE):
        frames.append(socket.recv(_NOW, copy=False))
    try:
        key = str(frames[-1].get("User-Id")).encode()
    except zmq.ZMQError:
        key = b""
    return [frame.bytes for frame in frames], key


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


def is_readable(socket: zmq.Socket[bytes]) -> bool:
    """Whether a message waits. (Asking makes the descriptor signal again.)"""
    events = socket.getsockopt(zmq.EVENTS)
    return isinstance(events, int) and bool(events & _READABLE)


def _common(socket: zmq.Socket[bytes]) -> None:
    socket.setsockopt(zmq.LINGER, LINGER_MS)
    socket.setsockopt(zmq.MAXMSGSIZE, MESSAGE_BYTES_MAX)
    socket.setsockopt(zmq.HANDSHAKE_IVL, 2000)
    socket.setsockopt(zmq.SNDHWM, HIGH_WATER)
    socket.setsockopt(zmq.RCVHWM, HIGH_WATER)


def _over_tcp(socket: zmq.Socket[bytes], address: str) -> None:
    socket.setsockopt(zmq.HEARTBEAT_IVL, BEAT_MS)
    socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, BEAT_TIMEOUT_MS)
    socket.setsockopt(zmq.HEARTBEAT_TTL, BEAT_TIMEOUT_MS)
    socket.setsockopt(zmq.TCP_KEEPALIVE, 1)
    socket.setsockopt(zmq.TCP_KEEPALIVE_IDLE, KEEPALIVE_S)
    socket.setsockopt(zmq.TCP_KEEPALIVE_INTVL, KEEPALIVE_INTERVAL_S)
    socket.setsockopt(zmq.TCP_KEEPALIVE_CNT, KEEPALIVE_COUNT)
    socket.setsockopt(zmq.IPV6, int(tcp.is_ipv6(address)))


def _with_keys(socket: zmq.Socket[bytes], curve: Curve) -> None:
    socket.setsockopt(zmq.CURVE_PUBLICKEY, curve.public)
    socket.setsockopt(zmq.CURVE_SECRETKEY, curve.secret)
