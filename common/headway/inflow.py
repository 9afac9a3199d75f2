"""What has come of one reply and was not taken yet: its pieces and its end, for asyncio and for threads.

Knows: how much may wait. Must not know: sockets, requests.

Whoever puts never waits; the other side takes in order. What waits is bounded: when it is too much, the rest
is refused and the reader gets an error in its place, after what waits. It then leaves, which withdraws the
request.
"""

from __future__ import annotations

import asyncio
import queue
from collections import deque
from typing import Any

from headway.errors import QueueFull
from headway.messages import Reply
from headway.pieces import WAITING_BYTES_MAX, size_of


class Bound:
    """Counts what waits. PERF: one side only adds and the other only subtracts, each to a number of its own,
    so that two threads need no lock."""

    def __init__(self, bytes_max: int = WAITING_BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self._put = self._taken = 0
        self.is_over = False

    def put(self, reply: Reply) -> bool:
        """False: it is too much, from here on."""
        self._put += size_of(reply)
        self.is_over = self.is_over or self._put - self._taken > self._bytes_max
        return not self.is_over

    def take(self, reply: Any) -> None:
        if isinstance(reply, Reply):
            self._taken += size_of(reply)

    def error(self) -> QueueFull:
        return QueueFull(f"more than {self._bytes_max} bytes of the reply wait to be taken")


class Inflow:
    """For one task. `put` and `end` are called from its event loop."""

    def __init__(self, bytes_max: int = WAITING_BYTES_MAX) -> None:
        self._bound = Bound(bytes_max)
        self._waiting: deque[Any] = deque()
        self._is_ended = False
        self._reader: asyncio.Future[None] | None = None

    def put(self, piece: Reply) -> None:
        """A piece has come."""
        if self._is_ended:
            return
        if self._bound.put(piece):
            self._add(piece)
        else:
            self.end(self._bound.error())

    def end(self, outcome: Any) -> None:
        """The last of it has come, or an error."""
        if not self._is_ended:
            self._is_ended = True
            self._add(outcome)

    def _add(self, outcome: Any) -> None:
        self._waiting.append(outcome)
        if self._reader and not self._reader.done():
            self._reader.set_result(None)

    async def next(self) -> Any:
        """The next piece or the outcome; not to be called after that."""
        while not self._waiting:
            self._reader = asyncio.get_running_loop().create_future()
            await self._reader
        outcome = self._waiting.popleft()
        self._bound.take(outcome)
        return outcome


class ThreadInflow:
    """For one thread. `put` and `end` are called from one other thread at a time."""

    def __init__(self, bytes_max: int = WAITING_BYTES_MAX) -> None:
        self._bound = Bound(bytes_max)
        self._waiting: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._is_ended = False

    def put(self, piece: Reply) -> None:
        """A piece has come."""
        if self._is_ended:
            return
        if self._bound.put(piece):
            self._waiting.put(piece)
        else:
            self.end(self._bound.error())

    def end(self, outcome: Any) -> None:
        """The last of it has come, or an error. A second one counts if the telling of the first was
        interrupted (see `pump`)."""
        if not self._is_ended:
            self._waiting.put(outcome)
            self._is_ended = True

    def next(self) -> Any:
        """The next piece or the outcome; not to be called after that."""
        outcome = self._waiting.get()
        self._bound.take(outcome)
        return outcome
