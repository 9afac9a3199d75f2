"""How long a request waited and ran, for callers that show it (see PROTOCOL.md, section 4).

Pure. Knows: which requests ask for it. Must not know: who shows it, histograms (that is `stats`).

PERF: who comes without headers, which is every direct client, pays for one look into a map.
"""

from __future__ import annotations

from typing import Any

from headway.messages import Result
from headway_broker.queues import OpenRequest
from headway_broker.workers import Flight


def timed(
    meta: dict[str, Any], request: OpenRequest, flight: Flight, result: Result, now: float
) -> dict[str, Any]:
    """The meta of its reply, to which this adds, in microseconds: from its arrival until its batch was the
    first of its worker, from then on, and in the model alone."""
    began = flight.began if flight.began < now else now
    compute_us, worker_us = result.compute_us, int((now - began) * 1e6)
    meta["queue_us"] = int((began - request.arrived) * 1e6)
    meta["worker_us"] = worker_us if worker_us > compute_us else compute_us
    meta["compute_us"] = compute_us
    return meta
