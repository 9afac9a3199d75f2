"""What a version's registration says of each of its requests.

PERF: to look at the registration takes as long as all else there is to a prediction, so that is not done each
time.

Knows: how long what was seen counts. Must not know: requests, HTTP, gRPC.
"""

from __future__ import annotations

from typing import NamedTuple

from headway_gateway.inference import Target
from headway_gateway.torchserve import asking

COUNT_S = 0.5
TARGETS_MAX = 1000


class Terms(NamedTuple):
    """`has_sequences` None: nobody knows yet. `until`: when it is looked at again."""

    until: float
    limit_s: float
    has_sequences: bool | None


class TermsOf:
    """By what requests name."""

    def __init__(self, registry: asking.Registry) -> None:
        self._registry = registry
        self._seen: dict[Target, Terms] = {}

    def of(self, target: Target, now: float) -> Terms:
        terms = self._seen.get(target)
        if terms is None or now >= terms.until:
            registration = self._registry.of(*target)
            has_sequences = registration.has_sequences if registration else None
            terms = Terms(now + COUNT_S, asking.timeout_s(registration), has_sequences)
            if len(self._seen) >= TARGETS_MAX:
                self._seen.clear()
            self._seen[target] = terms
        return terms

    def forget(self, target: Target) -> None:
        """It is known better now."""
        self._seen.pop(target, None)
