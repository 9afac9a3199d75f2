"""The head of every TorchServe response: which headers, in which order, on whichever way it leaves.

    content-type, what the handler set, x-request-id, CORS, caching, content-length

Knows: the headers that all responses have. Must not know: ASGI, transports, routes.

`connection` is the server's to say; it is `close` from status 400 on.
"""

from __future__ import annotations

from functools import lru_cache
from random import getrandbits
from typing import NamedTuple

from headway.torchserve.properties import Properties
from headway_gateway.inference import Answer

REQUEST_ID = "x-request-id"
BODILESS = (204, 304)
SILENT = 0  # the status of an answer that is not given: the client waits until it has had enough
CLOSES_FROM = 400
_CACHING = (
    ("pragma", "no-cache"),
    ("cache-control", "no-cache; no-store, must-revalidate, private"),
    ("expires", "Thu, 01 Jan 1970 00:00:00 UTC"),
)
_CORS = (
    ("access-control-allow-origin", "cors_allowed_origin"),
    ("access-control-allow-methods", "cors_allowed_methods"),
    ("access-control-allow-headers", "cors_allowed_headers"),
)
_OWN = {REQUEST_ID, "content-type", "content-length", "transfer-encoding", "connection", *dict(_CACHING)}
_RANDOM = 0xFFFFFFFF_FFFF_0FFF_3FFF_FFFFFFFFFFFF  # the bits of a UUID that say nothing of what it is
_VERSION_4 = 0x00000000_0000_4000_8000_000000000000
Pairs = list[tuple[bytes, bytes]]


def request_id() -> str:
    """A random UUID. PERF: `uuid.uuid4` takes three times as long, a third of all else there is to an
    answer's head; nobody has to be unable to guess it."""
    digits = (getrandbits(128) & _RANDOM | _VERSION_4).to_bytes(16, "big").hex()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


class Common(NamedTuple):
    """The headers that say the same in every response."""

    pairs: tuple[tuple[bytes, bytes], ...]
    lines: bytes


def common_of(properties: Properties) -> Common:
    cors = [(name, str(getattr(properties, key))) for name, key in _CORS if getattr(properties, key)]
    pairs = [(name.encode("latin1"), value.encode("latin1")) for name, value in (*cors, *_CACHING)]
    return Common(tuple(pairs), b"".join(b"%s: %s\r\n" % pair for pair in pairs))


def own_pairs(answer: Answer) -> Pairs:
    """What this answer says itself. A request's id that it does not name is made up."""
    ids = [value for name, value in answer.headers if name.lower() == REQUEST_ID]
    id = (ids[-1] if ids else "") or request_id()  # the last one: a handler's own does not count
    return [*_said(answer.content_type, answer.headers), (b"x-request-id", id.encode("latin1"))]


def own_lines(answer: Answer) -> bytes:
    """The same as it is written. PERF: what a model's answers say is the same each time, but for the id,
    which comes last."""
    headers = answer.headers
    if headers and headers[-1][0] == REQUEST_ID and headers[-1][1]:
        id = headers[-1][1].encode("latin1")
        return b"%bx-request-id: %b\r\n" % (_lines(answer.content_type, headers[:-1]), id)
    return b"".join([b"%b: %b\r\n" % pair for pair in own_pairs(answer)])


@lru_cache(256)
def _lines(content_type: str, headers: tuple[tuple[str, str], ...]) -> bytes:
    return b"".join([b"%b: %b\r\n" % pair for pair in _said(content_type, headers)])


def _said(content_type: str, headers: tuple[tuple[str, str], ...]) -> Pairs:
    """Without the request's id, and what is for the server to say."""
    pairs: Pairs = [(b"content-type", content_type.encode("latin1"))] if content_type else []
    for name, value in headers:
        if name.lower() not in _OWN:
            pairs.append((name.lower().encode("latin1"), value.encode("latin1")))
    return pairs
