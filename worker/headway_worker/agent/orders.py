"""The words between the session and whatever runs the workers: orders one way, what happened the other. Pure.

Knows: nothing. Must not know: whether workers are children or units.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol


class Adopted(NamedTuple):
    """A worker that an earlier start of this agent left running."""

    name: str
    pid: int
    device: str
    share: int


class Started(NamedTuple):
    """The worker runs; `reason` if it is not its first start."""

    name: str
    pid: int
    reason: str = ""


class Ended(NamedTuple):
    """The worker is gone, and how. `fault`: it reported a fatal fault of its device."""

    name: str
    device: str
    how: str
    fault: bool = False


class Start(NamedTuple):
    """Start a worker: `Started` or `Ended` follow. `share` 0: none of its own."""

    name: str
    device: str
    share: int


class Stop(NamedTuple):
    """Tell the worker to end."""

    name: str


class Kill(NamedTuple):
    """End the worker, which does not by itself."""

    name: str


Order = Start | Stop | Kill
News = Adopted | Started | Ended


class Crew(Protocol):
    """Runs the workers. Nothing here waits: what an order leads to is heard from `look`."""

    def open(self) -> list[News]:
        """Find what an earlier start of the agent left, running or ended since."""
        ...

    def fileno(self) -> int:
        """Readable when `look` has something to say."""
        ...

    def look(self, now: float) -> list[News]: ...

    def next_wake(self) -> float:
        """Call `look` no later than this."""
        ...

    def obey(self, order: Order, now: float) -> None: ...

    def close(self) -> None:
        """Leave the workers as they are."""
        ...
