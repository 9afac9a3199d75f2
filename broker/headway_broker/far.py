"""The door for other hosts: libzmq's ROUTER over TCP, with keys unless the operator said otherwise.

Knows: ZeroMQ, whose key is allowed. Must not know: messages, the scheduler.

What comes from a key that is not allowed any more is dropped, and its sender reported gone.
"""

from __future__ import annotations

from pathlib import Path

import zmq

from headway import keys, link
from headway.errors import SettingsError
from headway_broker.doors import Full, Lost, Unreachable
from headway_broker.gate import Gate

DROPPED_MAX = 100  # in one turn


class FarDoor:
    """Bound when it is made. Raises: SettingsError."""

    far = True
    path: Path | None = None

    def __init__(
        self,
        side: str,
        context: zmq.Context[zmq.Socket[bytes]],
        address: str,
        curve: keys.Curve | None,
        gate: Gate | None,
    ) -> None:
        self.side = side
        self._gate = gate
        self._lost: list[Lost] = []
        try:
            self._socket = link.router(context, address, curve, domain=side)
        except zmq.ZMQError as error:
            raise SettingsError(f"{side}_tcp: cannot listen at {address}: {error}") from None
        self.fd = self._socket.fileno()

    @property
    def has_more(self) -> bool:
        """Its descriptor signals once, and what is sent may swallow that."""
        return bool(self._lost) or link.is_readable(self._socket)

    def receive(self) -> list[bytes] | None:
        for _ in range(DROPPED_MAX):
            received = link.receive_known(self._socket)
            if received is None:
                return None
            message, key = received
            if self._gate is None or self._gate.knows(self.side, key):
                return message
            self._lost.append(Lost(message[0], "its key is not allowed any more", True))
        return None

    def take_lost(self) -> list[Lost]:
        lost, self._lost = self._lost, []
        return lost

    def send(self, peer: bytes, frame: bytes) -> None:
        try:
            link.send_to(self._socket, peer, frame)
        except zmq.Again:
            raise Full from None
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            raise Unreachable from None

    def close(self) -> None:
        self._socket.close()
