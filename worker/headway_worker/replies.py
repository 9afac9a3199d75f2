"""Outcomes of requests as they go over the wire.

Knows: error codes, what a postprocess may return, JSON.
Must not know: torch, the model, when anything runs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from headway.body import Body
from headway.errors import HeadwayError, InvalidInput, ModelError, TooLarge
from headway.messages import MESSAGE_BYTES_MAX, OK, BatchReply, Piece
from headway.refs import SLOT
from headway.tensors import Buffer, Tensors, pieces_of

ERROR_CHARS_MAX = 8000
PIECE_BYTES_MAX = MESSAGE_BYTES_MAX // 2  # two may wait at the broker


# Writes a reply where its request wants it; None: nowhere. There is none for a request that reserved no slot.
Put = Callable[[list[Buffer]], int | None]


class Answer(NamedTuple):
    """A body's answer as a backend that takes requests whole has made it. `meta`: `status`, `phrase` and
    `headers` of PROTOCOL.md, where it says any."""

    body: Body
    meta: Mapping[str, Any] = MappingProxyType({})


def message_of(error: BaseException) -> str:
    """The exception's own message, or its type where it has none; cut to what is worth sending."""
    try:
        message = str(error)
    except Exception:  # an exception class of the model's that cannot even be printed
        message = ""
    return printable(message[:ERROR_CHARS_MAX]) or type(error).__name__


def error_text(error: BaseException) -> str:
    """A Headway error's own message; of any other exception its type and message."""
    kind, message = type(error).__name__, message_of(error)
    return message if isinstance(error, HeadwayError) or message == kind else f"{kind}: {message}"


def printable(text: str) -> str:
    """The text without lone surrogates, which cannot travel."""
    return text.encode(errors="replace").decode()


def error_reply(error: BaseException, meta: Mapping[str, Any] | None = None) -> BatchReply:
    """A Headway error keeps its code; everything else is the model's fault."""
    code = error.code if isinstance(error, HeadwayError) else 0
    return BatchReply(code or ModelError.code, error_text(error), dict(meta or {}))


def tensors_reply(outputs: Tensors, put: Put | None = None) -> BatchReply:
    """Packed outputs. Raises: ModelError naming an output with elements that do not travel."""
    try:
        return _reply(pieces_of(outputs), {}, put)
    except InvalidInput as error:
        raise ModelError(f"outputs: {error}") from None


def body_reply(answer: Any, put: Put | None = None) -> BatchReply:
    """What a `postprocess` returned: bytes, str, a `Body` (its data and type; it has no parts), or
    anything that JSON can say, with tensors and arrays in it as nested lists and bytes as UTF-8.

    NaN and the infinities are written as Python's json does (`NaN`, `Infinity`).
    Raises: TypeError or ValueError for what JSON cannot say.
    """
    if isinstance(answer, (bytes, bytearray, memoryview)):
        answer = Body(answer)
    elif isinstance(answer, str):
        answer = Body(answer.encode(), "text/plain; charset=utf-8")
    elif not isinstance(answer, Body):
        answer = Body(json.dumps(answer, default=_listed).encode(), "application/json")
    return _reply([bytes(answer.data)], {"content_type": answer.content_type}, put)


def answer_reply(answer: Answer, put: Put | None = None) -> BatchReply:
    """What a backend that takes requests whole returned for a body."""
    meta = {"content_type": answer.body.content_type, **answer.meta}
    return _reply([bytes(answer.body.data)], meta, put)


def piece_of(answer: Answer, batch: int, place: int) -> Piece:
    """What a backend sends of a body before it is through. Raises: TooLarge."""
    meta = {"content_type": answer.body.content_type, **answer.meta}
    if (size := len(answer.body.data)) > PIECE_BYTES_MAX:
        raise TooLarge(f"a piece of {size} bytes is over the limit of {PIECE_BYTES_MAX}")
    return Piece(batch, place, bytes(answer.body.data), meta)


def _reply(pieces: list[Buffer], meta: dict[str, Any], put: Put | None) -> BatchReply:
    length = put(pieces) if put else None
    if length is None:
        return BatchReply(OK, b"".join(pieces), meta)
    return BatchReply(OK, b"", {**meta, SLOT: length})


def _listed(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if callable(getattr(value, "tolist", None)):  # tensors, numpy's arrays and scalars
        return value.tolist()
    raise TypeError(f"a {type(value).__name__} is not JSON")
