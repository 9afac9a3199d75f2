"""headway.lines: one connection, between two real sockets."""

from __future__ import annotations

import select
import socket
from collections.abc import Iterator

import pytest

from headway import lines
from headway.lines import Closed, Line
from headway.zmtp import framed, opening


@pytest.fixture
def ends() -> Iterator[tuple[Line, Line]]:
    """A dealer's and a router's."""
    first, second = socket.socketpair(socket.AF_UNIX)
    dealer, router = Line(first, b"DEALER", b"me"), Line(second, b"ROUTER")
    yield dealer, router
    dealer.close()
    router.close()


def met(ends: tuple[Line, Line]) -> tuple[Line, Line]:
    """The same, when each knows the other."""
    for end in ends:
        assert end.read() == []
    return ends


def test_each_end_learns_who_the_other_is(ends) -> None:
    dealer, router = met(ends)
    assert (dealer.identity, router.identity) == (b"", b"me")


def test_what_is_said_too_early_waits_until_the_other_end_is_ready(ends) -> None:
    dealer, router = ends
    assert dealer.send(b"first")
    assert dealer.send(b"second")
    assert router.read() == [], "not before READY"
    dealer.read()
    assert dealer.send(b"third")
    assert router.read() == [[b"first"], [b"second"], [b"third"]]


def test_more_than_the_kernel_takes_arrives_whole_and_in_order(ends) -> None:
    dealer, router = met(ends)
    sent = [bytes([number]) * 50_000 for number in range(40)]
    assert all(dealer.send(frame) for frame in sent)
    assert dealer.waiting
    assert dealer.events == select.EPOLLIN | select.EPOLLOUT
    heard: list[list[bytes]] = []
    for _ in range(1000):
        heard += router.read()
        dealer.flush()
    assert [frame for [frame] in heard] == sent
    assert dealer.events == select.EPOLLIN


def test_one_that_does_not_read_is_kept_so_much_for_and_no_more(ends, monkeypatch) -> None:
    monkeypatch.setattr(lines, "WAITING_BYTES_MAX", 100_000)
    dealer, router = met(ends)
    taken = 0
    while dealer.send(bytes(10_000)):
        taken += 1
        assert taken < 1000
    heard = 0
    for _ in range(1000):
        heard += len(router.read())
        dealer.flush()
    assert heard == taken, "what was taken is not lost"
    assert dealer.send(b"again")


def test_so_much_and_no_more_is_kept_for_one_that_never_says_ready(ends, monkeypatch) -> None:
    monkeypatch.setattr(lines, "WAITING_BYTES_MAX", 1000)
    dealer, _ = ends
    assert sum(dealer.send(bytes(100)) for _ in range(50)) == 10


def test_the_end_comes_after_the_last_message_and_says_that_the_peer_is_gone(ends) -> None:
    dealer, router = met(ends)
    dealer.send(b"last words")
    dealer.close()
    assert router.read() == [[b"last words"]]
    with pytest.raises(Closed) as closed:
        router.read()
    assert closed.value.is_gone
    with pytest.raises(Closed):
        router.send(b"to nobody")


def test_what_still_waits_leaves_when_it_is_closed() -> None:
    first, second = socket.socketpair(socket.AF_UNIX)
    dealer, router = met((Line(first, b"DEALER"), Line(second, b"ROUTER")))
    size = 0
    while not dealer.waiting:
        dealer.send(bytes(20_000))
        size += 1
    heard = len(router.read())  # which makes room for the rest
    dealer.close()
    with pytest.raises(Closed):
        for _ in range(1000):
            heard += len(router.read())
    router.close()
    assert heard == size


def test_what_is_no_zmtp_closes_it_and_its_peer_may_live() -> None:
    first, second = socket.socketpair(socket.AF_UNIX)
    router = Line(second, b"ROUTER")
    first.sendall(b"GET / HTTP/1.1\r\n\r\n")
    with pytest.raises(Closed, match="greeting") as closed:
        router.read()
    assert not closed.value.is_gone
    first.close()
    router.close()


def test_a_ping_is_answered_at_once(ends) -> None:
    first, second = socket.socketpair(socket.AF_UNIX)
    router = Line(second, b"ROUTER")
    first.sendall(opening(b"DEALER") + b"\x04\x0b\x04PING\x00\x01four" + framed(b"m"))
    assert router.read() == [[b"m"]]
    assert first.recv(1000).endswith(b"\x04PONGfour")
    first.close()
    router.close()
