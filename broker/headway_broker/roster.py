"""What is: the workers, what each hosts, and what each is busy with.

Knows: credit, copies, batches in flight. Must not know: queues, what a request is for, how to answer.

How a worker is found. For each model version the roster keeps the idle workers and those with credit to
spare, in the order in which they became so; both are updated when a worker changes, which costs as much
as it has copies, and not as much as there are workers.

Invariants: a worker has at most CREDIT batches; while it runs a batch that must be alone, no other;
while it loads, nothing new; `idle` and `spare` hold exactly the workers with a ready copy that are so.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

from headway.messages import Copy, Join
from headway_broker.catalog import Key
from headway_broker.queues import OpenRequest

CREDIT = 2  # one batch running, one being copied in


@dataclass(slots=True, eq=False)
class Flight:
    """A batch that a worker holds. `lease_until` is inf until the batch is the first of its worker."""

    id: int
    key: Key
    requests: list[OpenRequest]
    lease_s: float
    earliest: float
    alone: bool
    lease_until: float = math.inf


@dataclass(slots=True, eq=False)
class HostedCopy:
    """A copy as its worker last reported it; `since` is when."""

    report: Copy
    since: float

    @property
    def state(self) -> str:
        return self.report.state


@dataclass(slots=True, eq=False)
class Worker:
    """A worker that joined."""

    identity: bytes
    about: Join
    heard: float
    copies: dict[Key, HostedCopy] = field(default_factory=dict)
    batches: dict[int, Flight] = field(default_factory=dict)
    leaving: bool = False

    @property
    def name(self) -> str:
        return self.about.name

    @property
    def loading(self) -> bool:
        return any(copy.state == "loading" for copy in self.copies.values())

    @property
    def first(self) -> Flight | None:
        """The batch that the worker runs."""
        return next(iter(self.batches.values()), None)

    @property
    def state(self) -> str:
        """leaving, loading, idle, spare (takes one more batch) or busy."""
        if self.leaving:
            return "leaving"
        if self.loading:
            return "loading"
        if not self.batches:
            return "idle"
        alone = any(flight.alone for flight in self.batches.values())
        return "busy" if alone or len(self.batches) >= CREDIT else "spare"


class Roster:
    """All workers."""

    def __init__(self) -> None:
        self.workers: dict[bytes, Worker] = {}
        self._free: dict[str, dict[Key, dict[bytes, Worker]]] = {"idle": {}, "spare": {}}

    def __iter__(self) -> Iterator[Worker]:
        return iter(self.workers.values())

    def __len__(self) -> int:
        return len(self.workers)

    def get(self, identity: bytes) -> Worker | None:
        return self.workers.get(identity)

    def idle(self, key: Key) -> Worker | None:
        """The worker that has been idle longest with a ready copy of `key`."""
        return next(iter(self._free["idle"].get(key, {}).values()), None)

    def spare(self, key: Key) -> Worker | None:
        """A busy worker that may be sent a full batch ahead."""
        return next(iter(self._free["spare"].get(key, {}).values()), None)

    def is_listed(self, state: str, key: Key, worker: Worker) -> bool:
        """Whether `idle` or `spare` could name the worker. For the invariants."""
        return worker.identity in self._free[state].get(key, {})

    def hosts(self, key: Key) -> list[tuple[Worker, HostedCopy]]:
        """Every worker with a copy of `key`, in whatever state."""
        return [(worker, worker.copies[key]) for worker in self if key in worker.copies]

    def add(self, worker: Worker) -> None:
        self.workers[worker.identity] = worker
        self._sort(worker)

    def remove(self, worker: Worker) -> None:
        self.workers.pop(worker.identity, None)
        self._forget(worker, list(worker.copies))

    def set_copy(self, worker: Worker, report: Copy, now: float) -> None:
        """Note a copy's new state; "gone" removes it."""
        key = (report.model, report.version)
        if report.state == "gone":
            worker.copies.pop(key, None)
            self._forget(worker, [key])
        else:
            worker.copies[key] = HostedCopy(report, now)
        self._sort(worker)

    def start(self, worker: Worker, flight: Flight, now: float) -> None:
        """The worker was sent a batch."""
        worker.batches[flight.id] = flight
        self._lease(worker, now)
        self._sort(worker)

    def finish(self, worker: Worker, batch: int, now: float) -> Flight | None:
        """The worker is done with a batch; None if it never had it."""
        flight = worker.batches.pop(batch, None)
        self._lease(worker, now)
        self._sort(worker)
        return flight

    def leave(self, worker: Worker) -> None:
        """The worker takes nothing new."""
        worker.leaving = True
        self._sort(worker)

    def _lease(self, worker: Worker, now: float) -> None:
        first = worker.first
        if first and first.lease_until == math.inf:
            first.lease_until = now + first.lease_s

    def _sort(self, worker: Worker) -> None:
        """Put the worker where its state belongs, for each of its copies."""
        state = worker.state
        for name, by_key in self._free.items():
            for key, copy in worker.copies.items():
                among = by_key.setdefault(key, {})
                if state == name and copy.state == "ready":
                    among.setdefault(worker.identity, worker)
                else:
                    among.pop(worker.identity, None)

    def _forget(self, worker: Worker, keys: list[Key]) -> None:
        for by_key in self._free.values():
            for key in keys:
                by_key.get(key, {}).pop(worker.identity, None)
