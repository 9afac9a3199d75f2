"""Who counts and logs the calls: what services need of `DoorMetrics`.

Knows: which facts there are. Must not know: metrics, log files, gRPC.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol


class Counts(Protocol):
    """See `headway_gateway.torchserve.door_metrics`."""

    def count(
        self,
        status: int,
        model: str,
        version_named: str,
        took_s: float,
        meta: Mapping[str, Any] | None = None,
        timed: bool = True,
    ) -> None:
        """A prediction was answered, or refused; `status` is HTTP's."""

    def access(self, peer: str, line: str, status: int, took_s: float) -> None:
        """A call was answered; `status` is gRPC's number."""
