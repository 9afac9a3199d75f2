"""What a process tells systemd: ready, a status line, stopping, and that it is still alive.

Knows: the notification protocol of a `Type=notify` service, which is one datagram of NAME=VALUE lines.
Must not know: which process says it, what "ready" means there, when it is well enough to feed a watchdog.

A process makes one `Notifier` with `from_environment`, which also takes the variables away: a child that
inherited them would speak in its parent's name. Nothing here raises or blocks. Not under systemd, every call
is one comparison.

The watchdog. systemd ends a process of which it hears no word for `watchdog_s`. A loop calls `watchdog` at
each turn, and waits for no longer than `wait_s`, a quarter of that: `watchdog` says something once half of
the interval has passed, so the longest silence of a healthy loop is three quarters of it.
"""

from __future__ import annotations

import math
import os
import socket
import time

VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
STATUS_CHARS_MAX = 500


class Notifier:
    """Speaks to the service manager, or to nobody. `watchdog_s` is None where nobody waits for `watchdog`."""

    def __init__(self, address: str = "", watchdog_s: float | None = None) -> None:
        """`address` as in NOTIFY_SOCKET: a path, or "@" and an abstract name. Any other means nobody."""
        is_known = address[:1] in ("/", "@") and len(address) > 1
        self._address = "\0" + address[1:] if address[:1] == "@" else address
        self._socket = _datagram_socket() if is_known else None
        self.watchdog_s = watchdog_s if self._socket is not None else None
        self._feed_at = -math.inf if self.watchdog_s else math.inf
        self._status = ""
        self._owed = ""  # what must arrive, and did not yet

    @classmethod
    def from_environment(cls) -> Notifier:
        """What the service manager has said to this process; its children do not inherit it."""
        address, watchdog_us, watchdog_pid = (os.environ.pop(name, "") for name in VARIABLES)
        is_mine = watchdog_pid in ("", str(os.getpid()))
        return cls(address, _seconds(watchdog_us) if is_mine else None)

    @property
    def is_heard(self) -> bool:
        """Whether there is anybody to speak to: a status need not be put into words for nobody."""
        return self._socket is not None

    @property
    def wait_s(self) -> float | None:
        """The longest that a loop which feeds the watchdog may wait; None: as long as it likes."""
        return self.watchdog_s / 4 if self.watchdog_s else None

    def ready(self, status: str = "") -> None:
        """It serves; what systemd was told to start after it may start."""
        self._owed = "READY=1\n"
        self._status = _line(status)
        self._say(f"STATUS={self._status}\n" if status else "")

    def status(self, text: str) -> None:
        """The line that `systemctl status` shows. Said only if it is another than before."""
        if self._socket is not None and (line := _line(text)) != self._status:
            self._status = line
            self._say(f"STATUS={line}\n")

    def stopping(self) -> None:
        """It was told to end, and does."""
        self._owed += "STOPPING=1\n"
        self._say("")

    def extend(self, seconds: float) -> None:
        """Starting or stopping takes so long from now on, whatever the unit's time limit says."""
        self._say(f"EXTEND_TIMEOUT_USEC={max(0, round(seconds * 1e6))}\n")

    def watchdog(self, now: float | None = None) -> None:
        """It is alive. `now` is in monotonic seconds, for a caller that has just looked."""
        if self.watchdog_s is None:
            return
        now = time.monotonic() if now is None else now
        if now >= self._feed_at:
            self._feed_at = now + self.watchdog_s / 2
            self._say("WATCHDOG=1\n")

    def close(self) -> None:
        """Say nothing more."""
        if self._socket is not None:
            self._socket.close()
        self._socket = self.watchdog_s = None

    def _say(self, lines: str) -> None:
        if self._socket is None:
            return
        try:
            self._socket.sendto((self._owed + lines).encode(), self._address)
        except OSError:  # systemd restarts, or has more to read than it can: the next word says it
            return
        self._owed = ""


def _datagram_socket() -> socket.socket | None:
    try:
        return socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    except OSError:
        return None


def _seconds(microseconds: str) -> float | None:
    if not microseconds.isdecimal() or not microseconds.isascii():
        return None
    return int(microseconds[:18]) / 1e6 or None


def _line(text: str) -> str:
    """A status is one line: a second one would be read as a field of its own."""
    return "".join(c if c.isprintable() else " " for c in text)[:STATUS_CHARS_MAX]
