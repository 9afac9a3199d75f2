"""headway.zmtp: what it takes for ZMTP, however it is cut, and what it refuses."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.errors import RemoteProtocolError
from headway.zmtp import FRAMES_MAX, Inbound, framed, opening

GREETING = opening(b"DEALER")[:64]
FRAMES = st.lists(st.binary(max_size=600), max_size=8)


def heard(inbound: Inbound, data: bytes, size: int) -> list[list[bytes]]:
    """What comes of the data in pieces of that size."""
    return [m for at in range(0, len(data), size) for m in inbound.feed(data[at : at + size])]


@given(FRAMES, st.binary(max_size=200).filter(lambda name: name[:1] != b"\0"), st.integers(1, 700))
def test_what_one_end_says_the_other_hears_however_it_is_cut(frames, name, size) -> None:
    inbound = Inbound(b"ROUTER")
    said = opening(b"DEALER", name) + b"".join(map(framed, frames))
    assert heard(inbound, said, size) == [[frame] for frame in frames]
    assert inbound.identity == name


@given(st.lists(st.lists(st.binary(max_size=300), min_size=1, max_size=FRAMES_MAX)), st.integers(1, 400))
def test_frames_of_one_message_stay_together(messages, size) -> None:
    said = opening(b"DEALER", b"x")
    for message in messages:
        *more, last = map(framed, message)
        said += b"".join(bytes([frame[0] | 1]) + frame[1:] for frame in more) + last
    assert heard(Inbound(b"ROUTER"), said, size) == messages


def test_nobody_has_a_name_before_ready() -> None:
    inbound = Inbound(b"ROUTER")
    assert inbound.feed(GREETING) == []
    assert inbound.identity is None
    inbound.feed(opening(b"DEALER", b"me")[64:])
    assert inbound.identity == b"me"


@pytest.mark.parametrize(
    "said",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\xff" + b"x" * 63,
        GREETING[:10] + b"\x02" + GREETING[11:],  # ZMTP 2
        GREETING.replace(b"NULL", b"CURV"),
        GREETING + framed(b"a message before READY"),
        GREETING + b"\x04\x05\x05READ",  # a command that ends too early
        GREETING + b"\x04\x0f\x05ERROR\x08too late",
        opening(b"PUB", b"x"),
        opening(b"DEALER", b"\0one that only a router gives"),
        opening(b"DEALER", b"x" * 256),
        opening(b"DEALER") + b"\x02" + (1 << 40).to_bytes(8, "big"),
        opening(b"DEALER") + b"\x06" + (1 << 20).to_bytes(8, "big"),
        opening(b"DEALER") + b"\x01\x01x" * (FRAMES_MAX + 1),
    ],
)
def test_what_is_no_zmtp_is_refused(said: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        Inbound(b"ROUTER").feed(said)


@given(st.binary(max_size=300), st.integers(1, 100))
def test_nothing_else_is_raised_for_any_bytes(said: bytes, size: int) -> None:
    for before in (b"", GREETING, opening(b"DEALER")):
        with suppress(RemoteProtocolError):
            heard(Inbound(b"ROUTER"), before + said, size)


def test_a_message_has_as_many_bytes_as_it_may_in_however_many_frames() -> None:
    opened = opening(b"DEALER")
    assert Inbound(b"ROUTER", most=300).feed(opened + framed(b"x" * 300)) == [[b"x" * 300]]
    for said in (framed(b"x" * 301), b"\x01\xc8" + b"x" * 200 + framed(b"x" * 101)):
        with pytest.raises(RemoteProtocolError):
            Inbound(b"ROUTER", most=300).feed(opened + said)


def test_a_ping_is_answered_with_its_context_and_other_commands_are_dropped() -> None:
    inbound = Inbound(b"ROUTER")
    ping = b"\x04\x0b\x04PING\x00\x01four"
    assert inbound.feed(opening(b"DEALER") + b"\x04\x05\x04OHNO" + ping + framed(b"m")) == [[b"m"]]
    assert inbound.answers == b"\x04\x09\x04PONGfour"
