"""headway_broker.near: the door for this host, with real connections, libzmq's among them."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import zmq

from headway import lines, link
from headway.lines import Closed, Line
from headway.zmtp import opening
from headway_broker import near
from headway_broker.doors import Full, Lost, Unreachable
from headway_broker.near import NearDoor

WAIT_S = 10.0


@pytest.fixture
def path() -> Iterator[Path]:
    with TemporaryDirectory(prefix="hw-") as folder:
        yield Path(folder) / "a.sock"


@pytest.fixture
def door(path: Path) -> Iterator[NearDoor]:
    made = NearDoor("callers", path)
    yield made
    made.close()


def peer(path: Path, name: bytes) -> Line:
    connecting = socket.socket(socket.AF_UNIX)
    connecting.connect(str(path))
    return Line(connecting, b"DEALER", name)


def let_in(door: NearDoor, *names: bytes) -> None:
    """Until the door knows them."""
    until(door, lambda: door.receive() is None and set(names) <= door._by_name.keys())


def hear(door: NearDoor, count: int = 1) -> list[list[bytes]]:
    """So many messages."""
    heard: list[list[bytes]] = []

    def step() -> bool:
        while (message := door.receive()) is not None:
            heard.append(message)
        return len(heard) >= count

    until(door, step)
    return heard


def lost(door: NearDoor) -> list[Lost]:
    found: list[Lost] = []

    def step() -> bool:
        assert door.receive() is None
        found.extend(door.take_lost())
        return bool(found)

    until(door, step)
    return found


def until(door: NearDoor, step: Callable[[], Any]) -> None:
    give_up = time.monotonic() + WAIT_S
    while not step():
        assert time.monotonic() < give_up, "nothing came"
        select.select([door.fd], [], [], 0.05)


def read(line: Line, count: int = 1) -> list[bytes]:
    found: list[bytes] = []
    give_up = time.monotonic() + WAIT_S
    while len(found) < count:
        assert time.monotonic() < give_up, "nothing came"
        select.select([line.fd], [], [], 0.05)
        found += [frame for frames in line.read() for frame in frames]
    return found


def test_a_peer_is_known_by_the_name_that_it_says(door, path) -> None:
    first, second = peer(path, b"a.1"), peer(path, b"b.1")
    let_in(door, b"a.1", b"b.1")
    for line, word in ((first, b"one"), (second, b"two")):
        line.read()
        line.send(word)
    assert sorted(hear(door, 2)) == [[b"a.1", b"one"], [b"b.1", b"two"]]
    door.send(b"a.1", b"to a")
    door.send(b"b.1", b"to b")
    assert (read(first), read(second)) == ([b"to a"], [b"to b"])
    first.close()
    second.close()


def test_libzmqs_dealers_are_served_with_a_name_of_their_own_or_without(door, path) -> None:
    with zmq.Context() as context:
        named = link.dealer(context, f"ipc://{path}", b"named.1")
        nameless = context.socket(zmq.DEALER)
        nameless.connect(f"ipc://{path}")
        heard = {}
        for dealer in (named, nameless):
            until(door, lambda: door.receive() is None and dealer.poll(10, zmq.POLLOUT))  # noqa: B023
            dealer.send(b"hello")
            [[name, frame]] = hear(door)
            assert frame == b"hello"
            heard[dealer] = name
        assert heard[named] == b"named.1"
        assert heard[nameless][:1] == b"\0"
        assert len(heard[nameless]) == 5
        for dealer, name in heard.items():
            large = name * 100_000
            door.send(name, large)
            until(door, lambda: door.receive() is None and dealer.poll(10))  # noqa: B023
            assert dealer.recv() == large
        for dealer in heard:
            dealer.close(linger=0)


def test_several_frames_of_a_message_come_together(door, path) -> None:
    with zmq.Context() as context:
        dealer = link.dealer(context, f"ipc://{path}", b"named.1")
        until(door, lambda: door.receive() is None and dealer.poll(10, zmq.POLLOUT))
        dealer.send_multipart([b"a", b"", b"c"])
        assert hear(door) == [[b"named.1", b"a", b"", b"c"]]
        dealer.close()


def test_who_ended_is_lost_after_the_last_that_it_said(door, path) -> None:
    line = peer(path, b"a.1")
    let_in(door, b"a.1")
    line.read()
    line.send(b"last words")
    line.close()
    assert hear(door) == [[b"a.1", b"last words"]]
    assert lost(door) == [Lost(b"a.1", "its connection is gone", True)]
    with pytest.raises(Unreachable):
        door.send(b"a.1", b"to nobody")
    assert door.take_lost() == []


def test_nobody_is_told_of_one_who_never_said_a_name(door, path) -> None:
    stranger = socket.socket(socket.AF_UNIX)
    stranger.connect(str(path))
    assert door.receive() is None
    stranger.close()
    for _ in range(3):
        assert door.receive() is None
    assert door.take_lost() == []


def test_a_peer_that_comes_back_takes_its_own_place_and_is_not_lost(door, path) -> None:
    old = peer(path, b"a.1")
    let_in(door, b"a.1")
    before = door._by_name[b"a.1"]
    again = peer(path, b"a.1")
    until(door, lambda: door.receive() is None and door._by_name[b"a.1"] is not before)
    old.close()
    for _ in range(3):
        assert door.receive() is None
    assert door.take_lost() == []
    door.send(b"a.1", b"welcome back")
    assert read(again) == [b"welcome back"]
    again.close()


def test_garbage_costs_its_sender_alone_who_may_live(door, path) -> None:
    bad, good = peer(path, b"bad.1"), peer(path, b"good.1")
    let_in(door, b"bad.1", b"good.1")
    bad._socket.sendall(b"\x02" + b"\xff" * 8)
    assert lost(door) == [Lost(b"bad.1", "a frame of 18446744073709551615 bytes", False)]
    with pytest.raises(Closed):
        for _ in range(100):
            bad.read()
            time.sleep(0.01)
    good.read()
    good.send(b"still here")
    assert hear(door) == [[b"good.1", b"still here"]]
    bad.close()
    good.close()


def test_strangers_do_not_pile_up(door, path, monkeypatch) -> None:
    monkeypatch.setattr(near, "STRANGERS_MAX", 3)
    known = peer(path, b"known.1")
    let_in(door, b"known.1")
    strangers = [socket.socket(socket.AF_UNIX) for _ in range(5)]
    for stranger in strangers:
        stranger.connect(str(path))
    assert door.receive() is None
    said = [stranger.recv(1000) for stranger in strangers[:2]]
    assert said == [opening(b"ROUTER")] * 2
    assert [stranger.recv(1000) for stranger in strangers[:2]] == [b"", b""], "closed, the oldest first"
    strangers[4].setblocking(False)
    strangers[4].recv(1000)
    with pytest.raises(BlockingIOError):
        strangers[4].recv(1000)
    door.send(b"known.1", b"you stay")
    assert read(known) == [b"you stay"]
    for one in strangers:
        one.close()
    known.close()


def test_one_that_does_not_read_is_said_to_be_full_and_loses_nothing(door, path, monkeypatch) -> None:
    monkeypatch.setattr(lines, "WAITING_BYTES_MAX", 100_000)
    slow = peer(path, b"slow.1")
    let_in(door, b"slow.1")
    sent = 0
    with pytest.raises(Full):
        for _ in range(1000):
            door.send(b"slow.1", b"%d" % sent + bytes(10_000))
            sent += 1
    found: list[bytes] = []

    def step() -> bool:
        assert door.receive() is None  # it sends what waited
        found.extend(frame for frames in slow.read() for frame in frames)
        return len(found) == sent

    until(door, step)
    assert [int(frame.partition(b"\0")[0]) for frame in found] == list(range(sent))
    door.send(b"slow.1", b"room again")
    slow.close()


def test_it_goes_on_when_there_were_too_many_connections(door, path, monkeypatch) -> None:
    accept = socket.socket.accept
    known = peer(path, b"known.1")
    let_in(door, b"known.1")

    def full(listener: socket.socket) -> Any:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(socket.socket, "accept", full)
    late = peer(path, b"late.1")
    assert door.receive() is None
    assert select.select([door.fd], [], [], 0.05)[0] == [], "it does not turn in circles meanwhile"
    monkeypatch.setattr(socket.socket, "accept", accept)
    known.close()
    assert [one.peer for one in lost(door)] == [b"known.1"]
    let_in(door, b"late.1")
    late.read()
    late.send(b"hello")
    assert hear(door) == [[b"late.1", b"hello"]]
    late.close()


def test_a_path_that_is_too_long_is_refused(path) -> None:
    with pytest.raises(OSError, match="too long"):
        NearDoor("callers", path / ("x" * 200))
