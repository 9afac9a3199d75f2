"""One connection between two programs on one host: ZMTP over a Unix socket, without a thread.

Knows: sockets that do not block. Must not know: who is at the other end, what messages mean.

PERF: libzmq sends and receives in a thread of its own, at each end: a message wakes three threads on its
way. There and back takes 58 us (median) through libzmq and 11 so, where both ends wait for nothing else;
where they have slept for 2 ms before, 228 and 33 (two processes on one host, 300 bytes).

What is sent is handed to the kernel at once. What that does not take waits here, in order, until the socket
can be written; so much may wait that credit and deadlines are reached first. What is sent
before the other end has said READY waits for that: libzmq takes no message sooner.
"""

from __future__ import annotations

import os
import select
import socket
from collections import deque
from contextlib import suppress

from headway.errors import RemoteProtocolError
from headway.zmtp import Inbound, framed, opening

READ_BYTES = 1 << 18
WAITING_BYTES_MAX = 1 << 25  # and one message
_LINGER_S = 0.2


class Closed(Exception):
    """The other end is gone, or the connection was of no use; the text says why. `is_gone`: the other end
    closed it, as the kernel does when its process ends."""

    def __init__(self, reason: str, is_gone: bool) -> None:
        super().__init__(reason)
        self.is_gone = is_gone


class Line:
    """Takes a connected socket, and closes it. `kind` is this end's type, `identity` its name. With an
    `epoll` it is registered there until it is closed, for what matters at the time."""

    def __init__(
        self,
        connected: socket.socket,
        kind: bytes,
        identity: bytes = b"",
        epoll: select.epoll | None = None,
    ) -> None:
        self._socket = connected
        self._socket.setblocking(False)
        self._inbound = Inbound(kind)
        self._early: list[bytes] = []  # said before READY was heard
        self.waiting: deque[memoryview] = deque()  # for the socket to be writable
        self._waiting_bytes = 0
        self._epoll = epoll
        self.fd = connected.fileno()
        if epoll:
            epoll.register(self.fd, self.events)
        self._put(opening(kind, identity))

    @property
    def identity(self) -> bytes | None:
        """The other end's; None until it has said it."""
        return self._inbound.identity

    @property
    def events(self) -> int:
        """What to wait for, as epoll has it."""
        return select.EPOLLIN | select.EPOLLOUT if self.waiting else select.EPOLLIN

    def send(self, frame: bytes) -> bool:
        """False when too much waits already. Raises: Closed."""
        if self._waiting_bytes > WAITING_BYTES_MAX:
            return False
        data = framed(frame)
        if self._inbound.identity is None:
            self._early.append(data)
            self._waiting_bytes += len(data)
        else:
            self._put(data)
        return True

    def read(self) -> list[list[bytes]]:
        """What has come: messages, each as its frames; at most READ_BYTES are read. What waits is sent first,
        as far as it goes: that may be what it was called for. Raises: Closed."""
        if self.waiting:
            self.flush()
        inbound = self._inbound
        try:
            data = self._socket.recv(READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return []
        except OSError as error:
            raise _closed(error) from None
        if not data:
            raise Closed("its connection is gone", is_gone=True)
        try:
            messages = inbound.feed(data)
        except RemoteProtocolError as error:
            raise Closed(str(error), is_gone=False) from None
        if inbound.answers:
            answers, inbound.answers = inbound.answers, b""
            self._put(answers)
        if self._early and inbound.identity is not None:
            early, self._early = b"".join(self._early), []
            self._waiting_bytes -= len(early)
            self._put(early)
        return messages

    def flush(self) -> None:
        """Send of what waits as much as goes. Raises: Closed."""
        if not self.waiting:
            return
        while self.waiting:
            sent = self._write(self.waiting[0])
            self._waiting_bytes -= sent
            if sent < len(self.waiting[0]):
                self.waiting[0] = self.waiting[0][sent:]
                return
            self.waiting.popleft()
        self._watch()

    def close(self) -> None:
        """What waits may still leave, for at most a fifth of a second."""
        if self._epoll:
            with suppress(OSError):
                self._epoll.unregister(self.fd)
        with suppress(OSError):
            self._socket.settimeout(_LINGER_S)
            for data in self.waiting:
                self._socket.sendall(data)
        self._socket.close()

    def _put(self, data: bytes) -> None:
        sent = 0 if self.waiting else self._write(data)
        if sent < len(data):
            self.waiting.append(memoryview(data)[sent:])
            self._waiting_bytes += len(data) - sent
            if len(self.waiting) == 1:
                self._watch()

    def _watch(self) -> None:
        """Whether anything waits has changed."""
        if self._epoll:
            self._epoll.modify(self.fd, self.events)

    def _write(self, data: bytes | memoryview) -> int:
        try:
            return self._socket.send(data)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError as error:
            raise _closed(error) from None


def _closed(error: OSError) -> Closed:
    return Closed(f"its connection is gone: {os.strerror(error.errno or 0)}", is_gone=True)
