"""The door for this host: a Unix socket at which ZMTP is spoken, as a ROUTER does.

Knows: connections and the names of those at their other ends. Must not know: messages, the scheduler.

A peer is whoever says its name in ZMTP's READY; who has none gets one, of five bytes as from libzmq. A second
connection with a name that is there already takes its place: names have a nonce, so it is the same peer, come
back before the end of its old connection was read.

That a peer's process has ended is known as soon as the kernel closes its connection, after all that it said.
"""

from __future__ import annotations

import errno
import itertools
import select
import socket
from collections import deque
from pathlib import Path

from headway import logs
from headway.lines import Closed, Line
from headway_broker.doors import Full, Lost, Unreachable

BACKLOG = 4096
STRANGERS_MAX = 256  # connections that have not said who they are

_log = logs.get("headway.broker")


class NearDoor:
    """Bound when it is made. Raises: OSError."""

    far = False

    def __init__(self, side: str, path: Path) -> None:
        self.side = side
        self.path: Path | None = path
        self._lines: dict[int, Line] = {}
        self._names: dict[int, bytes] = {}
        self._by_name: dict[bytes, Line] = {}
        self._strangers: dict[int, None] = {}  # in the order in which they came
        self._made_up = itertools.count(1)
        self._messages: deque[list[bytes]] = deque()
        self._lost: list[Lost] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._epoll = select.epoll()
        try:
            path.unlink(missing_ok=True)  # an earlier broker's: this one has the lock
            self._listener.bind(str(path))
            self._listener.listen(BACKLOG)
        except OSError:
            self._listener.close()
            self._epoll.close()
            raise
        self.fd = self._epoll.fileno()
        self._listener.setblocking(False)
        self._listens(True)

    @property
    def has_more(self) -> bool:
        return bool(self._messages or self._lost)

    def receive(self) -> list[bytes] | None:
        if not self._messages and not self._lost:
            self._look()
        return self._messages.popleft() if self._messages else None

    def take_lost(self) -> list[Lost]:
        lost, self._lost = self._lost, []
        return lost

    def send(self, peer: bytes, frame: bytes) -> None:
        line = self._by_name.get(peer)
        if line is None:
            raise Unreachable
        try:
            is_taken = line.send(frame)
        except Closed:
            self._drop(line)
            raise Unreachable from None
        if not is_taken:
            raise Full

    def close(self) -> None:
        for line in list(self._lines.values()):
            line.close()
        self._listener.close()
        self._epoll.close()

    def _look(self) -> None:
        """Read once from each connection that has something."""
        for fd, _ in self._epoll.poll(0):
            line = self._lines.get(fd)
            if line is None:
                if fd == self._listener.fileno():
                    self._accept()
                continue
            try:
                messages = line.read()
            except Closed as closed:
                self._hang_up(line, closed)
                continue
            name = self._names.get(fd)
            if name is None:
                name = self._welcome(line)
            for frames in messages:
                self._messages.append([name, *frames])

    def _welcome(self, line: Line) -> bytes:
        """The name of a connection that has none yet; empty if it has not said that much."""
        if line.identity is None:
            return b""
        name = line.identity or b"\0%b" % next(self._made_up).to_bytes(4, "big")
        del self._strangers[line.fd]
        if old := self._by_name.get(name):
            self._drop(old)
        self._lost = [lost for lost in self._lost if lost.peer != name]
        self._names[line.fd] = name
        self._by_name[name] = line
        return name

    def _accept(self) -> None:
        while True:
            try:
                line = Line(self._listener.accept()[0], b"ROUTER", epoll=self._epoll)
            except (BlockingIOError, InterruptedError, ConnectionError, Closed):
                return
            except OSError as error:
                if error.errno not in (errno.EMFILE, errno.ENFILE):
                    raise
                _log.error("too many connections; more wait until one ends", side=self.side)
                self._listens(False)
                return
            self._lines[line.fd] = line
            self._strangers[line.fd] = None
            if len(self._strangers) > STRANGERS_MAX:
                self._drop(self._lines[next(iter(self._strangers))])

    def _listens(self, does: bool) -> None:
        self._is_listening = does
        if does:
            self._epoll.register(self._listener, select.EPOLLIN)
        else:
            self._epoll.unregister(self._listener)

    def _hang_up(self, line: Line, closed: Closed) -> None:
        name = self._names.get(line.fd)
        if not closed.is_gone:
            _log.warning("connection closed", side=self.side, reason=str(closed))
        self._drop(line)
        if name is not None:
            self._lost.append(Lost(name, str(closed), closed.is_gone))

    def _drop(self, line: Line) -> None:
        """Forget it, and tell nobody."""
        del self._lines[line.fd]
        self._strangers.pop(line.fd, None)
        name = self._names.pop(line.fd, None)
        if name is not None and self._by_name.get(name) is line:
            del self._by_name[name]
        line.close()
        if not self._is_listening:
            self._listens(True)
