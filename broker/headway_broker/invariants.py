"""The scheduler's invariants, as assertions. For tests and the simulator: too slow for each message.

Knows: every part of the scheduler. Must not change any.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping

from headway_broker.catalog import Key
from headway_broker.holds import Holds
from headway_broker.ledger import Ledger
from headway_broker.queues import Queue
from headway_broker.roster import Roster
from headway_broker.sequence_queue import SequenceQueue
from headway_broker.workers import CREDIT, Worker


def check(ledger: Ledger, queues: Mapping[Key, Queue], roster: Roster) -> None:
    """Raises: AssertionError naming what does not hold."""
    for queue in queues.values():
        _check_queue(queue)
        if isinstance(queue, SequenceQueue):
            _check_sequences(queue, roster)
    for worker in roster:
        _check_worker(worker, roster)
    _check_copies(roster)
    _check_places(ledger, queues, roster)


def check_holds(holds: Holds, ledger: Ledger, roster: Roster) -> None:
    """Raises: AssertionError when a request's holders are not those that hold it."""
    held = [r for worker in roster for flight in worker.flights for r in flight.requests if r.slots]
    held += [r for batches in holds.limbo.values() for requests in batches.values() for r in requests]
    count = Counter(map(id, held))
    known = {id(r): r for r in (*held, *ledger, *holds)}
    for request in known.values():
        assert request.holders == count[id(request)], "holders are miscounted"
    kept = {id(r) for r in holds}
    assert kept == {id(r) for r in held if not r.open}, "a caller would wait for its slots for ever"


def _check_queue(queue: Queue) -> None:
    rows = size = 0
    for request in queue:
        assert request.open, "a request with an outcome waits"
        assert queue.earliest <= request.deadline, "a deadline is overlooked"
        rows += request.rows
        size += len(request.tensors)
    assert queue.count == len(list(queue)), "requests are miscounted"
    assert queue.rows == rows, "rows are miscounted"
    assert queue.bytes == size, "bytes are miscounted"


def _check_sequences(queue: SequenceQueue, roster: Roster) -> None:
    """Of each sequence one request runs at most, and where the sequence is."""
    queue.check()
    flying: dict[int, bytes] = {}
    for worker in roster:
        for flight in (f for f in worker.batches.values() if f.key == queue.spec.key):
            for request in (r for r in flight.requests if r.sequence):
                assert id(request.sequence) not in flying, "two requests of one sequence run"
                flying[id(request.sequence)] = worker.identity
    for who, among in queue.bound.items():
        for sequence in among:
            runs = flying.get(id(sequence))
            assert (runs is not None) == (sequence.running is not None), "what runs of a sequence is unknown"
            assert runs in (None, who), "a request runs where its sequence is not"


def _check_worker(worker: Worker, roster: Roster) -> None:
    batches, state = worker.batches.values(), worker.state
    assert len(batches) <= CREDIT, "a worker holds more batches than its credit"
    assert len(batches) <= 1 or not any(f.alone for f in batches), "a lone batch has company"
    assert not any(f.abreast for f in batches) and all(f.abreast for f in worker.abreast.flights.values())
    worker.abreast.check()
    assert roster.is_watched(worker), "nobody watches a worker"
    loading = sum(copy.state == "loading" for copy in worker.copies.values())
    assert worker.copies_loading == loading, "copies that load are miscounted"
    _check_crew(worker, state, roster)
    assert (worker.busy_since < math.inf) == bool(worker.flights), "a worker's time is miscounted"


def _check_copies(roster: Roster) -> None:
    counts = Counter((key, copy.state) for worker in roster for key, copy in worker.copies.items())
    for key in {key for key, _ in counts}:
        for state in ("loading", "ready", "failed"):
            assert roster.count(key, state) == counts[key, state], f"copies of {key} are miscounted"
        hosts = {worker.identity for worker in roster if key in worker.copies}
        assert {worker.identity for worker, _ in roster.hosts(key)} == hosts, f"hosts of {key} are wrong"
    for worker in roster:
        assert worker in roster.named(worker.name), "a worker is not found by its name"
        assert all(count > 0 for count in worker.unloading.values()), "an end is awaited that came"


def _check_crew(worker: Worker, state: str, roster: Roster) -> None:
    crew = roster.crew_of(worker)
    ready = {key for key, copy in worker.copies.items() if copy.state == "ready"}
    if crew is None:
        assert not ready or state in ("loading", "leaving"), f"a worker that is {state} is in no crew"
        return
    assert crew.keys == ready and state not in ("loading", "leaving"), (
        f"a worker that is {state} is misplaced"
    )
    for name, among in (("idle", crew.idle), ("spare", crew.spare)):
        assert (worker.identity in among) == (state == name), f"a worker that is {state} is misplaced"
    assert crew.counts(worker), "what a worker has left to do is miscounted"
    for key in ready:
        assert crew in roster.crews(key), "a crew is not found by one of its models"


def _check_places(ledger: Ledger, queues: Mapping[Key, Queue], roster: Roster) -> None:
    """An open request is in its caller's table, and in one queue or one flight."""
    placed = [id(request) for queue in queues.values() for request in queue]
    for worker in roster:
        for flight in worker.flights:
            placed += [id(request) for request in flight.requests if request.open]
    assert len(placed) == len(set(placed)), "a request is in two places"
    known = set()
    for caller, opened in ledger.callers.items():
        assert opened, "a caller without open requests has a table"
        for key, request in opened.items():
            assert request.open and request.caller == caller and request.id == key, "a table is wrong"
            known.add(id(request))
    assert known == set(placed), f"{len(known)} open requests, {len(placed)} queued or in a batch"
