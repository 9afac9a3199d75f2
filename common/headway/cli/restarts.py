"""Whether, when and why a process that ended is started again.

Pure. Knows: exit codes, the back-off. Must not know: processes, clocks.

The wait doubles with each end from `first_s` to `most_s`, and starts anew for a process that lived for
`healthy_s`. Exit codes in `exits.FINAL` are not tried again: the same start would end the same way.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from headway.exits import FINAL, Exit, how_it_ended


class Again(NamedTuple):
    """Start it again after `wait_s`."""

    wait_s: float
    reason: str


class GiveUp(NamedTuple):
    """Stop everything and end with this code."""

    code: Exit
    reason: str


@dataclass(frozen=True)
class Backoff:
    """Waits between starts, in seconds."""

    first_s: float = 0.25
    most_s: float = 10.0
    healthy_s: float = 30.0


class Restarts:
    """The history of one process, as far as it matters for its next start."""

    def __init__(self, name: str, backoff: Backoff | None = None) -> None:
        self._name = name
        self._backoff = backoff or Backoff()
        self._wait_s = self._backoff.first_s
        self._started = 0.0

    def started(self, now: float) -> None:
        """It was started just now."""
        self._started = now

    def ended(self, code: int, now: float) -> Again | GiveUp:
        """It ended; `code` as `subprocess` gives it: the exit code, or minus the signal's number."""
        reason = f"{self._name} {how_it_ended(code)}"
        if code in FINAL:
            return GiveUp(Exit(code), reason)
        if now - self._started >= self._backoff.healthy_s:
            self._wait_s = self._backoff.first_s
        wait_s = self._wait_s
        self._wait_s = min(wait_s * 2, self._backoff.most_s)
        return Again(wait_s, f"{reason}; starting it again in {wait_s:g} s")
