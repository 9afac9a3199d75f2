"""Copies that a worker was told to unload, and that are not gone yet.

Pure. Knows: what was ordered, and that reports come in the order of the orders. Must not know: the broker,
what a copy is.

A broker counts a copy as gone from its order on, and drops what is still reported of it until "gone". A
broker that was started meanwhile, or that lost this worker and has it back, knows of no such order: to it
the copy must not be offered, and what it still reports must not be said, or it would be taken for the copy
that is loaded next.
"""

from __future__ import annotations

from dataclasses import dataclass

Key = tuple[str, str]


@dataclass
class _Pending:
    """`count` orders to unload; `unheard` of them are of before the worker left the roster. `anew`: it was
    told to load since."""

    count: int = 0
    unheard: int = 0
    anew: bool = False


class Unloads:
    """One worker's."""

    def __init__(self) -> None:
        self._pending: dict[Key, _Pending] = {}

    def __contains__(self, key: Key) -> bool:
        """Whether what there is of it shall go, and nothing shall come."""
        return key in self._pending and not self._pending[key].anew

    def unload(self, key: Key) -> None:
        """It was ordered to go."""
        pending = self._pending.setdefault(key, _Pending())
        pending.count += 1
        pending.anew = False

    def load(self, key: Key) -> None:
        """It was ordered to come."""
        if pending := self._pending.get(key):
            pending.anew = True

    def off_the_roster(self) -> None:
        """Whoever is told from here on knows nothing of these orders."""
        for pending in self._pending.values():
            pending.unheard = pending.count

    def note(self, key: Key, state: str) -> tuple[bool, bool]:
        """Something is reported. Returns whether it is of what shall be there, and whether to say it."""
        pending = self._pending.get(key)
        if pending is None:
            return True, True
        current, heard = not pending.anew, not pending.unheard
        if state == "gone":
            pending.count -= 1
            pending.unheard = max(pending.unheard - 1, 0)
            if not pending.count:
                del self._pending[key]
        return current, heard
