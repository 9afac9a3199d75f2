"""ZMTP 3.0, the protocol between ZeroMQ sockets, as far as two programs on one host need it; pure.

Source: ZeroMQ RFC 23. The security mechanism is NULL: who may open the path may speak. A connection is

    greeting, READY      from each end, without waiting for the other's
    messages             when the other's READY is there

Knows: bytes. Must not know: sockets, which messages there are, what is inside a frame.

libzmq is the other end for clients in other languages, and for the tests. It may send a PING (RFC 37), which
is answered; other commands mean nothing here, and are dropped as the RFC says.
"""

from __future__ import annotations

from collections.abc import Iterator

from headway.errors import RemoteProtocolError
from headway.messages import MESSAGE_BYTES_MAX

_SIGNATURE = b"\xff" + bytes(7) + b"\x01\x7f"
_MECHANISM = b"NULL".ljust(20, b"\0")
_GREETING = _SIGNATURE + b"\x03\x00" + _MECHANISM + bytes(32)
_MORE, _LONG, _COMMAND = 1, 2, 4
_SHORT_MAX = 255
_COMMAND_BYTES_MAX = 4096
_IDENTITY_BYTES_MAX = 255
FRAMES_MAX = 16
_MAY_MEET = {b"DEALER": (b"ROUTER", b"DEALER"), b"ROUTER": (b"DEALER", b"REQ", b"ROUTER")}


def opening(kind: bytes, identity: bytes = b"") -> bytes:
    """What an end says first; `kind` is its socket's type, DEALER or ROUTER."""
    properties = _property(b"Socket-Type", kind) + _property(b"Identity", identity)
    return _GREETING + _command(b"READY", properties)


def framed(frame: bytes) -> bytes:
    """A message of one frame, as it travels. PERF: one `bytes` for one system call."""
    size = len(frame)
    if size <= _SHORT_MAX:
        return b"\0%c%b" % (size, frame)
    return b"\2%b%b" % (size.to_bytes(8, "big"), frame)


class Inbound:
    """What one end hears from the other. `feed` it what came, in order.

    `identity` is the other end's, None until it has said READY; it may be empty. `answers` collects what is
    to be sent because of what was heard.
    """

    def __init__(self, kind: bytes, most: int = MESSAGE_BYTES_MAX) -> None:
        self.identity: bytes | None = None
        self.answers = b""
        self._kind = kind
        self._most = most
        self._at = 0  # where the next frame begins, in what is being read
        self._rest = bytearray()  # of a frame that is not whole
        self._needs = len(_GREETING)  # so many bytes, or there is nothing to do
        self._greeted = False
        self._message: list[bytes] = []  # frames of one that is not whole

    def feed(self, data: bytes) -> list[list[bytes]]:
        """The messages that are whole now, each as its frames. Raises: RemoteProtocolError for what is no
        ZMTP, or too large; the connection is of no use then."""
        if self.identity is not None and not self._rest and not self._message:
            frame = _only(data)
            if frame and len(frame) <= self._most:
                return [[frame]]
        if self._rest:
            self._rest += data
            if len(self._rest) < self._needs:
                return []
            data, self._rest = bytes(self._rest), bytearray()
        messages: list[list[bytes]] = []
        self._at = 0 if self._greeted else self._greet(data)
        for flags, body in self._frames(data):
            if flags & _COMMAND:
                self._obey(body)
            elif self.identity is None:
                raise RemoteProtocolError("a message before READY")
            elif flags & _MORE or self._message:
                self._collect(flags, body, messages)
            else:
                messages.append([body])
        if self._at < len(data):
            self._rest += data[self._at :]
        return messages

    def _frames(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """The whole frames from `_at` on, flags and body. Notes where the next begins and what it needs."""
        at, end = self._at, len(data)
        while self._greeted:
            header = 2 if at >= end or not data[at] & _LONG else 9
            self._needs = header
            if at + header > end:
                return
            flags = data[at]
            size = data[at + 1] if header == 2 else int.from_bytes(data[at + 1 : at + 9], "big")
            if size > (_COMMAND_BYTES_MAX if flags & _COMMAND else self._most):
                raise RemoteProtocolError(f"a frame of {size} bytes")
            self._needs = header + size
            if at + self._needs > end:
                return
            start, at = at + header, at + self._needs
            self._at = at
            yield flags, data[start:at]

    def _greet(self, data: bytes) -> int:
        """Where what follows the greeting begins; 0 if it is not whole. What cannot become one is refused at
        once."""
        if data[:1] != _SIGNATURE[:1] or data[9:10] not in (b"", b"\x7f"):
            raise RemoteProtocolError("no ZMTP greeting")
        if len(data) < len(_GREETING):
            return 0
        if data[10] < 3 or data[12:32] != _MECHANISM:
            raise RemoteProtocolError("a ZMTP greeting of another version or mechanism")
        self._greeted = True
        return len(_GREETING)

    def _collect(self, flags: int, body: bytes, messages: list[list[bytes]]) -> None:
        """A frame of a message that has several."""
        self._message.append(body)
        if len(self._message) > FRAMES_MAX or sum(map(len, self._message)) > self._most:
            raise RemoteProtocolError("a message of too many frames, or too large")
        if not flags & _MORE:
            messages.append(self._message)
            self._message = []

    def _obey(self, body: bytes) -> None:
        name, rest = _counted(body, 1)
        if name == b"READY" and self.identity is None:
            said = dict(_properties(rest))
            kind, identity = said.get(b"socket-type", b""), said.get(b"identity", b"")
            if kind not in _MAY_MEET[self._kind]:
                raise RemoteProtocolError(f"a {self._kind.decode()} speaks to no {kind[:16]!r}")
            if len(identity) > _IDENTITY_BYTES_MAX or identity[:1] == b"\0":  # those are a ROUTER's to give
                raise RemoteProtocolError("an identity that nobody may have")
            self.identity = identity
        elif name == b"ERROR" and self.identity is None:
            raise RemoteProtocolError(f"refused by the other end: {rest[1:64]!r}")
        elif name == b"PING" and self.identity is not None:
            self.answers += _command(b"PONG", rest[2:18])  # without its time to live


def _only(data: bytes) -> bytes:
    """The one frame that all of it is; empty if it is not one, or has flags. PERF: nearly always, and a third
    of what it takes to look for several."""
    size = len(data)
    if size > 2 and data[0] == 0 and size == 2 + data[1]:
        return data[2:]
    if size > 9 and data[0] == _LONG and size == 9 + int.from_bytes(data[1:9], "big"):
        return data[9:]
    return b""


def _property(name: bytes, value: bytes) -> bytes:
    return b"%c%b%b%b" % (len(name), name, len(value).to_bytes(4, "big"), value)


def _properties(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Names in lower case: they are the same however they are written."""
    while data:
        name, data = _counted(data, 1)
        value, data = _counted(data, 4)
        yield name.lower(), value


def _counted(data: bytes, width: int) -> tuple[bytes, bytes]:
    """What has its length before it, in so many bytes; and the rest."""
    end = width + int.from_bytes(data[:width], "big")
    if len(data) < end:
        raise RemoteProtocolError("a ZMTP command that ends too early")
    return data[width:end], data[end:]


def _command(name: bytes, data: bytes) -> bytes:
    body = b"%c%b%b" % (len(name), name, data)
    if len(body) <= _SHORT_MAX:
        return b"\4%c%b" % (len(body), body)
    return b"\6%b%b" % (len(body).to_bytes(8, "big"), body)
