"""The socket at which systemd would listen, for the tests of what is said to it."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

from headway.notify import Notifier


class Ear:
    """`address` is a path, or "@" and an abstract name."""

    def __init__(self, address: str | Path) -> None:
        self.address = os.fspath(address)
        self._notifiers: list[Notifier] = []
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.socket.bind("\0" + self.address[1:] if self.address.startswith("@") else self.address)

    def notifier(self, watchdog_s: float | None = None) -> Notifier:
        """One that speaks to this ear, until this is closed."""
        made = Notifier(self.address, watchdog_s)
        self._notifiers.append(made)
        return made

    def heard(self) -> list[str]:
        """All datagrams that came since."""
        found: list[str] = []
        while True:
            try:
                found.append(self.socket.recv(4096).decode())
            except BlockingIOError:
                return found

    def wait_for(self, text: str, count: int = 1, within_s: float = 30.0) -> str:
        """Everything said until `text` was said so often. Raises: AssertionError when it is not."""
        end = time.monotonic() + within_s
        said = ""
        while said.count(text) < count:
            assert time.monotonic() < end, f"no {text!r} in {said!r}"
            said += "".join(self.heard())
            time.sleep(0.01)
        return said

    def environment(self, watchdog_s: float) -> dict[str, str]:
        """What systemd would give to a process."""
        return {"NOTIFY_SOCKET": self.address, "WATCHDOG_USEC": str(int(watchdog_s * 1e6))}

    def close(self) -> None:
        for notifier in self._notifiers:
            notifier.close()
        self.socket.close()
