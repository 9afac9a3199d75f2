"""headway_broker.far: the door over TCP, with libzmq's dealers."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, cast

import pytest
import zmq

from headway import link
from headway_broker.doors import Lost
from headway_broker.far import FarDoor
from headway_broker.gate import Gate
from tests.ports import Ports

WAIT_S = 10.0


class Doorkeeper:
    """Turns away whoever comes first, and nobody after."""

    def __init__(self) -> None:
        self.met = 0

    def knows(self, side: str, key: bytes) -> bool:
        self.met += 1
        return self.met > 1


@pytest.fixture
def address() -> Iterator[str]:
    ports = Ports(1)
    yield f"tcp://{ports.addresses[0]}"
    ports.close()


def hear(door: FarDoor) -> list[bytes]:
    """The next message."""
    give_up = time.monotonic() + WAIT_S
    while (message := door.receive()) is None:
        assert time.monotonic() < give_up, "nothing came"
        time.sleep(0.005)
    return message


def test_who_was_turned_away_before_a_good_message_is_still_to_be_told_of(address: str) -> None:
    with zmq.Context() as context:
        door = FarDoor("callers", context, address, None, cast(Gate, Doorkeeper()))
        peers: list[zmq.Socket[Any]] = []
        for name in (b"removed.1", b"allowed.1"):
            peers.append(link.dealer(context, address, name))
            peers[-1].send(b"hello")
        told = [b"removed.1", b"allowed.1"]
        told.remove(hear(door)[0])
        assert door.has_more and door.receive() is None
        assert door.take_lost() == [Lost(told[0], "its key is not allowed any more", True)]
        assert not door.has_more
        for socket in (*peers, door):
            socket.close()
