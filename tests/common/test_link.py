"""Sockets with the options that Headway needs, seen from outside."""

from __future__ import annotations

import math

import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st

from headway import link
from headway.errors import SettingsError
from headway.messages import MESSAGE_BYTES_MAX


@pytest.fixture
def context():
    with zmq.Context() as made:
        yield made


@pytest.fixture
def address(tmp_path_factory):
    return f"ipc://{tmp_path_factory.mktemp('s')}/a"


@pytest.fixture
def pair(context, address):
    """A router and a dealer, connected."""
    router, dealer = link.router(context, address), link.dealer(context, address, b"client-1.nonce")
    assert dealer.poll(5000, zmq.POLLOUT)
    yield router, dealer
    router.close()
    dealer.close()


def test_a_router_sees_the_identity_that_the_dealer_chose(pair):
    router, dealer = pair
    dealer.send(b"hello")
    assert router.recv_multipart() == [b"client-1.nonce", b"hello"]


def test_a_dealer_without_a_connection_refuses_to_take_messages(context, address):
    dealer = link.dealer(context, address, b"x")
    with pytest.raises(zmq.Again):
        dealer.send(b"lost", zmq.DONTWAIT)
    dealer.close()


def test_a_router_says_when_a_peer_is_unknown(pair):
    router, _ = pair
    with pytest.raises(zmq.ZMQError) as caught:
        router.send_multipart((b"nobody", b""), zmq.DONTWAIT)
    assert caught.value.errno == zmq.EHOSTUNREACH


def test_every_socket_has_bounds(pair):
    for socket in pair:
        assert 0 <= socket.getsockopt(zmq.LINGER) <= 1000
        assert socket.getsockopt(zmq.MAXMSGSIZE) == MESSAGE_BYTES_MAX
        assert socket.getsockopt(zmq.SNDHWM) == socket.getsockopt(zmq.RCVHWM) == link.HIGH_WATER


def test_a_router_refuses_an_address_it_cannot_bind(context):
    with pytest.raises(zmq.ZMQError):
        link.router(context, "ipc:///nowhere/at/all/a.sock")


@pytest.mark.parametrize("address", ["nonsense", "", "ipc://" + "x" * 200, "udp://1.2.3.4:5"])
def test_a_dealer_refuses_an_address_that_is_none(context, address):
    with pytest.raises(SettingsError, match="address"):
        link.dealer(context, address, b"x")


def test_every_caller_has_an_identity_of_its_own(address):
    made = [link.caller(address) for _ in range(2)]
    identities = {socket.getsockopt(zmq.IDENTITY) for _, socket in made}
    assert len(identities) == 2
    assert all(i.startswith(b"client-") for i in identities)
    for context, socket in made:
        socket.close()
        context.term()


@pytest.mark.parametrize(
    ("wake", "now", "wait_ms"),
    [
        (None, 5, None),
        (math.inf, 5, None),
        (-math.inf, 5, 0),
        (5, 5, 0),
        (4, 5, 0),
        (5.0001, 5, 1),
        (6, 5, 1000),
    ],
)
def test_waiting_is_rounded_up_to_milliseconds(wake, now, wait_ms):
    assert link.wait_ms(wake, now) == wait_ms


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6))
def test_nobody_wakes_too_early_and_none_sleeps_for_too_long(wake, now):
    wait_ms = link.wait_ms(wake, now)
    assert wait_ms >= 0
    assert now + wait_ms / 1000 >= wake - 1e-6
    assert now + wait_ms / 1000 <= max(wake, now) + 0.001 + 1e-6
