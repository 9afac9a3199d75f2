"""Which version a request goes to that names none: one, or several by weight.

Pure. Knows: versions and weights, a caller's sticky key. Must not know: whether a version is ready.

Without a key the versions take turns, as evenly as their weights allow (smooth weighted round robin, as in
nginx): 9 to 1 means that of every ten requests one goes to the second. With a key a caller stays where it is:
the key's hash is a point between 0 and 1, and each version has a stretch of that as long as its share. When
a share grows, only callers on the stretch that changes hands move.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b


class Route:
    """One model's. `shares` add up to 1, in the order of `weights`, whose sum must be above 0. `only`: the
    version that gets everything, "" if there are several."""

    def __init__(self, weights: Mapping[str, float]) -> None:
        total = sum(weights.values())
        self.shares = {version: weight / total for version, weight in weights.items() if weight > 0}
        self._debts = dict.fromkeys(self.shares, 0.0)
        self.only = next(iter(self.shares)) if len(self.shares) == 1 else ""

    @property
    def heaviest(self) -> str:
        """The version that most go to."""
        return max(self.shares, key=lambda version: self.shares[version])

    def choose(self, sticky: str = "") -> str:
        """The version for the next request."""
        if self.only:
            return self.only
        return self._at(point_of(sticky)) if sticky else self._next()

    def _next(self) -> str:
        for version, share in self.shares.items():
            self._debts[version] += share
        chosen = max(self._debts, key=lambda version: self._debts[version])
        self._debts[chosen] -= 1.0
        return chosen

    def _at(self, point: float) -> str:
        for version, share in self.shares.items():
            point -= share
            if point < 0:
                return version
        return self.heaviest  # the shares add up to a hair less than 1


def point_of(sticky: str) -> float:
    """The point from 0 to 1 that a caller's key stands for, on every broker the same."""
    return int.from_bytes(blake2b(sticky.encode(), digest_size=8).digest()) / 2**64
