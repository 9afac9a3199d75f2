"""Load over HTTP: keep-alive connections, one request at a time on each, closed or open loop.

It speaks just enough HTTP/1.1 itself, because a client library would cost more than the server. The loops
differ only in who decides when a connection asks: in the closed one the connection itself, as soon as it
has its answer; in the open one the arrivals, through whichever connection is idle.

Knows: asyncio, the clock. Must not know: what servers there are.
"""

from __future__ import annotations

import asyncio
import selectors
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import uvloop

from benchmarks.arrivals import NS, Arrivals, poisson
from benchmarks.dialects import http_request, split_answer
from benchmarks.inputs import Example
from benchmarks.tally import Closed, Open, Tally

DRAIN_S = 30.0  # after the end, for what is still to be answered


@dataclass(frozen=True)
class Target:
    """Whom to ask, and what."""

    dialect: str
    address: str
    example: Example

    @property
    def host_port(self) -> tuple[str, int]:
        host, _, port = self.address.rpartition(":")
        return host, int(port)

    @property
    def request(self) -> bytes:
        return http_request(self.dialect, self.address, self.example)


class Connection(asyncio.Protocol):
    """One connection. Its loop is told of every answer, and may `ask` again."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.buffer = b""
        self.since = 0  # when its request was asked; 0 while it is idle

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def ask(self, since: int) -> None:
        self.since = since
        self.transport.write(self.loop.request)

    def data_received(self, data: bytes) -> None:
        self.buffer = self.buffer + data if self.buffer else data
        answer = split_answer(self.buffer)
        if answer is not None:
            self.buffer, since, self.since = b"", self.since, 0
            ok = answer[0] and self.loop.example.is_right(answer[1])
            self.loop.answered(self, since, ok)

    def connection_lost(self, error: Exception | None) -> None:
        self.loop.lost(self)


class Loop:
    """What both loops share: the connections, and waiting until all is answered."""

    def __init__(self, target: Target, tally: Tally) -> None:
        self.target, self.tally = target, tally
        self.request, self.example = target.request, target.example
        self.done = asyncio.get_running_loop().create_future()
        self.connections: list[Connection] = []

    async def connect(self, callers: int) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(callers):
            _, connection = await loop.create_connection(lambda: Connection(self), *self.target.host_port)
            self.connections.append(connection)

    async def run(self, seconds: float) -> dict[str, Any]:
        with suppress(TimeoutError):
            await asyncio.wait_for(self.done, seconds + DRAIN_S)
        self.finish()
        for connection in self.connections:
            connection.transport.abort()
        return self.tally.facts()

    def finish(self) -> None:
        if not self.done.done():
            self.done.set_result(None)

    def answered(self, connection: Connection, since: int, ok: bool) -> None:
        raise NotImplementedError

    def lost(self, connection: Connection) -> None:
        """A server may close an idle connection; one that owes an answer is an error."""
        raise NotImplementedError


class ClosedLoop(Loop):
    """Every connection asks again when it has its answer."""

    def begin(self) -> None:
        self.open = len(self.connections)
        for connection in self.connections:
            connection.ask(time.monotonic_ns())

    def answered(self, connection: Connection, since: int, ok: bool) -> None:
        now = time.monotonic_ns()
        if self.tally.add(now, since, ok):
            connection.ask(now)
            return
        self._leave()

    def lost(self, connection: Connection) -> None:
        if connection.since and not self.done.done():
            self.tally.errors += 1
            self._leave()

    def _leave(self) -> None:
        self.open -= 1
        if not self.open:
            self.finish()


class OpenLoop(Loop):
    """Requests come when they come. PERF: uvloop's timers and epoll's wait count in whole milliseconds, as
    long as an answer takes; `select` takes microseconds, so this one runs on it."""

    tally: Open
    timer: asyncio.TimerHandle | None = None

    def begin(self, arrivals: Arrivals) -> None:
        self.arrivals = arrivals
        self.idle = list(self.connections)
        self.pump()

    def pump(self) -> None:
        """Send what is due, and come again when the next one is."""
        now = time.monotonic_ns()
        while self.idle and (since := self.arrivals.take(now)) is not None:
            self.idle.pop().ask(since)
        if self.timer:
            self.timer.cancel()
        due = self.arrivals.next_due()
        if due is not None and self.idle:
            self.timer = asyncio.get_running_loop().call_later(max(due - now, 0) / NS, self.pump)

    def answered(self, connection: Connection, since: int, ok: bool) -> None:
        now = time.monotonic_ns()
        self.tally.add(now, since, ok)
        waiting = self.arrivals.take(now)
        if waiting is not None:
            connection.ask(waiting)
            return
        self.idle.append(connection)
        if len(self.idle) == 1:
            self.pump()  # it had stopped, as there was nobody to send
        self._look_for_end()

    def lost(self, connection: Connection) -> None:
        if self.done.done():
            return
        self.connections.remove(connection)
        if connection.since:
            self.tally.give_up(time.monotonic_ns(), [connection.since])
        else:
            self.idle.remove(connection)
        self._look_for_end()

    def _look_for_end(self) -> None:
        """Done when all is answered, or nobody is left to ask."""
        waiting = len(self.arrivals) and self.connections
        if not waiting and len(self.idle) == len(self.connections):
            self.finish()

    def finish(self) -> None:
        if not self.done.done():
            asked = [connection.since for connection in self.connections if connection.since]
            self.tally.give_up(time.monotonic_ns(), asked + self.arrivals.rest())
        super().finish()


async def _closed(target: Target, callers: int, seconds: float) -> dict[str, Any]:
    loop = ClosedLoop(target, Closed(time.monotonic_ns(), seconds))
    await loop.connect(callers)
    loop.begin()
    return await loop.run(seconds)


async def _open(target: Target, callers: int, seconds: float, plan: tuple[float, int]) -> dict[str, Any]:
    rate, seed = plan
    begin = time.monotonic_ns() + NS // 10  # connecting takes a moment
    loop = OpenLoop(target, Open(begin, seconds))
    await loop.connect(callers)
    loop.begin(Arrivals(begin + offset for offset in poisson(rate, seconds, seed)))
    return await loop.run(seconds)


def closed_http(target: Target, callers: int, seconds: float) -> dict[str, Any]:
    """`callers` connections, for `seconds`."""
    return uvloop.run(_closed(target, callers, seconds))


def open_http(target: Target, callers: int, seconds: float, plan: tuple[float, int]) -> dict[str, Any]:
    """`plan`: requests a second, and the seed of their times; at most `callers` connections."""
    with asyncio.Runner(loop_factory=_precise_loop) as runner:
        return runner.run(_open(target, callers, seconds, plan))


def _precise_loop() -> asyncio.AbstractEventLoop:
    return asyncio.SelectorEventLoop(selectors.SelectSelector())
