"""Who rides in a running batch: requests join it and leave it between two runs of the model. Pure.

Knows: how many have room, the order in which they came. Must not know: requests, models, clocks, threads.

One that must be alone waits until the others have left, and nobody joins before it has.

Invariants: at most `size` ride, in the order in which they came; who must be alone is; the first that waits
has no room; everybody rides or waits, and leaves once.
"""

from __future__ import annotations

from typing import Generic, TypeVar

R = TypeVar("R")


class Running(Generic[R]):
    """One model's. Riders have numbers."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._riding: dict[int, R] = {}
        self._waiting: dict[int, R] = {}
        self._alone: set[int] = set()  # of both

    def __len__(self) -> int:
        """How many ride or wait."""
        return len(self._riding) + len(self._waiting)

    @property
    def riders(self) -> dict[int, R]:
        """Those that ride, by number, in the order in which they came."""
        return dict(self._riding)

    @property
    def oldest(self) -> int | None:
        """The number of the one that rides for longest."""
        return next(iter(self._riding), None)

    def join(self, number: int, rider: R, alone: bool = False) -> None:
        """One comes. It rides from the next run on, or waits until somebody leaves."""
        self._waiting[number] = rider
        if alone:
            self._alone.add(number)
        self._fill()

    def leave(self, number: int) -> R | None:
        """One goes; None if it is not here."""
        self._alone.discard(number)
        found = (self._riding if number in self._riding else self._waiting).pop(number, None)
        self._fill()
        return found

    def check(self) -> None:
        """Raise AssertionError if an invariant does not hold."""
        assert len(self._riding) <= self._size, "more ride than there is room for"
        assert not (self._waiting and self._has_room(next(iter(self._waiting)))), "one waits without need"
        assert len(self._riding) == 1 or not self._alone & self._riding.keys(), "one is not alone"
        assert self._alone <= self._riding.keys() | self._waiting.keys()
        assert not self._riding.keys() & self._waiting.keys(), "one rides and waits"

    def _fill(self) -> None:
        while self._waiting and self._has_room(number := next(iter(self._waiting))):
            self._riding[number] = self._waiting.pop(number)

    def _has_room(self, number: int) -> bool:
        if not self._riding:
            return True
        is_shared = not self._alone or not self._alone & {number, *self._riding}
        return is_shared and len(self._riding) < self._size
