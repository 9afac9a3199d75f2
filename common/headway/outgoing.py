"""From what a caller of the library says to a `Call`, and from its outcome to what the caller gets.

Both clients and the stub share this. Must not know: sockets, threads, event loops.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgpack
import numpy as np

from headway.body import Body, body_parts
from headway.calls import Call
from headway.errors import (
    HeadwayError,
    InvalidInput,
    RemoteProtocolError,
    TooLarge,
    Unauthorized,
    UnknownModel,
    error_of,
)
from headway.lent import Lender, Lent, Received
from headway.messages import BATCH_ROWS_MAX, NAME_CHARS_MAX, OPTIONS_MAX, REQUEST_BYTES_MAX, Reply
from headway.pieces import STREAM, TRUE, takes_pieces
from headway.refs import REPLY_SLOT, SLOT
from headway.steps import Step
from headway.tensors import Part, Tensors, pieces_of, raw_pieces, size_of, unpack
from headway.wire import are_strings

DEFAULT_TIMEOUT_S = 60.0
COMMAND_TIMEOUT_S = 90.0  # a command may wait for a model to be loaded
OPTIONS_BYTES_MAX = 32768
STICKY, STICKY_CHARS_MAX = "sticky", 128
Inputs = Mapping[str, Any]


class Asked(NamedTuple):
    """A request as the library takes it: tensors packed, everything else as it will travel. `lent` are the
    slots that the options name. `options_bytes`: about what the options take in a message, where somebody has
    looked that all but the tensors can travel (`checked`); 0: nobody has."""

    model: str
    version: str
    rows: int
    options: dict[str, Any]
    tensors: bytes
    lent: tuple[Lent, ...] = ()
    options_bytes: int = 0


def ask_tensors(
    model: str, inputs: Inputs, version: str = "", batched: bool = False, lender: Lender | None = None
) -> Asked:
    """A request with tensors. `batched`: each has a leading batch dimension of the same size. Large tensors
    go into a slot of `lender`'s.

    Raises: InvalidInput naming the input; TooLarge.
    """
    arrays = {name: _array(name, value) for name, value in inputs.items()}
    pieces, rows = pieces_of(arrays), _rows(arrays) if batched else 0
    size = size_of(pieces)
    if size > REQUEST_BYTES_MAX:
        raise _too_large(size)
    if lender is not None and size >= lender.bytes_min:
        placed = lender.in_place(arrays) or lender.place(pieces)
        if placed:
            return Asked(model, version, rows, {SLOT: placed[1]}, b"", placed[:1])
    return Asked(model, version, rows, {}, b"".join(pieces))


def ask_body(model: str, body: Body | bytes, version: str = "", lender: Lender | None = None) -> Asked:
    """A request with a raw body for the model's `preprocess`. Raises: InvalidInput; TooLarge."""
    parts, options = body_parts(body if isinstance(body, Body) else Body(body))
    return ask_parts(Asked(model, version, 0, options, b""), parts, lender)


def ask_parts(
    asked: Asked, parts: list[Part], lender: Lender | None, received: Received | None = None
) -> Asked:
    """The request with tensors whose data is bytes already: packed where it was received, if that is one
    tensor in a slot, else copied. Raises: InvalidInput; TooLarge."""
    placed = received.framed(parts) if received else None
    if placed is None:
        pieces = raw_pieces(parts)
        size = size_of(pieces)
        if size > REQUEST_BYTES_MAX:
            raise _too_large(size)
        placed = lender.place(pieces) if lender is not None else None
        if placed is None:
            return Asked(asked.model, asked.version, asked.rows, asked.options, b"".join(pieces))
    options = {**asked.options, SLOT: placed[1]}
    return Asked(asked.model, asked.version, asked.rows, options, b"", placed[:1])


def sticking(asked: Asked, key: str, step: Step | None = None) -> Asked:
    """The request with a key: while traffic is split between versions, requests with one key go to one of
    them; and with its place in a sequence. Raises: InvalidInput."""
    if step:
        asked = asked._replace(options={**asked.options, **step.options}, options_bytes=0)
    if not key:
        return asked
    if not isinstance(key, str) or len(key) > STICKY_CHARS_MAX:
        raise InvalidInput(
            f"a sticky key is a string of at most {STICKY_CHARS_MAX} characters, not {key!r:.40}"
        )
    return asked._replace(options={**asked.options, STICKY: key}, options_bytes=0)


def streaming(asked: Asked) -> Asked:
    """The request, by a caller that takes its reply in pieces."""
    return asked if takes_pieces(asked.options) else saying(asked, STREAM, TRUE)


def saying(asked: Asked, key: str, value: str | int) -> Asked:
    """The request with one more option, a small one. PERF: `_replace` takes four times as long."""
    model, version, rows, options, tensors, lent, options_bytes = asked
    return Asked(model, version, rows, {**options, key: value}, tensors, lent, options_bytes)


def _too_large(size: int) -> TooLarge:
    return TooLarge(f"a request of {size} bytes is over the limit of {REQUEST_BYTES_MAX}")


def with_reply_room(asked: Asked, lender: Lender) -> Asked:
    """The request with a slot for its reply, if that will be large."""
    room = lender.reply_room(asked.model, asked.version)
    if room is None:
        return asked
    return asked._replace(options={**asked.options, REPLY_SLOT: room.reply_ref()}, lent=(*asked.lent, room))


def checked(asked: Asked) -> Asked:
    """The request, of which is known that the wire carries it: a broker refuses a whole message, and with it
    the requests of others. Others of the same `rows`, names and size of options need not be looked at.

    Raises: UnknownModel, InvalidInput, TooLarge.
    """
    for name in (asked.model, asked.version):
        if not isinstance(name, str) or len(name) > NAME_CHARS_MAX or not name.isprintable():
            raise UnknownModel(f"no model or version is named {name!r:.100}")
    if asked.rows > BATCH_ROWS_MAX:
        raise TooLarge(f"a request of {asked.rows} rows is over the limit of {BATCH_ROWS_MAX}")
    return asked._replace(options_bytes=_options_bytes(asked.options) if asked.options else 1)


def call_of(id: int, asked: Asked, deadline: float) -> Call:
    """The open call for it. Raises: as `checked`."""
    if not asked.options_bytes:
        asked = checked(asked)
    return Call(
        id,
        deadline,
        asked.model,
        asked.version,
        asked.rows,
        asked.options,
        asked.tensors,
        options_bytes=asked.options_bytes,
        slots=bool(asked.lent),
        stream=bool(asked.options) and takes_pieces(asked.options),
    )


def opened(id: int, asked: Asked, deadline: float, lender: Lender) -> Call:
    """The open call for it, with room for its reply, and its slots kept. Raises: as `call_of`."""
    if lender.reply_bytes:  # PERF: most callers never get a large one
        asked = with_reply_room(asked, lender)
    call = call_of(id, asked, deadline)
    if asked.lent:
        lender.keep(id, asked.lent)
    return call


def query_of(id: int, what: str, deadline: float) -> Call:
    """The open call for a question to the broker."""
    return Call(id, deadline, query=what)


def command_of(id: int, token: str, verb: str, arguments: dict[str, Any], deadline: float) -> Call:
    """The open call for a command of the operator's. Raises: Unauthorized for what cannot be a token."""
    if len(token) > NAME_CHARS_MAX:
        raise Unauthorized(f"a token of more than {NAME_CHARS_MAX} characters")
    return Call(id, deadline, query=verb, command=(token, arguments))


def deadline_of(now: float, timeout_s: float) -> float:
    """The point in time. A timeout may be infinite, or over already. Raises: InvalidInput for NaN."""
    if math.isnan(timeout_s):
        raise InvalidInput("timeout_s is not a number")
    return now + timeout_s


def reply_of(outcome: Any) -> Reply:
    """The reply, or its error raised."""
    if isinstance(outcome, HeadwayError):
        try:
            raise outcome
        finally:
            del outcome  # or the error holds itself through this frame, and its caller's slots
    if not isinstance(outcome, Reply) or not isinstance(outcome.content, bytes):
        raise RemoteProtocolError(f"not a reply to a request: {type(outcome).__name__}")
    return outcome


def answer_of(outcome: Any) -> dict[str, Any]:
    """The body of the answer to a question or a command, or its error raised. Raises: RemoteProtocolError for
    anything else."""
    if isinstance(outcome, HeadwayError):
        raise outcome
    if isinstance(outcome, Reply) or not isinstance(outcome, dict):
        raise RemoteProtocolError("not an answer to a question")
    if isinstance(code := outcome.get("code"), int):
        raise error_of(code, str(outcome.get("error", "")))
    return outcome


def tensors_of(reply: Reply) -> Tensors:
    """The arrays of a reply: read-only views that keep the reply alive.

    Raises: RemoteProtocolError: what is wrong with a reply is no fault of the caller's.
    """
    assert isinstance(reply.content, bytes)
    try:
        return unpack(reply.content)
    except InvalidInput as error:
        raise RemoteProtocolError(f"the reply's tensors: {error}") from None


def body_of(reply: Reply) -> Body:
    """The body of a reply."""
    assert isinstance(reply.content, bytes)
    return Body(reply.content, str(reply.meta.get("content_type", "application/octet-stream")))


def models_of(answer: dict[str, Any]) -> list[dict[str, Any]]:
    """The models in the answer to the query `models`. Raises: RemoteProtocolError when it is another."""
    models = answer.get("models")
    if not isinstance(models, list):
        raise RemoteProtocolError("an answer without models")
    return models


def _array(name: str, value: Any) -> Any:
    try:
        return np.asarray(value)
    except (TypeError, ValueError, OverflowError) as error:  # rows of different lengths, mostly
        raise InvalidInput(f"input {name!r} is no array: {error}") from None


def _options_bytes(options: dict[str, Any]) -> int:
    if len(options) > OPTIONS_MAX or not are_strings(options):
        raise InvalidInput(f"options are at most {OPTIONS_MAX} values with strings as keys")
    try:  # as deep as in the deepest message: msgpack bounds the depth
        packed: bytes = msgpack.packb([[[[[[[[options]]]]]]]])
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise InvalidInput(f"the options cannot travel: {error}") from None
    if len(packed) > OPTIONS_BYTES_MAX:
        raise TooLarge(f"options of {len(packed)} bytes are over the limit of {OPTIONS_BYTES_MAX}")
    return len(packed)


def _rows(arrays: Tensors) -> int:
    sizes = {name: array.shape[0] if array.ndim else 0 for name, array in arrays.items()}
    if not sizes or len(set(sizes.values())) > 1 or 0 in sizes.values():
        raise InvalidInput(f"a batched request needs one leading size above 0 in every input, got {sizes}")
    return next(iter(sizes.values()))
