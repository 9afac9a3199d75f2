"""What a door of the broker is: where peers come in, and messages leave to them.

Knows: nothing but this. The two that there are: `near`, for this host, and `far`, over TCP.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, Protocol


class Full(Exception):
    """The peer does not read what it is sent."""


class Unreachable(Exception):
    """The peer's connection is gone."""


class Lost(NamedTuple):
    """A peer that was found gone. `is_dead`: it certainly touches no shared memory of this host any more."""

    peer: bytes
    reason: str
    is_dead: bool


class Door(Protocol):
    """One side's, for callers or for workers. `far`: those who come here are on other hosts, or might be.
    `path` is what it leaves on disk, if anything. `fd` is readable when messages wait."""

    side: str
    far: bool
    path: Path | None
    fd: int

    @property
    def has_more(self) -> bool:
        """Whether messages wait that `fd` may not tell of (any more)."""

    def receive(self) -> list[bytes] | None:
        """The next message: who sent it, and its frames. None: there is no more for now, and those who were
        lost are to be taken before there is."""

    def take_lost(self) -> list[Lost]:
        """Who was found gone since the last time, each after the last of its messages."""

    def send(self, peer: bytes, frame: bytes) -> None:
        """Raises: Full; Unreachable."""

    def close(self) -> None: ...
