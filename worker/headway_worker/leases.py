"""Until when the runner must have answered the batch at hand. Pure.

Knows: which batches the runner holds, in order, each with its lease. Must not know: who is waiting for them.

A batch's lease runs from when it is the first, as the broker counts it (PROTOCOL.md, section 5). The runner
holds a batch until it has reported it, also one that the broker does not wait for any more.
"""

from __future__ import annotations

import math


class Leases:
    """The leases of the batches that the runner holds."""

    def __init__(self) -> None:
        self._lease_s: dict[int, float] = {}
        self.until = math.inf  # when the first batch's lease ends; inf without a batch

    def add(self, batch: int, lease_s: float, now: float) -> None:
        """The runner was given a batch."""
        if not self._lease_s:
            self.until = now + lease_s
        self._lease_s[batch] = lease_s

    def renew(self, batch: int, now: float) -> None:
        """A batch has shown that it goes on."""
        if batch == next(iter(self._lease_s), None):
            self.until = now + self._lease_s[batch]

    def end(self, batch: int, now: float) -> None:
        """The runner reported a batch; one that it was not given means nothing."""
        was_first = batch == next(iter(self._lease_s), None)
        self._lease_s.pop(batch, None)
        if was_first:
            self.until = now + next(iter(self._lease_s.values()), math.inf)
