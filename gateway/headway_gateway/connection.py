"""A connection: uvicorn's, with the short way beside ASGI.

Knows: uvicorn's HTTP/1.1 protocol class, transports, how an answer is written. Must not know: dialects, the
broker, who may take the short way (that is `lane`).

How it works. uvicorn keeps one *cycle* for each request, the current one in `self.cycle`. A request on the
short way has a `Passage` in its place, which uvicorn treats as any other: a request that the client sends
before the answer waits in uvicorn's pipeline, and a shutdown waits for the answer.

    head ──► lane ──errand──► Passage: body into the errand, run, one write, next
              └──none───────► uvicorn's cycle: ASGI, Falcon

A large body is not parsed: from the end of its head on, the socket is read straight into the errand's room
(shared memory, as a rule). For that a `Reader` stands between the transport and the connection: asyncio
asks only a `BufferedProtocol` where the next bytes shall go.

When the server ends (at a reload, say), a request may be on its way on a connection that looks idle: uvicorn
would close it, and the client see a reset. Here it lives for LAST_S, and its next answer says that it is the
last. PERF: of the gateway's 0.39 ms for a request of
602,112 bytes 0.26 are left, as nothing is copied and no fresh page is touched.
"""

from __future__ import annotations

import asyncio
from functools import lru_cache
from time import perf_counter
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from headway_gateway.company import Company
from headway_gateway.doors import Doors, place_of
from headway_gateway.inference import Answer
from headway_gateway.lane import Entry, Errand, Lane

LAST_S = 0.3  # how long a server that ends leaves a connection open on which nothing is asked
WRITTEN_TOGETHER_BYTES_MAX = 1 << 16  # above, an answer's head and body are not joined first


class _Nobody:
    """The event that uvicorn sets for an ASGI app that waits."""

    def set(self) -> None:
        """Nobody waits."""


class Passage:
    """A request on the short way, in the place of uvicorn's cycle."""

    __slots__ = ("disconnected", "errand", "keep_alive", "response_complete")
    message_event = _Nobody()

    def __init__(self, errand: Errand, keep_alive: bool) -> None:
        self.errand = errand
        self.keep_alive = keep_alive
        self.disconnected = False
        self.response_complete = False


class Connection(HttpToolsProtocol):
    """uvicorn's `http` class. The app may have a `lane`; without one everything goes through ASGI. Where
    there is an app for each address (`doors`), the connection's is found once, when it is made."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._lane: Lane | None = None
        self._passage: Passage | None = None  # the one that is open; `cycle` may be one behind it
        self._reader = Reader(self)
        self._company: Company | None = None  # that it belongs to
        self._is_last = False  # the next answer is
        self._last_said: tuple[bytes, bytes, list[tuple[bytes, bytes]]] | None = None  # the last head
        self._entry: Entry | None = None  # and what came of it

    # ---- the parser's callbacks ----

    def on_message_begin(self) -> None:
        self.url = b""
        self.headers = []
        self.expect_100_continue = False

    def on_headers_complete(self) -> None:
        self._unset_keepalive_if_required()  # set again by an answer to what came in the same packet before
        errand = self._errand()
        if errand is None:
            self._go_the_long_way()
            return
        self.cycle: Any = Passage(errand, self.parser.should_keep_alive() and not self._is_last)
        self._passage = self.cycle
        if errand.room is not None:
            self._reader.fill(errand.room)

    def _errand(self) -> Errand | None:
        if self._lane is None or self.flow.write_paused or self.parser.should_upgrade():
            return None
        if self.cycle is not None and not self.cycle.response_complete:
            return None  # it waits for its turn
        if self.parser.get_http_version() != "1.1":
            return None
        return self._enter(self._lane)

    def _enter(self, lane: Lane) -> Errand | None:
        """PERF: a client says the same head again and again, as a rule; to compare it with the last one takes
        a tenth of the time of looking at it."""
        said = (self.parser.get_method(), self.url, self._wrote)
        if said != self._last_said:
            self._last_said = said
            self._look(lane, *said)
        if self._entry is None:
            return None
        if self._company is None:
            self._company = lane.company
            self._company.join(perf_counter())
        return lane.errand(self._entry)

    @property
    def _wrote(self) -> list[tuple[bytes, bytes]]:
        """The headers as the client wrote them, if that matters."""
        return self.headers

    def _look(self, lane: Lane, method: bytes, url: bytes, wrote: list[tuple[bytes, bytes]]) -> None:
        """At a head that is another than the last one of this connection."""
        self._entry = lane.look(method, url, self.headers, wrote)

    def _go_the_long_way(self) -> None:
        if self._lane and self.parser.get_method() != b"GET":  # those are probes and scrapes
            self._lane.company.stir(perf_counter())
        url, headers, expect = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.expect_100_continue = url, expect
        self.headers.extend(headers)
        super().on_headers_complete()
        if self._is_last:
            self.cycle.keep_alive = False
        if self._passage and len(self.pipeline) == 1:
            self.flow.resume_reading()  # or nobody would notice that the client leaves

    def on_body(self, body: bytes) -> None:
        if not isinstance(self.cycle, Passage):
            super().on_body(body)
        elif self._reader.is_filling:
            self._reader.take(body)
        else:
            self.cycle.errand.feed(body)

    def on_message_complete(self) -> None:
        if isinstance(self.cycle, Passage):
            self._reader.fill(None)
            self._run()
        else:
            super().on_message_complete()

    # ---- the transport's callbacks ----

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        if isinstance(self.app, Doors):
            # uvicorn does not know the path of a socket file
            self.app: Any = self.app.at(self.server or place_of(transport.get_extra_info("sockname") or ""))
        self._lane = getattr(self.app, "lane", None)
        transport.set_protocol(self._reader)

    def shutdown(self) -> None:
        self._is_last = True
        if self._is_idle:
            self.loop.call_later(LAST_S, self._close_if_idle)
        else:
            self.cycle.keep_alive = False

    @property
    def _is_idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _close_if_idle(self) -> None:
        if self._is_idle:
            self.transport.close()

    def filled(self) -> None:
        """The large body is whole. The parser still waits for it: the next request gets a new one."""
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's
        self._run()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._reader.fill(None)
        passage, self._passage = self._passage, None
        if passage:
            passage.errand.abandon()
        if self._company:
            self._company.leave()

    # ---- the answer ----

    def _run(self) -> None:
        passage = self.cycle
        passage.errand.run(lambda answer: self._answered(passage, answer))

    def _answered(self, passage: Passage, answer: Answer) -> None:
        self._passage = None
        passage.response_complete = True
        head = self._head(passage, answer)
        if len(answer.data) > WRITTEN_TOGETHER_BYTES_MAX:
            self.transport.writelines([head, answer.data])
        else:
            self.transport.write(head + answer.data)
        if not passage.keep_alive:
            self.transport.close()
        self.on_response_complete()

    def _head(self, passage: Passage, answer: Answer) -> bytes:
        lines = [STATUS_LINE[answer.status]]
        for name, value in self.server_state.default_headers:
            lines += (name, b": ", value, b"\r\n")
        lines.append(_own(answer.content_type, len(answer.data), answer.headers))
        lines.append(b"\r\n" if passage.keep_alive else b"connection: close\r\n\r\n")
        return b"".join(lines)


@lru_cache(256)
def _own(content_type: str, length: int, headers: tuple[tuple[str, str], ...]) -> bytes:
    """The headers that an answer itself has."""
    all_of_them = [("content-type", content_type), ("content-length", str(length)), *headers]
    return b"".join(f"{name.lower()}: {value}\r\n".encode("latin1") for name, value in all_of_them)


class Reader(asyncio.BufferedProtocol):
    """The transport's protocol: reads into the room for a large body while there is one to be filled, else
    into a buffer whose content the connection parses."""

    # One for all connections: nothing happens between a read and `buffer_updated`. Small, as what is read
    # here of a large body is copied.
    _buffer = memoryview(bytearray(1 << 14))

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._left: memoryview | None = None

    @property
    def is_filling(self) -> bool:
        return self._left is not None

    def fill(self, room: memoryview | None) -> None:
        """From now on the body goes into `room`; None: it is whole, or not wanted any more."""
        self._left = room

    def take(self, chunk: bytes) -> None:
        """The part of the body that came together with the head."""
        assert self._left is not None
        self._left[: len(chunk)] = chunk
        self._left = self._left[len(chunk) :]

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer if self._left is None else self._left

    def buffer_updated(self, nbytes: int) -> None:
        if self._left is None:
            self._connection.data_received(self._buffer[:nbytes])  # type: ignore[arg-type]
            return
        self._left = self._left[nbytes:]
        if not len(self._left):
            self._left = None
            self._connection.filled()

    def eof_received(self) -> None:
        """The connection is lost next."""

    def connection_lost(self, exc: Exception | None) -> None:
        self._connection.connection_lost(exc)

    def pause_writing(self) -> None:
        self._connection.pause_writing()

    def resume_writing(self) -> None:
        self._connection.resume_writing()
