"""The scheduler's invariants, as assertions. For tests and the simulator: too slow for each message.

Knows: every part of the scheduler. Must not change any.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from headway_broker.catalog import Key
from headway_broker.ledger import Ledger
from headway_broker.queues import Queue
from headway_broker.roster import CREDIT, Roster


def check(ledger: Ledger, queues: Mapping[Key, Queue], roster: Roster) -> None:
    """Raises: AssertionError naming what does not hold."""
    _check_places(ledger, queues, roster)
    for queue in queues.values():
        _check_queue(queue)
    _check_roster(roster)


def _check_places(ledger: Ledger, queues: Mapping[Key, Queue], roster: Roster) -> None:
    """An open request is in its caller's table, and in one queue or one flight."""
    flights = [flight for worker in roster for flight in worker.batches.values()]
    queued = [id(request) for queue in queues.values() for request in queue]
    riding = [id(request) for flight in flights for request in flight.requests if request.open]
    places = Counter(queued + riding)
    assert all(count == 1 for count in places.values()), "a request is in two places"
    known = {id(request) for request in ledger}
    assert known == set(places), f"{len(known)} open requests, {len(places)} queued or in a batch"
    for caller, opened in ledger.callers.items():
        assert opened, "a caller without open requests has a table"
        assert all(r.open and r.caller == caller and r.id == key for key, r in opened.items())


def _check_queue(queue: Queue) -> None:
    waiting = list(queue)
    assert all(request.open for request in waiting), "a request with an outcome waits"
    assert queue.rows == sum(request.rows for request in waiting), "rows are miscounted"
    assert queue.bytes == sum(len(request.tensors) for request in waiting), "bytes are miscounted"
    assert all(queue.earliest <= request.deadline for request in waiting), "a deadline is overlooked"


def _check_roster(roster: Roster) -> None:
    for worker in roster:
        batches = worker.batches.values()
        assert len(batches) <= CREDIT, "a worker holds more batches than its credit"
        assert len(batches) <= 1 or not any(f.alone for f in batches), "a lone batch has company"
        for key, copy in worker.copies.items():
            ready = copy.state == "ready"
            assert roster.is_listed("idle", key, worker) == (ready and worker.state == "idle")
            assert roster.is_listed("spare", key, worker) == (ready and worker.state == "spare")
