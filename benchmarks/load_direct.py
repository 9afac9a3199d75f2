"""Load through Headway's own clients, without HTTP, closed or open loop.

    closed_direct    headway.Client: one thread keeps so many requests in flight
    closed_in_place  the same for one caller, whose tensor is where the worker reads it (`client.empty`)
    closed_async     headway.AsyncClient: so many coroutines, each asks again when it has its answer
    open_direct      headway.Client: requests are submitted when they are due

Knows: the clients, the clock. Must not know: how a client does what it does.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from concurrent.futures import Future
from threading import Lock
from typing import Any

import numpy as np
import uvloop

from benchmarks.arrivals import Arrivals, poisson
from benchmarks.inputs import Example
from benchmarks.tally import Closed, Open, Tally
from headway import AsyncClient, Client
from headway.errors import HeadwayError

DRAIN_S = 30.0


def _is_right(example: Example, outputs: dict[str, np.ndarray]) -> bool:
    """One number is compared: comparing all would cost as much as asking."""
    y = outputs["y"]
    return y.shape == (example.outputs,) and (not example.tail or y.tobytes()[:4] == example.tail[:4])


def _got(future: Future[Any], example: Example) -> bool:
    try:
        return _is_right(example, future.result())
    except HeadwayError:
        return False


def closed_direct(address: str, example: Example, callers: int, seconds: float) -> dict[str, Any]:
    with Client(address) as client:
        tally = Closed(time.monotonic_ns(), seconds)
        if callers == 1:
            _one_at_a_time(client, example, example.x, tally)
        else:
            _many(client, example, callers, tally)
        return tally.facts()


def closed_in_place(address: str, example: Example, callers: int, seconds: float) -> dict[str, Any]:
    with Client(address) as client:
        x = client.empty(example.x.shape, example.x.dtype)
        x[...] = example.x
        tally = Closed(time.monotonic_ns(), seconds)
        _one_at_a_time(client, example, x, tally)
        return tally.facts()


def _one_at_a_time(client: Client, example: Example, x: np.ndarray, tally: Tally) -> None:
    inputs, going = {"x": x}, True
    while going:
        asked = time.monotonic_ns()
        try:
            ok = _is_right(example, client.infer(example.model, inputs))
        except HeadwayError:
            ok = False
        going = tally.add(time.monotonic_ns(), asked, ok)


def _many(client: Client, example: Example, callers: int, tally: Tally) -> None:
    inputs, going = {"x": example.x}, True
    flight: deque[tuple[int, Future[Any]]] = deque()
    while going or flight:
        while going and len(flight) < callers:
            flight.append((time.monotonic_ns(), client.submit(example.model, inputs)))
        asked, future = flight.popleft()
        ok = _got(future, example)
        going = tally.add(time.monotonic_ns(), asked, ok) and going


def closed_async(address: str, example: Example, callers: int, seconds: float) -> dict[str, Any]:
    return uvloop.run(_async(address, example, callers, seconds))


async def _async(address: str, example: Example, callers: int, seconds: float) -> dict[str, Any]:
    async with AsyncClient(address) as client:
        tally = Closed(time.monotonic_ns(), seconds)
        await asyncio.gather(*(caller(client, example, tally) for _ in range(callers)))
        return tally.facts()


async def caller(client: AsyncClient, example: Example, tally: Tally) -> None:
    """One that asks again when it has its answer, until the tally says that the time is over."""
    inputs, going = {"x": example.x}, True
    while going:
        asked = time.monotonic_ns()
        try:
            ok = _is_right(example, await client.infer(example.model, inputs))
        except HeadwayError:
            ok = False
        going = tally.add(time.monotonic_ns(), asked, ok)


def open_direct(address: str, example: Example, seconds: float, plan: tuple[float, int]) -> dict[str, Any]:
    """`plan`: requests a second, and the seed of their times."""
    rate, seed = plan
    with Client(address, timeout_s=seconds + DRAIN_S) as client:
        begin = time.monotonic_ns()
        sender = Sender(client, example, Open(begin, seconds))
        sender.run(Arrivals(begin + offset for offset in poisson(rate, seconds, seed)))
        return sender.finish(time.monotonic() + DRAIN_S)


class Sender:
    """Submits from this thread; answers are counted in the client's."""

    def __init__(self, client: Client, example: Example, tally: Open) -> None:
        self.client, self.example, self.tally = client, example, tally
        self.waiting: dict[Future[Any], int] = {}
        self.lock = Lock()

    def run(self, arrivals: Arrivals) -> None:
        while (due := arrivals.next_due()) is not None:
            pause = due - time.monotonic_ns()
            if pause > 0:
                time.sleep(pause / 1e9)
            while (since := arrivals.take(time.monotonic_ns())) is not None:
                self.ask(since)

    def ask(self, since: int) -> None:
        """Now; it was due at `since`."""
        future = self.client.submit(self.example.model, {"x": self.example.x})
        with self.lock:
            self.waiting[future] = since
        future.add_done_callback(self._answered)

    def _answered(self, future: Future[Any]) -> None:
        now = time.monotonic_ns()
        ok = _got(future, self.example)
        with self.lock:
            self.tally.add(now, self.waiting.pop(future), ok)

    def finish(self, give_up: float) -> dict[str, Any]:
        while self.waiting and time.monotonic() < give_up:
            time.sleep(0.01)
        with self.lock:
            self.tally.give_up(time.monotonic_ns(), list(self.waiting.values()))
            self.waiting = {}
            return self.tally.facts()
