"""Batches of a model that run beside one another: what the runner does with them, whatever the model is like.

Knows: what it takes to begin, drop and end one. Must not know: pipelines, sockets, which thread calls.

A batch comes with its passage, prepared. From then on it is whoever has it that answers it (`report`), when
it ends, whichever comes first; the runner only has to know how many there are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from headway.errors import Cancelled
from headway.messages import Batch, Piece, Result
from headway.pieces import NOBODY
from headway_worker.batches import Passage, refuse_batch
from headway_worker.orders import Report

BEAT_S = 1.0  # how often the broker is told that a model goes on which has nothing else to say
Reports = Callable[[Report], None]


class Abreast(Protocol):
    """The batches of one model that have begun and not ended."""

    takes_turns: bool  # whether the runner must call `turn` as long as there are some

    def __len__(self) -> int: ...

    def join(self, passage: Passage) -> None:
        """One begins. Raises: DeviceFault."""

    def drop(self, batch: int) -> None:
        """Nobody waits for this one. From any thread; one that has ended means nothing."""

    def turn(self) -> None:
        """Do some of it, in the runner's thread. Raises: DeviceFault."""

    def close(self) -> None:
        """No more will come, and none are there."""


def dropped(batch: Batch) -> Result:
    """The result of a batch that was left before its end."""
    return refuse_batch(batch, Cancelled("nobody waits for it"))


def sign_of_life(batch: int) -> Piece:
    """A piece for nobody: the batch goes on."""
    return Piece(batch, NOBODY, b"", {})
