"""headway.dealers: the way to the broker on this host, with libzmq at the other end. (TCP is in
test_link.py, and the broker's end in tests/broker.)"""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import zmq

from headway import link
from headway.dealers import Dealer, dial, dial_as_caller
from headway.errors import SettingsError
from headway.lines import READ_BYTES
from tests.ports import Ports

WAIT_S = 5.0


@pytest.fixture
def address(tmp_path_factory) -> str:
    return f"ipc://{tmp_path_factory.mktemp('s')}/a"


@pytest.fixture
def context() -> Iterator[zmq.Context[Any]]:
    with zmq.Context() as made:
        yield made


@pytest.fixture
def router(context, address) -> Iterator[zmq.Socket[bytes]]:
    made = link.router(context, address)
    yield made
    made.close()


@pytest.fixture
def dealer(router, address) -> Iterator[Dealer]:
    made = dial(address, b"client-1.nonce")
    yield made
    made.close()


def until(step: Callable[[], Any], dealer: Dealer) -> Any:
    """What the step gives, at last. The dealer reads its handshake only when it is asked to."""
    poll = select.poll()
    poll.register(dealer.fileno(), select.POLLIN)
    end = time.monotonic() + WAIT_S
    while time.monotonic() < end:
        if found := step():
            return found
        poll.poll(20)
    raise AssertionError("nothing came")


def asked(router: zmq.Socket[bytes], dealer: Dealer) -> list[bytes]:
    """The router's next message; meanwhile the dealer is served."""

    def step() -> list[bytes] | None:
        assert dealer.receive() is None
        received = link.receive_known(router)
        return received[0] if received else None

    return until(step, dealer)  # type: ignore[no-any-return]


def test_messages_go_both_ways_with_libzmq_at_the_other_end(router, dealer) -> None:
    assert dealer.send(b"hello")
    assert asked(router, dealer) == [b"client-1.nonce", b"hello"]
    for answer in (b"short", b"", b"x" * 300):
        router.send_multipart((b"client-1.nonce", answer))
        found: list[bytes] = []
        until(lambda: found or (found.append(f) if (f := dealer.receive()) is not None else None), dealer)  # noqa: B023
        assert found == [answer]
    assert dealer.receive() is None
    assert not dealer.has_more


def test_a_large_message_arrives_whole(router, dealer) -> None:
    large = bytes(range(256)) * (READ_BYTES // 64)
    dealer.send(large)
    assert asked(router, dealer)[1] == large
    router.send_multipart((b"client-1.nonce", large))
    assert until(dealer.receive, dealer) == large


def test_several_that_came_together_are_told_of_until_the_last_was_taken(router, dealer) -> None:
    dealer.send(b"hello")
    asked(router, dealer)
    for number in range(5):
        router.send_multipart((b"client-1.nonce", b"%d" % number))
    found = [until(dealer.receive, dealer)]
    while len(found) < 5:
        frame = dealer.receive()
        if frame is None:
            assert not dealer.has_more
            until(lambda: select.select([dealer], [], [], WAIT_S)[0], dealer)
        else:
            found.append(frame)
    assert found == [b"0", b"1", b"2", b"3", b"4"]


def test_without_a_broker_it_takes_nothing_and_finds_one_that_comes_later(context, address) -> None:
    dealer = dial(address, b"x.1")
    assert not dealer.send(b"lost")
    assert dealer.receive() is None
    router = link.router(context, address)
    assert dealer.send(b"hello")
    assert asked(router, dealer) == [b"x.1", b"hello"]
    dealer.close()
    router.close()


def test_its_descriptor_stays_while_brokers_come_and_go(context, address) -> None:
    dealer = dial(address, b"x.1")
    fd = dealer.fileno()
    for number in range(3):
        router = link.router(context, address)
        until(lambda: dealer.send(b"%d" % number), dealer)  # noqa: B023
        assert asked(router, dealer)[1] == b"%d" % number
        router.close(linger=0)
        Path(address.removeprefix("ipc://")).unlink(missing_ok=True)
        until(lambda: dealer.receive() is None and not dealer.send(b"to nobody"), dealer)
        assert dealer.fileno() == fd
    dealer.close()


# ---- another broker at the same address ----


@pytest.fixture(params=["here", "over TCP"])
def bound(request, address) -> Iterator[str]:
    """Where routers may be, one after the other."""
    ports = Ports(1)
    yield address if request.param == "here" else f"tcp://{ports.addresses[0]}"
    ports.close()


@contextmanager
def bound_to(address: str) -> Iterator[zmq.Socket[bytes]]:
    """Its connections are gone at the end, and what it sent is on its way."""
    with zmq.Context() as context, link.router(context, address) as router:
        yield router
    Path(address.removeprefix("ipc://")).unlink(missing_ok=True)


def sent(frame: bytes, router: zmq.Socket[bytes], dealer: Dealer) -> bytes:
    """As soon as it is taken, and what the router hears then is that; its name for the dealer comes back."""
    until(lambda: dealer.send(frame), dealer)
    name, received = asked(router, dealer)
    assert received == frame
    return name


def reaches(router: zmq.Socket[bytes], name: bytes) -> bool:
    try:
        router.send_multipart((name, b"here I am"), zmq.DONTWAIT)
    except zmq.ZMQError:
        return False
    return True


def test_a_callers_connection_is_not_used_for_the_message_that_finds_it_new(bound) -> None:
    with closing(dial_as_caller(bound)) as dealer:
        with bound_to(bound) as router:
            name = sent(b"hello", router, dealer)
            assert dealer.send(b"again"), "it is the same connection"
            assert asked(router, dealer)[1] == b"again"
        for number in range(3):
            with bound_to(bound) as router:
                if bound.startswith("tcp"):  # it connects by itself
                    until(lambda: reaches(router, name), dealer)
                    assert not dealer.send(b"to the one before"), "the new one's word is not heard yet"
                    assert until(dealer.receive, dealer)
                else:
                    assert not dealer.send(b"to the one before")
                sent(b"%d" % number, router, dealer)
                assert dealer.send(b"again")
                assert asked(router, dealer)[1] == b"again"


def test_a_caller_hears_all_that_an_old_connection_brought_before_it_may_send(address) -> None:
    """(libzmq, over TCP, drops what was not received when a connection is lost.)"""
    said = [b"%d" % number for number in range(5)]
    with closing(dial_as_caller(address)) as dealer:
        with bound_to(address) as router:
            name = sent(b"hello", router, dealer)
            for frame in said:
                router.send_multipart((name, frame))
            heard = [until(dealer.receive, dealer)]
        with bound_to(address) as router:
            while len(heard) < len(said):
                assert not dealer.send(b"request"), f"only {heard} were heard"
                heard += [frame] if (frame := dealer.receive()) else []
            assert heard == said
            sent(b"request", router, dealer)


def test_a_workers_new_connection_is_of_use_at_once(address) -> None:
    with closing(dial(address, b"worker.1")) as dealer:
        for number in range(3):
            with bound_to(address) as router:
                assert dealer.send(b"%d" % number)
                assert asked(router, dealer)[1] == b"%d" % number


@pytest.mark.parametrize("address", ["nonsense", "", "ipc://", "ipc://" + "x" * 200, "udp://1.2.3.4:5"])
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(SettingsError, match="address"):
        dial(address, b"x")


def test_every_caller_has_a_name_of_its_own(router, address) -> None:
    made = [dial_as_caller(address) for _ in range(2)]
    names = set()
    for dealer in made:
        dealer.send(b"hello")
        names.add(asked(router, dealer)[0])
        dealer.close()
    assert len(names) == 2
    assert all(name.startswith(b"client-") for name in names)
