"""Pieces of replies, on their way from the worker that makes them to the callers that wait for them.

Pure. Knows: which batch a worker holds, which requests take pieces. Must not know: sockets, queues, when
batches are sent.

A piece goes into the same list as the replies of its caller, so its place is before the last one. Nothing is
kept here: what belongs to no batch of its worker, or to a request that has its outcome, is dropped. A piece
that is passed on starts its batch's lease anew, as nobody would wait for a batch whose requests are all over.
Of batches that run beside one another every piece does, also one that is for nobody (`pieces.NOBODY`): the
model goes on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from headway.messages import OK, BatchReply, Piece
from headway.pieces import ATTEMPT, MORE
from headway_broker.catalog import Key
from headway_broker.ledger import Ledger
from headway_broker.queues import OpenRequest
from headway_broker.workers import Flight, Worker


def pass_on(ledger: Ledger, worker: Worker, piece: Piece, cold: Mapping[Key, float], now: float) -> None:
    """A worker has sent a piece. `cold`: when versions that were asleep became ready."""
    flight = worker.batches.get(piece.batch) or worker.abreast.flights.get(piece.batch)
    if flight and flight.abreast:
        worker.renew(flight, now)
    request = _request_of(flight, piece.place)
    if flight is None or request is None or not request.open or not request.stream:
        return
    meta = {**piece.meta, **meta_of(request, flight.key, cold), MORE: 1}
    ledger.advance(request, BatchReply(OK, piece.content, meta), now)
    worker.renew(flight, now)


def meta_of(request: OpenRequest, key: Key, cold: Mapping[Key, float]) -> dict[str, Any]:
    """What the broker says with a reply of a model."""
    meta: dict[str, Any] = {"version": key[1]}
    if cold and request.arrived < (ready_at := cold.get(key, -math.inf)) < math.inf:
        meta["loading_ms"] = int((ready_at - request.arrived) * 1000)  # it waited for the model to be loaded
    if request.attempt:
        meta[ATTEMPT] = request.attempt
    return meta


def _request_of(flight: Flight | None, place: int) -> OpenRequest | None:
    return flight.requests[place] if flight and place < len(flight.requests) else None
