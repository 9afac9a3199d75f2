"""Messages as bytes and back: one msgpack frame for each, refused loudly when it is not one of ours.

Knows: the frame `[PROTOCOL, kind, body]`, the checks that `messages` asks for.
Must not know: sockets, what is inside `tensors`.

Invariant: `decode(encode(m)) == m` for every valid message, and `decode` raises `RemoteProtocolError`,
and nothing else, for any other bytes (an open ZeroMQ TCP port delivers plain HTTP text as messages).
The checks are built once, from the annotations in `messages`; a message with many requests spends
about a microsecond on each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NoReturn, get_args, get_type_hints

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
        frame: bytes = msgpack.Packer().pack(entries)
    except UnicodeEncodeError:  # lone surrogates, as from a file name that is no UTF-8: "?" will do
        frame = msgpack.Packer(unicode_errors="replace").pack(entries)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise LocalProtocolError(f"{type(message).__name__} holds what does not travel: {error}") from None
    if len(frame) > MESSAGE_BYTES_MAX:
        raise LocalProtocolError(f"a message of {len(frame)} bytes is over the limit of {MESSAGE_BYTES_MAX}")
    return frame


def decode(frame: bytes | memoryview) -> Message:
    """The message in a frame. Raises: RemoteProtocolError saying what is wrong with it."""
    if frame[:5] != _PREFIX:
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


class _Field:
    """One field's rule: `test` is a Python expression over the name V, `text` says the same in words, and
    `build` turns the value into a message, or a list; `each` does so with an entry of a list of messages."""

    def __init__(self, name: str, rule: Any) -> None:
        self.name = name
        self.test, self.text = _test(rule)
        self.each = _builder(rule.of) if isinstance(rule, Many) and isinstance(rule.of, type) else None
        self.build = _nested(rule, self.each)
        self.holds = eval(f"lambda V: {self.test}", {"are_strings": are_strings})

    def refusal(self, value: Any) -> str:
        """What is wrong with the value; "" if nothing is."""
        try:
            if not self.holds(value):
                return f"{self.text}, not {_short(value)}"
            if self.build:
                self.build(value)
        except RemoteProtocolError as error:
            return str(error)
        return ""


def _builder(cls: type[Any]) -> Check:
    """A function that makes a `cls` of an array, and refuses one whose fields break their rules.

    PERF: the function is compiled from one expression over all fields, as `dataclasses` does it; a call
    for each field took 1.6 us a request where this takes 0.7, and a request is decoded four times. A list of
    messages is built in the same expression: a call less for each list, of which a lone request has three.
    """
    hints = get_type_hints(cls, include_extras=True)
    fields = [_Field(name, get_args(hints[name])[1]) for name in cls._fields]

    def refuse(body: Any) -> NoReturn:
        if type(body) is not list or len(body) != len(fields):
            raise RemoteProtocolError(
                f"{cls.__name__} is an array of {len(fields)} fields, not {_short(body)}"
            )
        found = ((field.name, field.refusal(value)) for field, value in zip(fields, body, strict=True))
        name, reason = next((name, reason) for name, reason in found if reason)
        raise RemoteProtocolError(f"{cls.__name__}.{name}: {reason}")

    names = [f"v{i}" for i in range(len(fields))]
    tests = [field.test.replace("V", name) for field, name in zip(fields, names, strict=True)]
    values = [_value(field, i) for i, field in enumerate(fields)]
    source = f"""
def build(body):
    if type(body) is list and len(body) == {len(fields)}:
        {"[" + ", ".join(names) + "] = body" if fields else "pass"}
        if {" and ".join(tests) or "True"}:
            try:
                return new(cls, ({"".join(value + ", " for value in values)}))
            except RemoteProtocolError:
                pass
    refuse(body)
"""
    scope: dict[str, Any] = {f"b{i}": field.each or field.build for i, field in enumerate(fields)}
    scope |= {"cls": cls, "new": tuple.__new__, "refuse": refuse, "are_strings": are_strings}
    exec(source, scope | {"RemoteProtocolError": RemoteProtocolError}, scope)
    build: Check = scope["build"]
    return build


def _test(rule: Any) -> tuple[str, str]:
    match rule:
        case Uint(max=most):
            return f"type(V) is int and 0 <= V <= {most}", f"an integer from 0 to {most}"
        case Text(max=most):
            return f"type(V) is str and len(V) <= {most}", f"str of at most {most}"
        case Blob(max=most):
            return f"type(V) is bytes{_within(most)}", f"bytes of at most {most}"
        case Content(max=most):
            return f"type(V) in (bytes, str){_within(most)}", f"bytes or str of at most {most}"
        case Map(max=most):
            return (
                f"type(V) is dict and (not V or len(V) <= {most} and are_strings(V))",
                f"a map with at most {most} string keys",
            )
        case Many(max=most):
            return f"type(V) is list and len(V) <= {most}", f"a list of at most {most}"
        case type():
            return "True", ""
    raise TypeError(f"no check for {rule!r}")


def _within(most: int) -> str:
    """PERF: what is as long as a frame may be needs no look."""
    return f" and len(V) <= {most}" if most < MESSAGE_BYTES_MAX else ""


def _value(field: _Field, place: int) -> str:
    """The expression for what the message has in that place."""
    if field.each:
        return f"[b{place}(v) for v in v{place}]"
    return f"b{place}(v{place})" if field.build else f"v{place}"


def _nested(rule: Any, each: Check | None) -> Check | None:
    """How to turn a value that holds messages, or a list, into what the message has."""
    if isinstance(rule, type):
        return _builder(rule)
    if not isinstance(rule, Many):
        return None
    if each:
        return lambda values: [each(value) for value in values]
    field = _Field("", rule.of)
    return lambda values: [_held(field, value) for value in values]


def _held(field: _Field, value: Any) -> Any:
    if not field.holds(value):
        raise RemoteProtocolError(field.refusal(value))
    return value


def are_strings(values: Iterable[Any]) -> bool:
    """Whether they are strings, all of them."""
    try:
        "".join(values)  # PERF: it takes nothing else, and a third of the time of looking at each
    except TypeError:
        return False
    return True


def _short(value: Any) -> str:
    if value is None or isinstance(value, (int, float)):
        return repr(value)
    return f"{type(value).__name__} of {len(value)}" if hasattr(value, "__len__") else type(value).__name__


_BUILD: dict[int, Check] = {kind: _builder(cls) for kind, cls in KINDS.items()}
