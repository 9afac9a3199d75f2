"""The wire: `decode` is the inverse of `encode`, and refuses everything else in one way.

The messages that are tried are made from the annotations in `headway.messages`, as the checks are.
"""

from __future__ import annotations

import math
from typing import get_args, get_type_hints

import msgpack
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from headway.errors import LocalProtocolError, RemoteProtocolError
from headway.messages import (
    KINDS,
    MESSAGE_BYTES_MAX,
    REQUESTS_MAX,
    Blob,
    Bye,
    Cancels,
    Content,
    Heartbeat,
    Many,
    Map,
    Ping,
    Query,
    Replies,
    Reply,
    Request,
    Requests,
    Text,
    Uint,
)
from headway.wire import PROTOCOL, decode, encode

START = msgpack.packb([PROTOCOL, 0, 0])[:5]
LEAVES = [
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(allow_nan=False),
    st.text(max_size=5),
    st.binary(max_size=5),
]
VALUES = st.recursive(
    st.one_of(LEAVES),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def rules_of(cls):
    hints = get_type_hints(cls, include_extras=True)
    return {name: get_args(hints[name])[1] for name in cls._fields}


def allowed(rule):
    """A strategy for the values that a rule allows."""
    match rule:
        case Uint(max=most):
            return st.integers(0, most) | st.sampled_from([0, most])
        case Text():
            return st.text(max_size=10)
        case Blob():
            return st.binary(max_size=20)
        case Content():
            return st.binary(max_size=20) | st.text(max_size=10)
        case Map():
            return st.dictionaries(st.text(max_size=5), VALUES, max_size=3)
        case Many(of=of):
            return st.lists(allowed(of), max_size=3)
    return messages_of(rule)


def messages_of(cls):
    return st.builds(cls, *(allowed(rule) for rule in rules_of(cls).values()))


MESSAGES = st.one_of([messages_of(cls) for cls in KINDS.values()])


def least(rule):
    """The smallest value that a rule allows."""
    match rule:
        case Uint():
            return 0
        case Text():
            return ""
        case Blob() | Content():
            return b""
        case Map():
            return {}
        case Many():
            return []
    return [least(inner) for inner in rules_of(rule).values()]


def wrong(rule):
    """Values just outside of what a rule allows."""
    other = [None, 1.5, True]
    match rule:
        case Uint(max=most):
            return [*other, -1, most + 1, "1", b"1", math.nan]
        case Text(max=most):
            return [*other, 1, b"x", "x" * (most + 1)]
        case Blob(max=most):
            return [*other, 1, "x", *([bytes(most + 1)] if most < 1000 else [])]
        case Content():
            return [*other, 1, []]
        case Map(max=most):
            return [*other, 1, [], "x", {b"x": 1}, {str(i): 1 for i in range(most + 1)}]
        case Many(of=of, max=most):
            return [
                *other,
                1,
                {},
                [None],
                [wrong(of)[0]],
                *([[0] * (most + 1)] if most < REQUESTS_MAX else []),
            ]
    return [*other, [], {}]


def frame(kind, body):
    return msgpack.packb([PROTOCOL, kind, body])


def outcome(data):
    """The message, or None where it was refused as it should be."""
    try:
        return decode(data)
    except RemoteProtocolError as error:
        assert len(str(error)) < 500  # it goes into a log
        return None


# ---- the inverse


@settings(max_examples=100)
@given(MESSAGES)
def test_what_is_encoded_comes_back(message):
    back = decode(encode(message))
    assert back == message
    assert type(back) is type(message)


@settings(max_examples=50)
@given(MESSAGES)
def test_a_memoryview_is_as_good_as_bytes(message):
    assert decode(memoryview(encode(message))) == message


@pytest.mark.parametrize("kind", KINDS)
def test_the_least_of_every_message_is_accepted(kind):
    cls = KINDS[kind]
    message = decode(frame(kind, least(cls)))
    assert type(message) is cls
    assert decode(encode(message)) == message


def test_entries_come_back_with_their_types():
    back = decode(encode(Replies([Reply(1, 0, b"", {})])))
    assert type(back.replies[0]) is Reply
    assert back.replies[0].meta == {}


# ---- refusals


@pytest.mark.parametrize(
    ("kind", "field"), [(k, f) for k, cls in KINDS.items() for f in cls._fields], ids=lambda v: str(v)
)
def test_every_field_outside_its_limits_is_refused_by_name(kind, field):
    cls = KINDS[kind]
    for value in wrong(rules_of(cls)[field]):
        body = least(cls)
        body[cls._fields.index(field)] = value
        with pytest.raises(RemoteProtocolError, match=rf"{cls.__name__}\.{field}: "):
            decode(frame(kind, body))


@pytest.mark.parametrize("field", Request._fields)
def test_a_field_inside_an_entry_is_refused_by_its_whole_path(field):
    for value in wrong(rules_of(Request)[field]):
        body = least(Request)
        body[Request._fields.index(field)] = value
        with pytest.raises(RemoteProtocolError, match=rf"Requests\.requests: Request\.{field}: "):
            decode(frame(1, [[body]]))


@pytest.mark.parametrize("kind", KINDS)
def test_a_message_with_a_field_too_many_or_too_few_is_refused(kind):
    body = least(KINDS[kind])
    assert outcome(frame(kind, [*body, 0])) is None
    assert outcome(frame(kind, {})) is None
    assert outcome(frame(kind, None)) is None
    if body:
        assert outcome(frame(kind, body[:-1])) is None


@pytest.mark.parametrize("kind", [0, -1, 6, 255, 2**64 - 1, True, 1.0, "1", b"1", None, [], {}, "x" * 10_000])
def test_a_kind_that_there_is_not_is_refused(kind):
    assert outcome(frame(kind, [])) is None


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x93",
        START,
        b"GET / HTTP/1.1\r\nHost: here\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01",
        msgpack.packb(["HW2", 4, []]),
        msgpack.packb(["HW1", 4]),
        msgpack.packb([b"HW1", 4, []]),
        msgpack.packb(["HW1", 4, [], 0]),
        encode(Ping()) + b"\0",
        encode(Ping())[:-1],
        START + b"\x04\xdd\xff\xff\xff\xff",
        START + b"\x04\xdf\xff\xff\xff\xff",
        START + b"\x04\xdb\xff\xff\xff\xff",
        START + b"\x04\xc6\xff\xff\xff\xff",
        START + b"\x04\xc9\xff\xff\xff\xff\x01",
        START + b"\x03\x92\x01\xa1\xff",
        START + b"\x04\xc1",
        START + b"\x04\x81\x90\x01",
        START + b"\x04\xd6\xff\xff\xff\xff\xff",
    ],
)
def test_what_is_not_of_this_protocol_is_refused(data):
    assert outcome(data) is None
    assert outcome(memoryview(data)) is None


@pytest.mark.parametrize("byte", [b"\x91", b"\x81\xa0", b"\xdd\x00\x00\xff\xff", b"\xdf\x00\x00\xff\xff\xa0"])
@pytest.mark.parametrize("depth", [100, 600, 5000])
def test_deep_nesting_is_refused_whatever_it_announces(byte, depth):
    assert outcome(START + b"\x12\x91" + byte * depth) is None
    assert outcome(START + b"\x11\x92\x01\x81\xa0" + byte * depth + b"\xc0" * 10) is None


def test_a_message_over_the_limit_is_refused_on_both_sides():
    with pytest.raises(LocalProtocolError, match=str(MESSAGE_BYTES_MAX)):
        encode(Heartbeat(bytes(MESSAGE_BYTES_MAX)))
    with pytest.raises(RemoteProtocolError, match="over the limit"):
        decode(encode(Ping()) + bytes(MESSAGE_BYTES_MAX))


def test_a_list_over_the_limit_is_refused():
    assert outcome(encode(Cancels(list(range(REQUESTS_MAX))))) is not None
    assert outcome(frame(2, [list(range(REQUESTS_MAX + 1))])) is None


@settings(max_examples=100)
@given(st.binary(max_size=60))
@example(b"")
def test_arbitrary_bytes_raise_nothing_but_a_protocol_error(data):
    outcome(data)
    outcome(START + data)


@settings(max_examples=100)
@given(st.sampled_from(sorted(KINDS)), VALUES)
def test_arbitrary_bodies_raise_nothing_but_a_protocol_error(kind, body):
    outcome(frame(kind, body))
    outcome(frame(kind, [body] * len(KINDS[kind]._fields)))


@settings(max_examples=100)
@given(MESSAGES, st.data())
def test_mutated_messages_raise_nothing_but_a_protocol_error(message, data):
    mutated = bytearray(encode(message))
    for _ in range(data.draw(st.integers(1, 3))):
        mutated[data.draw(st.integers(0, len(mutated) - 1))] = data.draw(st.integers(0, 255))
    message = outcome(bytes(mutated))
    outcome(bytes(mutated[: data.draw(st.integers(0, len(mutated)))]))
    if message is not None:
        encode(message)  # what was accepted can be passed on


# ---- what cannot be encoded


def test_lone_surrogates_travel_as_question_marks():
    assert decode(encode(Query(1, "a\ud800b"))) == Query(1, "a?b")


@pytest.mark.parametrize("value", [object(), 2**64, -(2**63) - 1, {1, 2}, 1j])
def test_a_value_that_does_not_travel_is_our_own_error(value):
    with pytest.raises(LocalProtocolError, match="Requests holds what does not travel"):
        encode(Requests([Request(1, "m", "", 1, 0, 0, {"x": value}, b"")]))


def test_a_value_that_holds_itself_is_our_own_error():
    loop = []
    loop.append(loop)
    with pytest.raises(LocalProtocolError):
        encode(Requests([Request(1, "m", "", 1, 0, 0, {"x": loop}, b"")]))


def test_messages_without_fields_are_empty_arrays():
    assert msgpack.unpackb(encode(Ping())) == ["HW1", 4, []]
    assert msgpack.unpackb(encode(Bye())) == ["HW1", 5, []]
