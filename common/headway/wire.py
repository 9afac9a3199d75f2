"""Messages as bytes and back: one msgpack frame for each, refused loudly when it is not one of ours.

Knows: the frame `[PROTOCOL, kind, body]`, the checks that `messages` asks for.
Must not know: sockets, what is inside `tensors`.

Invariant: `decode(encode(m)) == m` for every valid message, and `decode` raises `RemoteProtocolError`,
and nothing else, for any other bytes (an open ZeroMQ TCP port delivers plain HTTP text as messages).
The checks are built once, from the annotations in `messages`; a message with many requests spends
about a microsecond on each.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args, get_type_hints

import msgpack

from headway.errors import LocalProtocolError, RemoteProtocolError
from headway.messages import (
    KINDS,
    MESSAGE_BYTES_MAX,
    REQUESTS_MAX,
    Blob,
    Content,
    Many,
    Map,
    Message,
    Text,
    Uint,
)

PROTOCOL = "HW1"
_PREFIX = b"\x93\xa3HW1"  # an array of three whose first entry is the string PROTOCOL
_KIND_OF = {message: kind for kind, message in KINDS.items()}

Check = Callable[[Any], Any]


def encode(message: Message) -> bytes:
    """One frame. Raises: LocalProtocolError when it would be over MESSAGE_BYTES_MAX, or cannot travel."""
    entries = (PROTOCOL, _KIND_OF[type(message)], message)
    try:
        frame = _packed(entries)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise LocalProtocolError(f"{type(message).__name__} holds what does not travel: {error}") from None
    if len(frame) > MESSAGE_BYTES_MAX:
        raise LocalProtocolError(f"a message of {len(frame)} bytes is over the limit of {MESSAGE_BYTES_MAX}")
    return frame


def _packed(entries: tuple[Any, ...]) -> bytes:
    try:
        frame: bytes = msgpack.packb(entries)
    except UnicodeEncodeError:  # lone surrogates, as from a file name that is no UTF-8: "?" will do
        frame = msgpack.packb(entries, unicode_errors="replace")
    return frame


def decode(frame: bytes | memoryview) -> Message:
    """The message in a frame. Raises: RemoteProtocolError saying what is wrong with it."""
    if bytes(frame[:5]) != _PREFIX:
        raise RemoteProtocolError(f"not a {PROTOCOL} message: it starts with {bytes(frame[:8])!r}")
    if len(frame) > MESSAGE_BYTES_MAX:
        raise RemoteProtocolError(f"a message of {len(frame)} bytes is over the limit")
    try:
        _, kind, body = msgpack.unpackb(frame, max_array_len=REQUESTS_MAX, max_map_len=REQUESTS_MAX)
    except (ValueError, TypeError, RecursionError, MemoryError, msgpack.UnpackException) as error:
        raise RemoteProtocolError(f"not msgpack: {error}") from None
    build = _BUILD.get(kind) if type(kind) is int else None
    if build is None:
        raise RemoteProtocolError(f"there is no message of kind {_short(kind)}")
    message: Message = build(body)
    return message


def _builder(cls: type[Any]) -> Check:
    """A function that makes a `cls` of an array, checking each field."""
    hints = get_type_hints(cls, include_extras=True)
    names = cls._fields
    checks = [_check(get_args(hints[name])[1]) for name in names]

    def build(body: Any) -> Any:
        if type(body) is not list or len(body) != len(checks):
            raise RemoteProtocolError(
                f"{cls.__name__} is an array of {len(checks)} fields, not {_short(body)}"
            )
        fields: list[Any] = []
        try:
            for check, value in zip(checks, body, strict=True):
                fields.append(check(value))
        except RemoteProtocolError as error:
            raise RemoteProtocolError(f"{cls.__name__}.{names[len(fields)]}: {error}") from None
        return cls._make(fields)

    return build


def _check(rule: Any) -> Check:
    match rule:
        case Uint(max=most):
            return _uint(most)
        case Text(max=most):
            return _sized((str,), most)
        case Blob(max=most):
            return _sized((bytes,), most)
        case Content(max=most):
            return _sized((bytes, str), most)
        case Map(max=most):
            return _map(most)
        case Many(of=of, max=most):
            return _many(_check(of), most)
        case type():
            return _builder(rule)
    raise TypeError(f"no check for {rule!r}")


def _uint(most: int) -> Check:
    def check(value: Any) -> Any:
        if type(value) is not int or not 0 <= value <= most:
            raise RemoteProtocolError(f"an integer from 0 to {most}, not {_short(value)}")
        return value

    return check


def _sized(types: tuple[type, ...], most: int) -> Check:
    def check(value: Any) -> Any:
        if type(value) not in types or len(value) > most:
            names = " or ".join(t.__name__ for t in types)
            raise RemoteProtocolError(f"{names} of at most {most}, not {_short(value)}")
        return value

    return check


def _map(most: int) -> Check:
    def check(value: Any) -> Any:
        if not value and type(value) is dict:
            return value
        if type(value) is not dict or len(value) > most or not all(type(key) is str for key in value):
            raise RemoteProtocolError(f"a map with at most {most} string keys, not {_short(value)}")
        return value

    return check


def _many(check_one: Check, most: int) -> Check:
    def check(value: Any) -> Any:
        if type(value) is not list or len(value) > most:
            raise RemoteProtocolError(f"a list of at most {most}, not {_short(value)}")
        return [check_one(v) for v in value]

    return check


def _short(value: Any) -> str:
    if value is None or isinstance(value, (int, float)):
        return repr(value)
    return f"{type(value).__name__} of {len(value)}" if hasattr(value, "__len__") else type(value).__name__


_BUILD: dict[int, Check] = {kind: _builder(cls) for kind, cls in KINDS.items()}
