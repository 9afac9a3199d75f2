"""One HTTP exchange as it is on the wire: phrases, order and chunks that libraries hide.

Knows: sockets and as much of HTTP/1.1 as a client needs.
Must not know: cases, servers.

Connections are kept between requests, as clients do, until the server says or shows otherwise.
"""

from __future__ import annotations

import contextlib
import socket
from dataclasses import dataclass, field
from types import TracebackType

TIMEOUT_S = 20.0  # of a whole test step: a server that does not answer is a difference, not a hang


@dataclass
class Reply:
    """Header names are in lower case. `chunks` has the parts of a chunked body, else nothing."""

    status: int
    reason: str
    headers: list[tuple[str, str]]
    body: bytes = b""
    chunks: list[bytes] = field(default_factory=list)

    def header(self, name: str) -> str:
        return next((value for key, value in self.headers if key == name), "")


class Closed(Exception):
    """The server ended the connection before its reply was whole."""


class Connection:
    def __init__(self, port: int, timeout_s: float = TIMEOUT_S) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=timeout_s)
        self._file = self._socket.makefile("rb")
        self.is_open = True
        self.was_used = False

    def exchange(self, method: str, path: str, headers: list[tuple[str, str]], body: bytes) -> Reply:
        head = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers)]
        # A server may refuse a body before it has all of it, and then its reply is there already.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._socket.sendall("\r\n".join(head).encode() + b"\r\n\r\n" + body)
        reply = self._read(method)
        self.was_used = True
        if reply.header("connection").lower() == "close":
            self.close()
        return reply

    def _read(self, method: str) -> Reply:
        status, reason = 100, ""
        while status == 100:
            _, status, reason = self._status()
            reply = Reply(status, reason, self._headers())
        if reply.header("transfer-encoding").lower() == "chunked":
            self._chunks(reply)
        elif method != "HEAD" and status not in (204, 304):
            self._whole(reply)
        return reply

    def _status(self) -> tuple[str, int, str]:
        words = self._line().split(" ", 2)
        return words[0], int(words[1]), words[2] if len(words) > 2 else ""

    def _line(self) -> str:
        line = self._file.readline()
        if not line.endswith(b"\r\n"):
            self.close()
            raise Closed
        return line[:-2].decode("latin-1")

    def _headers(self) -> list[tuple[str, str]]:
        found = []
        while line := self._line():
            name, _, value = line.partition(":")
            found.append((name.strip().lower(), value.strip()))
        return found

    def _chunks(self, reply: Reply) -> None:
        while size := int(self._line().split(";")[0], 16):
            reply.chunks.append(self._exactly(size))
            self._line()
        self._headers()  # trailers
        reply.body = b"".join(reply.chunks)

    def _whole(self, reply: Reply) -> None:
        if length := reply.header("content-length"):
            reply.body = self._exactly(int(length))
        else:
            reply.body = self._file.read()
            self.close()

    def _exactly(self, size: int) -> bytes:
        data = self._file.read(size)
        if len(data) < size:
            self.close()
            raise Closed
        return data

    def close(self) -> None:
        self.is_open = False
        self._file.close()
        self._socket.close()

    def __enter__(self) -> Connection:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Browser:
    """Connections by port, each kept as long as the server keeps it."""

    def __init__(self, timeout_s: float = TIMEOUT_S) -> None:
        self._timeout_s = timeout_s
        self._kept: dict[int, Connection] = {}

    def ask(self, port: int, method: str, path: str, headers: list[tuple[str, str]], body: bytes) -> Reply:
        """Raises: TimeoutError."""
        kept = self._kept.pop(port, None)
        if kept and kept.is_open:
            try:
                return self._keep(port, kept, kept.exchange(method, path, headers, body))
            except (Closed, ConnectionResetError):
                kept.close()  # it had ended while it was idle: as every client does, once more on a new one
        fresh = Connection(port, self._timeout_s)
        try:
            return self._keep(port, fresh, fresh.exchange(method, path, headers, body))
        except BaseException:
            fresh.close()
            raise

    def _keep(self, port: int, connection: Connection, reply: Reply) -> Reply:
        if connection.is_open:
            self._kept[port] = connection
        return reply

    def close(self) -> None:
        for connection in self._kept.values():
            connection.close()
        self._kept.clear()
