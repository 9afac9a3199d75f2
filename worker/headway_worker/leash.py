"""What ties a worker to the agent that started it: a worker whose agent stays away ends by itself.

Knows: the lock that the agent holds while it lives. Must not know: processes, the broker.

An agent that was killed leaves its workers serving, and finds them again at its next start. If there is no
next start nobody would ever stop them: so they look for the lock now and then, and give it `orphan_s`.
"""

from __future__ import annotations

from pathlib import Path

from headway import locks

LOOKS = 20  # for each orphan_s
LOOK_S_MAX = 5.0


class Leash:
    """`now` is monotonic time: a worker is on the leash from then on."""

    def __init__(self, lock: Path, orphan_s: float, now: float) -> None:
        self._lock = lock
        self._orphan_s = orphan_s
        self._every_s = min(orphan_s / LOOKS, LOOK_S_MAX)
        self._held_at = now
        self._look_at = now

    def is_cut(self, now: float) -> bool:
        """Whether no agent has held the lock for `orphan_s`. Looks rarely, so that asking costs nothing."""
        if now < self._look_at:
            return False
        self._look_at = now + self._every_s
        if self._is_held():
            self._held_at = now
        return now - self._held_at >= self._orphan_s

    def _is_held(self) -> bool:
        try:
            return locks.is_held(self._lock)
        except OSError:  # it cannot be told: rather live
            return True
