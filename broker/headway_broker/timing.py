"""How long a request waited and ran, for callers that show it (see PROTOCOL.md, section 4).

Pure. Knows: which requests ask for it. Must not know: who shows it, histograms (that is `stats`).

PERF: who comes without headers, which is every direct client, pays for one look into a map.
"""

from __future__ import annotations

from typing import Any

from headway.messages import Result
from headway_broker.queues import OpenRequest
from headway_broker.workers import Flight

HEADERS = "headers"


def times(request: OpenRequest, flight: Flight, result: Result, now: float) -> dict[str, Any]:
    """More of its reply's meta, in microseconds: from its arrival until its batch was the first of its
    worker, from then on, and in the model alone."""
    began = min(flight.began, now)
    return {
        "queue_us": max(int((began - request.arrived) * 1e6), 0),
        "worker_us": max(int((now - began) * 1e6), result.compute_us),
        "compute_us": result.compute_us,
    }
