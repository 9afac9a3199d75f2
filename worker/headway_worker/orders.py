"""What the session tells the runner, and what the runner tells back.

Orders are put into the runner's queue in the order in which they shall happen; `Load` and `Unload` are the
broker's own messages. Reports are the messages that go to the broker: `messages.Result` for a batch that ran,
`messages.Piece` for what a model sends of a reply before that, `messages.Copy` for a copy that changed its
state.
"""

from __future__ import annotations

from typing import NamedTuple

from headway.messages import Batch, Copy, Load, Piece, Result, Unload


class Run(NamedTuple):
    """Run a batch. `received` is when it came, monotonic seconds: its requests' timeouts count from there."""

    batch: Batch
    received: float


class Drop(NamedTuple):
    """Nobody waits for this batch any more: leave it, if it runs beside others, and report it as ever."""

    batch: int


Order = Run | Drop | Load | Unload
Report = Result | Copy | Piece
