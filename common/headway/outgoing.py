"""From what a caller of the library says to a `Call`, and from its outcome to what the caller gets.

Both clients and the stub share this. Must not know: sockets, threads, event loops.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from headway.body import Body, pack_body
from headway.calls import Call
from headway.errors import HeadwayError, InvalidInput, RemoteProtocolError, TooLarge
from headway.messages import MESSAGE_BYTES_MAX, Reply
from headway.tensors import Tensors, pack, unpack

DEFAULT_TIMEOUT_S = 60.0
REQUEST_BYTES_MAX = MESSAGE_BYTES_MAX - 65536  # the rest is for names, options and framing
Inputs = Mapping[str, Any]


class Asked(NamedTuple):
    """A request as the library takes it: tensors packed, everything else as it will travel."""

    model: str
    version: str
    rows: int
    options: dict[str, Any]
    tensors: bytes


def ask_tensors(model: str, inputs: Inputs, version: str = "", batched: bool = False) -> Asked:
    """A request with tensors. `batched`: each has a leading batch dimension of the same size.

    Raises: InvalidInput naming the input; TooLarge.
    """
    arrays = {name: np.asarray(value) for name, value in inputs.items()}
    return Asked(model, version, _rows(arrays) if batched else 0, {}, _bounded(pack(arrays)))


def ask_body(model: str, body: Body | bytes, version: str = "") -> Asked:
    """A request with a raw body for the model's `preprocess`. Raises: TooLarge."""
    packed, options = pack_body(body if isinstance(body, Body) else Body(body))
    return Asked(model, version, 0, options, _bounded(packed))


def call_of(id: int, asked: Asked, deadline: float) -> Call:
    """The open call for it."""
    return Call(id, deadline, asked.model, asked.version, asked.rows, asked.options, asked.tensors)


def query_of(id: int, what: str, deadline: float) -> Call:
    """The open call for a question to the broker."""
    return Call(id, deadline, query=what)


def reply_of(outcome: Any) -> Reply:
    """The reply, or its error raised."""
    if isinstance(outcome, HeadwayError):
        raise outcome
    if not isinstance(outcome, Reply) or not isinstance(outcome.content, bytes):
        raise RemoteProtocolError(f"not a reply to a request: {type(outcome).__name__}")
    return outcome


def tensors_of(reply: Reply) -> Tensors:
    """The arrays of a reply: read-only views that keep the reply alive."""
    assert isinstance(reply.content, bytes)
    return unpack(reply.content)


def body_of(reply: Reply) -> Body:
    """The body of a reply."""
    assert isinstance(reply.content, bytes)
    return Body(reply.content, str(reply.meta.get("content_type", "application/octet-stream")))


def _rows(arrays: Tensors) -> int:
    sizes = {name: array.shape[0] if array.ndim else 0 for name, array in arrays.items()}
    if not sizes or len(set(sizes.values())) > 1 or 0 in sizes.values():
        raise InvalidInput(f"a batched request needs one leading size above 0 in every input, got {sizes}")
    return next(iter(sizes.values()))


def _bounded(packed: bytes) -> bytes:
    if len(packed) > REQUEST_BYTES_MAX:
        raise TooLarge(f"a request of {len(packed)} bytes is over the limit of {REQUEST_BYTES_MAX}")
    return packed
