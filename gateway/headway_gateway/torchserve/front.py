"""The outermost ASGI app of an address: gives every response of the app within the head that TorchServe's
have.

Knows: ASGI's events, `heads`. Must not know: routes, Falcon.

An app within says in the scope what ASGI has no place for: `ANSWER`, an `Answer` whose headers and phrase
count in place of those it sends, or `BARE` for a response with no header but its length.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from headway_gateway.inference import JSON, Answer
from headway_gateway.lane import Lane
from headway_gateway.torchserve.connection import LINE
from headway_gateway.torchserve.heads import BODILESS, CLOSES_FROM, Common, Pairs, own_pairs
from headway_gateway.torchserve.refusal import bad_request
from headway_gateway.torchserve.statuses import status_line

ANSWER, BARE = "headway.answer", "headway.bare"
SPOKEN = ("1.0", "1.1", "2")  # Falcon knows no others, and a line without a version is one of 0.9
_STATUS_MAX = 599  # that an ASGI server has a line for
_log = logging.getLogger("headway.gateway")
Send = Callable[[dict[str, Any]], Awaitable[None]]


class BrokenOff(Exception):
    """A response has begun and cannot be ended: the connection is closed in the middle of it."""


class Front:
    """`lane`: the app's short way, if it has one (see `lane`)."""

    def __init__(self, app: Any, common: Common, lane: Lane | None = None) -> None:
        self.app = app
        self.common = common
        if lane:
            self.lane = lane

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Send) -> None:
        if scope["type"] == "http":
            send = partial(self._send, scope, send)
            if scope.get("http_version") not in SPOKEN:
                await _refuse(send)
                return
        try:
            await self.app(scope, receive, send)
        except BrokenOff as reason:
            _log.warning("a reply in pieces broke off", extra={"facts": {"reason": str(reason)}})

    async def _send(self, scope: dict[str, Any], send: Send, event: dict[str, Any]) -> None:
        if event["type"] == "http.response.start":
            event = self._started(scope, event)
        await send(event)

    def _started(self, scope: dict[str, Any], event: dict[str, Any]) -> dict[str, Any]:
        length = [pair for pair in event["headers"] if pair[0] == b"content-length"]
        if BARE in scope:
            return {**event, "headers": length}
        answer = scope.get(ANSWER) or _answer(event)
        scope[LINE] = status_line(answer.status, answer.phrase)
        headers: Pairs = [*own_pairs(answer), *self.common.pairs]
        if answer.status not in BODILESS:
            headers += length or [(b"transfer-encoding", b"chunked")]
        if answer.status >= CLOSES_FROM:
            headers.append((b"connection", b"close"))
        return {**event, "status": min(answer.status, _STATUS_MAX), "headers": headers}


async def _refuse(send: Send) -> None:
    body = bad_request("Invalid HTTP message.").body
    headers = [(b"content-type", JSON.encode()), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 400, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _answer(event: dict[str, Any]) -> Answer:
    """What an app said that knows nothing of us."""
    said = [(name.decode("latin1").lower(), value.decode("latin1")) for name, value in event["headers"]]
    content_type = next((value for name, value in said if name == "content-type"), "")
    return Answer(event["status"], content_type, b"", tuple(said))
