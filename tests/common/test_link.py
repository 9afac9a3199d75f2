"""Sockets with the options that Headway needs, seen from outside."""

from __future__ import annotations

import pytest
import zmq

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


# ---- TCP ----


@pytest.fixture
def far_pair(context):
    """A router and a dealer over TCP, connected."""
    router = link.router(context, "tcp://127.0.0.1:*")
    address = router.getsockopt(zmq.LAST_ENDPOINT).decode().rstrip("\0")
    dealer = link.dealer(context, address, b"client-1.nonce")
    assert dealer.poll(5000, zmq.POLLOUT)
    yield router, dealer, address
    router.close()
    dealer.close()


def test_both_ends_over_tcp_look_whether_the_other_is_there(far_pair, pair):
    for socket in far_pair[:2]:
        assert socket.getsockopt(zmq.HEARTBEAT_IVL) == link.BEAT_MS
        assert socket.getsockopt(zmq.HEARTBEAT_TIMEOUT) == link.BEAT_TIMEOUT_MS
        assert socket.getsockopt(zmq.TCP_KEEPALIVE) == 1
        assert socket.getsockopt(zmq.MAXMSGSIZE) == MESSAGE_BYTES_MAX
        assert 0 < socket.getsockopt(zmq.HANDSHAKE_IVL) <= 5000
    assert far_pair[1].getsockopt(zmq.CONNECT_TIMEOUT) == link.CONNECT_TIMEOUT_MS
    assert all(socket.getsockopt(zmq.HEARTBEAT_IVL) == 0 for socket in pair), "a path is never half open"


def test_a_peer_that_comes_back_while_its_old_connection_is_half_open_is_heard(context, far_pair):
    router, dealer, address = far_pair
    dealer.send(b"old")
    assert router.poll(5000)
    assert link.receive_known(router) == ([b"client-1.nonce", b"old"], b"")
    again = link.dealer(context, address, b"client-1.nonce")
    assert again.poll(5000, zmq.POLLOUT)
    again.send(b"new")
    assert router.poll(5000)
    assert link.receive_known(router) == ([b"client-1.nonce", b"new"], b"")
    link.send_to(router, b"client-1.nonce", b"answer")
    assert again.poll(5000)
    again.close()


def test_who_spoke_is_not_known_without_keys(far_pair):
    router, dealer, _ = far_pair
    dealer.send(b"hello")
    assert router.poll(5000)
    assert link.receive_known(router) == ([b"client-1.nonce", b"hello"], b"")
    assert link.receive_known(router) is None


def test_ipv6_works_in_brackets(context):
    try:
        router = link.router(context, "tcp://[::1]:*")
    except zmq.ZMQError as error:
        pytest.skip(f"no IPv6 on loopback here: {error}")
    address = router.getsockopt(zmq.LAST_ENDPOINT).decode().rstrip("\0")
    dealer = link.dealer(context, address, b"x.1")
    assert dealer.poll(5000, zmq.POLLOUT)
    dealer.close()
    router.close()
