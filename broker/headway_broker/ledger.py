"""The open requests, and the one outcome that each gets.

Knows: who asked for what, replies that wait to be sent, counters. Must not know: workers, batches, when.

Invariant: a request is in its caller's table exactly as long as it is open; it is settled, refused or
cancelled once; a caller without open requests has no table. No piece of a reply comes after the last of it.

A caller that does not read what it is sent must not fill the broker's memory with pieces: it says that it
reads by its Pings, and WAITING_BYTES_MAX may be on their way to it between two of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from headway.errors import ERROR_OF_CODE, HeadwayError, QueueFull
from headway.messages import OK, BatchReply, Reply
from headway.pieces import FRAMING_BYTES, WAITING_BYTES_MAX
from headway.refs import HELD
from headway_broker.catalog import Key
from headway_broker.companies import Companies
from headway_broker.holds import Holds
from headway_broker.queues import OpenRequest
from headway_broker.stats import OUTCOME_OK, ModelStats


class Ledger:
    """One broker's open requests, by caller. `unknown` counts refusals for models that are not there."""

    def __init__(self, stats: dict[Key, ModelStats], holds: Holds | None = None) -> None:
        self.stats = stats
        self._holds = holds or Holds()
        self.unknown: Counter[str] = Counter()
        self.callers: dict[bytes, dict[int, OpenRequest]] = {}
        self.replies: dict[bytes, list[Reply]] = {}
        self.companies = Companies()
        self._unread: dict[bytes, int] = {}  # bytes of pieces since the caller's last Ping

    def __iter__(self) -> Iterator[OpenRequest]:
        return (request for opened in self.callers.values() for request in opened.values())

    def find(self, caller: bytes, id: int) -> OpenRequest | None:
        """The caller's open request of that id."""
        opened = self.callers.get(caller)
        return opened.get(id) if opened else None

    def of(self, caller: bytes) -> list[OpenRequest]:
        """Everything the caller has open."""
        return list(self.callers.get(caller, {}).values())

    def open(self, request: OpenRequest) -> None:
        """Accept a request: from here on it is owed an outcome."""
        self.callers.setdefault(request.caller, {})[request.id] = request

    def refuse(self, caller: bytes, id: int, key: Key, error: HeadwayError) -> None:
        """Answer a request that was never opened."""
        outcomes = self.stats[key].outcomes if key in self.stats else self.unknown
        outcomes[type(error).__name__] += 1
        self.companies.answered(caller)
        self._reply(caller, id, reply_of(error))

    def advance(self, request: OpenRequest, piece: BatchReply, now: float) -> None:
        """Send the caller a piece of the reply. One that does not read them gets an error instead."""
        unread = self._unread.get(request.caller, 0) + FRAMING_BYTES + len(piece.content)
        if unread > WAITING_BYTES_MAX:
            text = f"more than {WAITING_BYTES_MAX} bytes of replies were sent, and their caller says nothing"
            self.fail(request, QueueFull(text), now)
            return
        self._unread[request.caller] = unread
        request.begun = True
        self._reply(request.caller, request.id, piece)

    def heard(self, caller: bytes) -> None:
        """The caller reads what it is sent."""
        if self._unread:
            self._unread.pop(caller, None)

    def settle(self, request: OpenRequest, reply: BatchReply, now: float) -> None:
        """Answer a request."""
        self.answer(request, reply.code, reply.content, reply.meta)
        self.count(request.key, reply.code, [request], now)

    def answer(self, request: OpenRequest, code: int, content: bytes | str, meta: dict[str, Any]) -> None:
        """What the worker said, and whether a worker still holds the request's slots; to be counted."""
        if request.holders:
            meta = {**meta, HELD: 1}
        self.replies.setdefault(request.caller, []).append(Reply(request.id, code, content, meta))
        self._close(request)

    def count(self, key: Key, code: int, answered: list[OpenRequest], now: float) -> None:
        """Requests for one model that have one outcome. PERF: those of a batch are counted at once."""
        self.stats[key].answered(OUTCOME_OK if code == OK else name_of(code), answered, now)

    def fail(self, request: OpenRequest, error: HeadwayError, now: float) -> None:
        """Answer with an error of the broker's own."""
        self.settle(request, reply_of(error), now)

    def cancel(self, request: OpenRequest) -> None:
        """Nobody waits for it: no answer."""
        self.stats[request.key].outcomes["Cancelled"] += 1
        self._close(request)

    def forget(self, caller: bytes) -> None:
        """The caller is gone: replies that wait for it are dropped."""
        self.replies.pop(caller, None)
        self.heard(caller)

    def take_replies(self) -> dict[bytes, list[Reply]]:
        """What is to be sent, by caller."""
        replies, self.replies = self.replies, {}
        return replies

    def _reply(self, caller: bytes, id: int, reply: BatchReply) -> None:
        self.replies.setdefault(caller, []).append(Reply(id, *reply))

    def _close(self, request: OpenRequest) -> None:
        request.open = False
        request.tensors = b""
        self.companies.answered(request.caller)
        opened = self.callers[request.caller]
        del opened[request.id]
        if not opened:
            del self.callers[request.caller]
            self.heard(request.caller)
        if request.holders:
            self._holds.keep(request)


def reply_of(error: HeadwayError) -> BatchReply:
    """An error as it travels."""
    meta = {"retry_after_ms": int(error.retry_after_s * 1000)} if error.retry_after_s else {}
    return BatchReply(error.code, str(error), meta)


def name_of(code: int) -> str:
    """The outcome's name in the counters."""
    known = ERROR_OF_CODE.get(code)
    return known.__name__ if known else f"code {code}"
