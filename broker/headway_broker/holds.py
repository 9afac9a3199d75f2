"""Which workers may still touch the shared memory of requests, and which callers wait to hear that none does.

Knows: requests with slots, batches of workers that were given up. Must not know: memory, open requests'
tables, who is on the roster.

How it works. A request with slots counts its holders: one more for each batch that it is sent in, one
less when that batch's result came or its worker's process is known to be gone. A worker that is given up
because of silence or its lease may live, and go on: its batches stay here, *in limbo*, until it says that
it is through with them or a send to it finds no route. A request that has its outcome and still has
holders is *kept*, and its caller is told when the last one is gone.

Invariants: `holders` is the number of flights and batches in limbo that hold the request; it is kept exactly
when it is closed and has holders.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from headway_broker.queues import OpenRequest
from headway_broker.workers import Flight


class Holds:
    """One broker's. `limbo` is by worker and batch, `released` by caller: what is to be sent."""

    def __init__(self) -> None:
        self.limbo: dict[bytes, dict[int, list[OpenRequest]]] = {}
        self.released: dict[bytes, list[int]] = {}
        self._kept: dict[bytes, dict[int, OpenRequest]] = {}

    def __iter__(self) -> Iterator[OpenRequest]:
        """The requests that are kept."""
        return (request for kept in self._kept.values() for request in kept.values())

    def keep(self, request: OpenRequest) -> None:
        """It has its outcome, and still has holders."""
        self._kept.setdefault(request.caller, {})[request.id] = request

    def let_go(self, requests: Iterable[OpenRequest]) -> None:
        """One worker is through with them."""
        for request in requests:
            if request.slots:
                request.holders -= 1
                if not request.holders and not request.open:
                    self._release(request)

    def lose(self, worker: bytes, flights: Iterable[Flight]) -> None:
        """The worker is given up, and may live."""
        for flight in flights:
            if requests := [request for request in flight.requests if request.slots]:
                self.limbo.setdefault(worker, {})[flight.id] = requests

    def finish(self, worker: bytes, batch: int) -> None:
        """A worker that was given up is through with a batch."""
        if batches := self.limbo.get(worker):
            self.let_go(batches.pop(batch, ()))
            if not batches:
                del self.limbo[worker]

    def bury(self, worker: bytes) -> None:
        """The worker's process is gone."""
        for requests in self.limbo.pop(worker, {}).values():
            self.let_go(requests)

    def reclaim(self, caller: bytes, ids: list[int]) -> None:
        """The caller wants the slots of requests back that have no outcome to come."""
        kept = self._kept.get(caller, {})
        if free := [id for id in ids if id not in kept]:
            self.released.setdefault(caller, []).extend(free)

    def take_released(self) -> dict[bytes, list[int]]:
        """What is to be sent, by caller."""
        released, self.released = self.released, {}
        return released

    def _release(self, request: OpenRequest) -> None:
        kept = self._kept.get(request.caller, {})
        if kept.get(request.id) is request:
            del kept[request.id]
            if not kept:
                del self._kept[request.caller]
            self.released.setdefault(request.caller, []).append(request.id)
