"""A connection of the TorchServe door: what HTTP there is beside what every server of ours does.

Knows: how TorchServe's frontend writes a head, a reply in pieces and what it says to what is no HTTP. Must
not know: routes, models.

Both ways write the same bytes. On the short way the head is written here; on the long way by uvicorn, and
only its status line and `connection` here, as ASGI has no words for them (`LINE`).
"""

from __future__ import annotations

from functools import partial
from typing import Any

from headway_gateway.connection import WRITTEN_TOGETHER_BYTES_MAX, Passage
from headway_gateway.connection import Connection as PlainConnection
from headway_gateway.inference import JSON, Answer
from headway_gateway.lane import Lane
from headway_gateway.request import SPELLED
from headway_gateway.torchserve.access import peer_of
from headway_gateway.torchserve.heads import BODILESS, CLOSES_FROM, SILENT, own_lines
from headway_gateway.torchserve.refusal import bad_request
from headway_gateway.torchserve.statuses import status_line

LINE = "headway.status_line"  # in a scope: how its response begins; whoever says it gets `connection` as well
UNSENT_BYTES_MAX = 1 << 26  # of a reply in pieces, for a client that does not read
_LAST = b"0\r\n\r\n"
_CLOSE, _STAY = b"connection: close\r\n", b"connection: keep-alive\r\n"


class Connection(PlainConnection):
    """uvicorn's `http` class for apps with `common`, see `heads`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._spelled: list[tuple[bytes, bytes]] = []
        self._begun: Passage | None = None  # whose answer has begun and goes on
        super().__init__(*args, **kwargs)

    # ---- the parser's callbacks ----

    def on_message_begin(self) -> None:
        self._spelled = []
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """PERF: what uvicorn's does, without the call."""
        self._spelled.append((name, value))
        name = name.lower()
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))

    @property
    def _wrote(self) -> list[tuple[bytes, bytes]]:
        return self._spelled

    def _look(self, lane: Lane, method: bytes, url: bytes, wrote: list[tuple[bytes, bytes]]) -> None:
        super()._look(lane, method, url, wrote)
        if self._entry is None:
            return
        line = f"{method.decode()} {url.decode('latin1')} HTTP/{self.parser.get_http_version()}"
        self._entry = self._entry._replace(said=(peer_of({"client": self.client}), line))

    def _go_the_long_way(self) -> None:
        super()._go_the_long_way()
        scope = self.cycle.scope
        scope[SPELLED] = self._spelled
        self.cycle.transport = _Opening(self.transport, scope)

    def send_400_response(self, msg: str) -> None:
        answer = Answer(400, JSON, bad_request("Invalid HTTP message.").body)
        self.transport.write(self._begin(answer, False, b"content-length: %d\r\n" % len(answer.data)))
        self.transport.write(answer.data)
        self.transport.close()

    # ---- the short way's answer ----

    def _run(self) -> None:
        passage = self.cycle
        passage.errand.run(partial(self._answered, passage), partial(self._pieced, passage))

    def _answered(self, passage: Passage, answer: Answer) -> None:
        if answer.status == SILENT:
            return
        if self._begun is passage:
            self._write_chunk(answer.data, _LAST)
            self._end(passage)
            return
        passage.keep_alive = passage.keep_alive and answer.status < CLOSES_FROM
        if answer.status in BODILESS:
            answer = answer._replace(data=b"")
        super()._answered(passage, answer)

    def _pieced(self, passage: Passage, answer: Answer | None) -> None:
        """A piece, or None: there will be no more of it, and the client must not take it for the end."""
        if answer is None:
            self._passage = None
            passage.response_complete = True
            self.transport.close()
            return
        if self.transport.get_write_buffer_size() > UNSENT_BYTES_MAX:
            self.transport.abort()
            return
        if self._begun is not passage:
            self._begun = passage
            passage.keep_alive = passage.keep_alive and answer.status < CLOSES_FROM
            self.transport.write(self._begin(answer, passage.keep_alive, b"transfer-encoding: chunked\r\n"))
        self._write_chunk(answer.data)

    def _write_chunk(self, data: bytes, after: bytes = b"") -> None:
        framed = (b"%x\r\n" % len(data), data, b"\r\n") if data else ()  # an empty one would be the last
        pieces = (*framed, after)
        if len(data) > WRITTEN_TOGETHER_BYTES_MAX:
            self.transport.writelines(pieces)
        else:
            self.transport.write(b"".join(pieces))

    def _end(self, passage: Passage) -> None:
        self._begun = self._passage = None
        passage.response_complete = True
        if not passage.keep_alive:
            self.transport.close()
        self.on_response_complete()

    def _head(self, passage: Passage, answer: Answer) -> bytes:
        length = b"" if answer.status == 204 else b"content-length: %d\r\n" % len(answer.data)
        return self._begin(answer, passage.keep_alive, length)

    def _begin(self, answer: Answer, stays: bool, length: bytes) -> bytes:
        stay = _STAY if stays else _CLOSE
        first = status_line(answer.status, answer.phrase)
        return b"".join((first, own_lines(answer), self.app.common.lines, length, stay, b"\r\n"))


class _Opening:
    """The transport of a request on the long way: replaces how the head begins that uvicorn writes."""

    def __init__(self, transport: Any, scope: dict[str, Any]) -> None:
        self._transport = transport
        self._scope = scope

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        line = self._scope.pop(LINE, None)
        self._transport.write(_opened(line, data) if line else data)


def _opened(line: bytes, data: bytes) -> bytes:
    """uvicorn's whole head with this status line, and `connection` at its end."""
    head = data.partition(b"\r\n")[2]
    if b"\r\nconnection: " in head:
        return line + head
    return line + head[:-2] + _STAY + head[-2:]
