"""Versions whose load takes workers with it: they are held back before they have taken them all.

Pure. Knows: which worker was lost while it loaded what. Must not know: workers, copies, placement.

A load may end the process that does it (a fault in a native library, memory that runs out, a broken device).
One such loss may be chance. After LOST_MAX of them, with no copy that became ready in between, the version is
loaded nowhere for RETRY_S, twice as long after each further loss, and then in one worker at a time.
"""

from __future__ import annotations

from dataclasses import dataclass

from headway_broker.catalog import Key

LOST_MAX = 2
RETRY_S = 60.0
RETRY_MOST_S = 600.0


@dataclass
class _Losses:
    """Of one version. `last`: the worker that was lost last, and why."""

    count: int = 0
    until: float = 0.0
    last: str = ""


class Casualties:
    """All versions'."""

    def __init__(self) -> None:
        self._losses: dict[Key, _Losses] = {}

    def lost(self, key: Key, worker: str, reason: str, now: float) -> bool:
        """A worker was lost while it loaded the version. Returns whether that is held back from now on."""
        losses = self._losses.setdefault(key, _Losses())
        losses.count += 1
        losses.last = f"{worker}: {reason}"
        if losses.count < LOST_MAX:
            return False
        losses.until = now + min(RETRY_S * 2 ** min(losses.count - LOST_MAX, 10), RETRY_MOST_S)
        return True

    def forget(self, key: Key) -> bool:
        """It was loaded after all, was mended, or is gone. Returns whether anything was known against it."""
        return self._losses.pop(key, None) is not None

    def is_suspect(self, key: Key) -> bool:
        """Whether it may be loaded in one worker at a time only."""
        return key in self._losses and self._losses[key].count >= LOST_MAX

    def told(self) -> dict[Key, str]:
        """What every version has against it, in words."""
        return {key: _words(losses) for key, losses in self._losses.items()}

    def held(self, now: float) -> dict[Key, str]:
        """The versions that are not to be loaded now, and why."""
        held = {key: losses for key, losses in self._losses.items() if now < losses.until}
        return {key: f"it is not loaded for now: {_words(losses)}" for key, losses in held.items()}


def _words(losses: _Losses) -> str:
    if losses.count == 1:
        return f"a worker was lost while it loaded it ({losses.last})"
    return f"{losses.count} workers were lost while they loaded it (the last, {losses.last})"
