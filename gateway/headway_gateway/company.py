"""The connections that ask on the short way: whether all of them wait for an answer.

Knows: how many there are, how many wait, when the last one joined. Must not know: requests, transports.

A connection belongs to the company from its first request on, until it is closed. Who asks on the long way
does not, and counts as one who has just joined: nobody knows what else it may ask.
"""

from __future__ import annotations

from headway.company import COMPANY
from headway.outgoing import Asked


class Company:
    """One process's. Times are those of one clock, in seconds."""

    def __init__(self) -> None:
        self.members = 0
        self.waiting = 0
        self._joined_at = 0.0

    def join(self, now: float) -> None:
        self.members += 1
        self._joined_at = now

    def leave(self) -> None:
        self.members -= 1

    def stir(self, now: float) -> None:
        """Somebody asks who is not one of them."""
        self._joined_at = now

    def said(self, asked: Asked, now: float) -> Asked:
        """A member's request, with what it completes, if it does."""
        if self.waiting != self.members:
            return asked
        quiet_ms = int((now - self._joined_at) * 1000)
        return asked._replace(options={**asked.options, COMPANY: quiet_ms})
