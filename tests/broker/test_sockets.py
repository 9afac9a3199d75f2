"""The broker's doors: names say where a peer came from, and nothing is left behind. (What goes through them
is in test_router.py and test_router_tcp.py.)"""

from __future__ import annotations

import select
import socket
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import zmq

from headway import link
from headway.errors import SettingsError
from headway.messages import Heartbeat, Ping
from headway.settings import BrokerSettings
from headway.wire import encode
from headway_broker.doors import Door
from headway_broker.sockets import CALLERS, REMOTE, WORKERS, Sockets, is_remote, shown


def free_address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return f"tcp://127.0.0.1:{free.getsockname()[1]}"


class Doors:
    """Open sockets without keys, and what they reported."""

    def __init__(self, folder: str, **settings: Any) -> None:
        self.gone: list[tuple[Any, ...]] = []
        settings = {"callers_tcp": free_address(), "workers_tcp": free_address(), **settings}
        self.settings = BrokerSettings(run_dir=Path(folder), tcp_security="plain", **settings)
        self.sockets = Sockets(self.settings, 5, lambda *facts: self.gone.append(facts))
        self.context: zmq.Context[Any] = zmq.Context()

    def ready(self) -> list[Door]:
        """The doors at which something waits now, or is about to."""
        return self.sockets.ready(select.select(self.sockets.fds, [], [], 0.1)[0], 1.0)

    def hear(self) -> tuple[str, list[bytes]]:
        """The next message, and at which side."""
        for _ in range(50):
            for door in self.ready():
                if received := self.sockets.receive(door, 1.0):
                    return door.side, received
        raise AssertionError("nothing came")

    def let_in(self, *peers: zmq.Socket[bytes]) -> None:
        """Until they are connected: the doors greet when they are looked at."""
        for _ in range(50):
            if all(peer.poll(10, zmq.POLLOUT) for peer in peers):
                return
            for door in self.ready():
                assert self.sockets.receive(door, 1.0) is None
        raise AssertionError("not connected")


@pytest.fixture
def doors():
    with TemporaryDirectory(prefix="hw-") as folder:
        made = Doors(folder)
        made.sockets.open()
        yield made
        made.context.destroy(linger=0)
        made.sockets.close()
        assert not list(Path(folder).iterdir())


@pytest.mark.parametrize("side", [CALLERS, WORKERS])
@pytest.mark.parametrize("far", [False, True])
def test_an_answer_leaves_through_the_door_that_the_peer_came_in_by(
    doors: Doors, side: str, far: bool
) -> None:
    own = doors.settings
    addresses = {
        (CALLERS, False): own.callers_address,
        (WORKERS, False): own.workers_address,
        (CALLERS, True): own.callers_tcp,
        (WORKERS, True): own.workers_tcp,
    }
    peers = {key: link.dealer(doors.context, address, b"same.1") for key, address in addresses.items()}
    peer = peers[side, far]
    doors.let_in(*peers.values())
    peer.send(encode(Ping()))
    heard, (name, frame) = doors.hear()
    assert (heard, frame) == (side, encode(Ping()))
    assert name == (REMOTE if far else b"") + b"same.1"
    assert is_remote(name) is far
    doors.sockets.send(side, name, Heartbeat(b"n"), 1.0)
    assert peer.poll(5000)
    assert peer.recv() == encode(Heartbeat(b"n"))
    assert not any(other.poll(50) for key, other in peers.items() if key != (side, far))


def test_a_peer_that_is_not_there_is_reported_with_its_whole_name(doors: Doors) -> None:
    for name in (b"nobody", REMOTE + b"nobody"):
        doors.sockets.send(CALLERS, name, Heartbeat(b"n"), 3.0)
    assert [(side, peer, now, dead) for side, peer, now, _, dead in doors.gone] == [
        (CALLERS, b"nobody", 3.0, True),
        (CALLERS, REMOTE + b"nobody", 3.0, True),
    ]


def test_no_identity_that_zeromq_makes_is_taken_for_a_far_one() -> None:
    made_by_zeromq = REMOTE  # a zero, and any four bytes
    assert not is_remote(made_by_zeromq)
    assert is_remote(REMOTE + made_by_zeromq)
    assert (shown(REMOTE + b"\xab"), shown(b"\xab")) == ("tcp:ab", "ab")


def test_those_at_the_workers_doors_come_first(doors: Doors) -> None:
    addresses = (doors.settings.callers_address, doors.settings.workers_tcp)
    peers = [link.dealer(doors.context, address, b"x.1") for address in addresses]
    doors.let_in(*peers)
    for peer in peers:
        peer.send(encode(Ping()))
    ready: list[str] = []
    give_up = time.monotonic() + 10.0
    while len(ready) < 2 and time.monotonic() < give_up:
        ready = [door.side for door in doors.ready()]
        time.sleep(0.01)
    assert ready == [WORKERS, CALLERS]


def test_an_address_that_is_taken_is_named_and_nothing_stays_open() -> None:
    with TemporaryDirectory(prefix="hw-") as folder, socket.create_server(("127.0.0.1", 0)) as busy:
        made = Doors(folder, workers_tcp=f"tcp://127.0.0.1:{busy.getsockname()[1]}")
        with pytest.raises(SettingsError, match="workers_tcp: cannot listen at"):
            made.sockets.open()
        assert not list(Path(folder).iterdir())
        made.context.destroy(linger=0)


def test_who_ended_is_reported_at_once_and_after_the_last_that_it_said(doors: Doors) -> None:
    peer = link.dealer(doors.context, doors.settings.workers_address, b"w.1")
    doors.let_in(peer)
    peer.send(encode(Ping()))
    peer.close()
    assert doors.hear() == (WORKERS, [b"w.1", encode(Ping())])
    assert not doors.gone
    for _ in range(50):
        for door in doors.ready():
            assert doors.sockets.receive(door, 2.0) is None
        if doors.gone:
            break
    assert doors.gone == [(WORKERS, b"w.1", 2.0, "its connection is gone", True)]
