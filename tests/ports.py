"""TCP ports of loopback for servers that are processes of their own, and for nobody else meanwhile.

A port that was only looked for and let go may be taken before the server listens there, by any other process
or as the near end of any connection. One that stays bound is not handed out by the kernel; whoever sets
SO_REUSEADDR, as servers do, may listen there all the same as long as the one who holds it does not.
"""

from __future__ import annotations

import socket


class Ports:
    """So many ports; ours until `close`."""

    def __init__(self, count: int) -> None:
        self._held = [_bound() for _ in range(count)]
        self.numbers: list[int] = [held.getsockname()[1] for held in self._held]
        self.addresses = [f"127.0.0.1:{number}" for number in self.numbers]

    def close(self) -> None:
        for held in self._held:
            held.close()


def _bound() -> socket.socket:
    held = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind(("127.0.0.1", 0))
    return held
