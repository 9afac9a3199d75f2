"""A worker as the broker sees it: its copies, and the batches it holds.

Knows: credit, what a worker reported, when it is expected to be free. Must not know: other workers, queues.

Batches of most models run one after the other: they are in `batches`, and the first of them has a lease.
Those of a model that says so run beside one another and beside these (`Abreast`): they take no credit, begin
when they are sent, and have one lease together, which begins anew with every sign of life of one of them.

Invariants: `copies_loading` is how many of `copies` are loading; no batch is in `batches` and in `abreast`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain, islice

from headway.messages import Copy, Join
from headway_broker.catalog import Key
from headway_broker.queues import OpenRequest

CREDIT = 2  # one batch running, one being copied in


@dataclass(slots=True, eq=False)
class Flight:
    """A batch that a worker holds. `began` and `lease_until` are inf until it is the first of its worker;
    `cost_s` is how long it was expected to take when it was sent. `abreast`: it runs beside others."""

    id: int
    key: Key
    requests: list[OpenRequest]
    lease_s: float
    earliest: float
    alone: bool
    cost_s: float = 0.0
    began: float = math.inf
    lease_until: float = math.inf
    abreast: bool = False

    @property
    def rows(self) -> int:
        return sum([request.rows for request in self.requests])


class Abreast:
    """The batches of one worker that run beside one another, of whatever models."""

    def __init__(self) -> None:
        self.flights: dict[int, Flight] = {}
        self._until: dict[Key, float] = {}  # of each model that has some: its lease
        self._counts: dict[Key, int] = {}

    def __bool__(self) -> bool:
        return bool(self.flights)

    def count(self, key: Key) -> int:
        return self._counts.get(key, 0)

    def of(self, request: OpenRequest) -> Flight | None:
        """The batch that the request rides in."""
        return next((flight for flight in self.flights.values() if request in flight.requests), None)

    def start(self, flight: Flight, now: float) -> None:
        flight.began = now
        self.flights[flight.id] = flight
        self._counts[flight.key] = self.count(flight.key) + 1
        self._until.setdefault(flight.key, now + flight.lease_s)

    def finish(self, flight: Flight, now: float) -> None:
        del self.flights[flight.id]
        self._counts[flight.key] -= 1
        if self._counts[flight.key]:
            self.renew(flight, now)
        else:
            del self._counts[flight.key], self._until[flight.key]

    def renew(self, flight: Flight, now: float) -> None:
        """One of a model's batches has shown that they go on."""
        self._until[flight.key] = now + flight.lease_s

    @property
    def pressing(self) -> list[Flight]:
        """Those of the model whose lease ends first."""
        key = min(self._until, key=self._until.__getitem__, default=None)
        return [flight for flight in self.flights.values() if flight.key == key]

    @property
    def patience(self) -> tuple[float, float]:
        """Until when the first of the leases runs, and how long it is; (inf, 0) without batches."""
        if not self._until:
            return math.inf, 0.0
        key = min(self._until, key=self._until.__getitem__)
        return self._until[key], next(f.lease_s for f in self.flights.values() if f.key == key)

    def check(self) -> None:
        """Raise AssertionError where the counts or leases are not those of the batches."""
        counts: dict[Key, int] = {}
        for flight in self.flights.values():
            counts[flight.key] = counts.get(flight.key, 0) + 1
        assert counts == self._counts and counts.keys() == self._until.keys(), (
            "batches abreast are miscounted"
        )


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
    """A worker that joined. `free_at`: when it is expected to be through with all it holds. `draining`: it
    leaves as soon as its copies are elsewhere, `leaving`: it takes nothing new. `unloading` counts orders to
    unload whose "gone" is to come; `unloading_since` is when one was given or obeyed last. `parked`: of
    which models something waits that only this worker may have, once it is free."""

    identity: bytes
    about: Join
    heard: float
    copies: dict[Key, HostedCopy] = field(default_factory=dict)
    batches: dict[int, Flight] = field(default_factory=dict)
    abreast: Abreast = field(default_factory=Abreast)
    leaving: bool = False
    draining: bool = False
    copies_loading: int = 0
    free_at: float = -math.inf
    busy_s: float = 0.0
    busy_since: float = math.inf
    unloading: dict[Key, int] = field(default_factory=dict)
    unloading_since: float = -math.inf
    parked: dict[Key, None] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.about.name

    @property
    def is_full(self) -> bool:
        """Whether it has as many copies as it takes."""
        most = self.about.facts.get("copies_max")
        if not isinstance(most, int) or most <= 0:
            return False
        return sum(copy.state != "failed" for copy in self.copies.values()) >= most

    @property
    def loading(self) -> bool:
        return self.copies_loading > 0

    @property
    def loads(self) -> Key | None:
        """The version that it loads now: it does one after the other, in the order in which it was told."""
        return next((key for key, copy in self.copies.items() if copy.state == "loading"), None)

    @property
    def first(self) -> Flight | None:
        """The batch that the worker runs."""
        return next(iter(self.batches.values()), None)

    @property
    def state(self) -> str:
        """leaving, loading, idle, spare (takes one more batch) or busy."""
        if self.leaving:
            return "leaving"
        if self.copies_loading:
            return "loading"
        if not self.batches:
            return "idle"
        if len(self.batches) >= CREDIT or any(flight.alone for flight in self.batches.values()):
            return "busy"
        return "spare"

    @property
    def flights(self) -> list[Flight]:
        """All that it holds."""
        return [*chain(self.batches.values(), self.abreast.flights.values())]

    @property
    def pressing(self) -> list[Flight]:
        """What it runs of which the lease ends first: one batch, or all that run beside one another."""
        first = self.first
        if first and first.lease_until <= self.abreast.patience[0]:
            return [first]
        return self.abreast.pressing

    @property
    def batches_ahead(self) -> Iterator[Flight]:
        """Those that wait at the worker for the first one's end."""
        return islice(self.batches.values(), 1, None)

    @property
    def batches_due(self) -> float:
        """When something is due for one of its batches: a deadline, its lease, or that it is `overdue`. Those
        that run abreast may be many, and are looked at at each tick."""
        due = -math.inf if self.abreast.flights else math.inf
        for flight in self.batches.values():
            due = min(due, flight.earliest, flight.lease_until, self.free_at + flight.cost_s)
        return due

    def note(self, report: Copy, now: float) -> None:
        """It reported a copy; "gone" is the last that is heard of it."""
        key = (report.model, report.version)
        before = self.copies.pop(key, None) if report.state == "gone" else self.copies.get(key)
        self.copies_loading -= before is not None and before.state == "loading"
        if report.state != "gone":
            self.copies[key] = HostedCopy(report, now)
            self.copies_loading += report.state == "loading"

    def let_go(self, key: Key, now: float) -> None:
        """It was told to unload a copy, and counts as without it from here on."""
        self.note(Copy(*key, "gone", "", {}), now)
        self.unloading[key] = self.unloading.get(key, 0) + 1
        self.unloading_since = now

    def is_old(self, report: Copy, now: float) -> bool:
        """Whether this is of a copy that it was told to unload, and not of the one it has, or shall have,
        now: what it reports is in the order of what it was told."""
        key = (report.model, report.version)
        if key not in self.unloading:
            return False
        if report.state == "gone":
            self.unloading[key] -= 1
            self.unloading_since = now
            if not self.unloading[key]:
                del self.unloading[key]
        return True

    def busy_for(self, now: float) -> float:
        """For how long it had batches, in all."""
        return self.busy_s + max(now - self.busy_since, 0.0)

    def start(self, flight: Flight, now: float) -> None:
        """It was sent a batch."""
        if not self.batches and not self.abreast.flights:
            self.busy_since = now
        self.batches[flight.id] = flight
        self.free_at = max(self.free_at, now) + flight.cost_s
        self._begin(now)

    def finish(self, batch: int, now: float) -> Flight | None:
        """It is done with a batch; None if it never had it."""
        flight = self.batches.pop(batch, None)
        if flight:
            self.free_at = now
            if not self.batches:
                self._rest(now)
            for waiting in self.batches.values():
                self.free_at += waiting.cost_s
        self._begin(now)
        return flight

    def start_abreast(self, flight: Flight, now: float) -> None:
        """It was sent a batch that runs beside others."""
        if not self.batches and not self.abreast.flights:
            self.busy_since = now
        self.abreast.start(flight, now)

    def finish_abreast(self, flight: Flight, now: float) -> None:
        """It is done with such a batch."""
        self.abreast.finish(flight, now)
        if not self.batches:
            self._rest(now)

    def renew(self, flight: Flight, now: float) -> None:
        """The batch that it runs has shown that it goes on: its lease begins anew."""
        if flight.abreast:
            self.abreast.renew(flight, now)
        elif flight.lease_until < math.inf:
            flight.lease_until = now + flight.lease_s

    def overdue(self, now: float) -> bool:
        """Its batch takes twice as long as was expected; from here on, as long again is expected."""
        first = self.first
        if first is None or now < self.free_at + first.cost_s:
            return False
        self.free_at = now + (now - first.began)
        return True

    def _rest(self, now: float) -> None:
        if not self.abreast.flights:
            self.busy_s += now - self.busy_since
            self.busy_since = math.inf

    def _begin(self, now: float) -> None:
        for first in self.batches.values():
            if first.began == math.inf:
                first.began = now
                first.lease_until = now + first.lease_s
            break
