"""A shunting yard: the real scheduler, workers that are nothing but time, and a clock of its own.

What `world` has and this has not: a wire, faults, sessions. So a second of heavy load takes some tens of
milliseconds, and what is looked at is only who is served when.

Knows: the scheduler's events and actions. Must not know: sessions, calls, why anything is decided.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from headway.messages import (
    OK,
    Batch,
    Batches,
    BatchReply,
    Copy,
    Join,
    Load,
    Replies,
    Request,
    Requests,
    Result,
    Results,
)
from headway.models import ModelSpec
from headway_broker.catalog import Catalog
from headway_broker.events import FromCaller, FromWorker, ToCaller, ToWorker
from headway_broker.scheduler import Scheduler

CHECK_EACH = 97  # turns: checking every one would take most of the time
TRIP_S = 0.0002  # one way, to a worker or from it
Cost = Callable[[str, int, float], float]  # model, rows, now: what the batch takes


class Yard:
    """Workers that run one batch after the other, each with every model; `cost` says how long."""

    def __init__(self, specs: list[ModelSpec], cost: Cost, workers: int = 1) -> None:
        self.random = random.Random(1)
        specs = [replace(spec, copies=workers) for spec in specs]
        self.now = 0.0
        self.cost = cost
        self.scheduler = Scheduler(Catalog(specs), b"yard")
        self.asked: dict[int, tuple[str, float]] = {}
        self.took: dict[str, list[float]] = defaultdict(list)  # seconds of those that were answered
        self.refused: dict[str, list[float]] = defaultdict(list)  # seconds of those that were not
        self.answered_at: dict[str, list[float]] = defaultdict(list)
        self.busy: Counter[str] = Counter()  # seconds of device time, by model
        self.rows: dict[str, list[int]] = defaultdict(list)  # of each batch
        self._free: dict[bytes, float] = defaultdict(float)
        self._order = itertools.count()
        self._events: list[tuple[float, int, Any]] = []
        self._wake_at = math.inf
        self._turns = 0
        for i in range(workers):
            name = f"w{i}"
            copies = [Copy(*spec.key, "ready", "", self._warmed_up(spec)) for spec in specs]
            self.scheduler.handle(FromWorker(name.encode(), Join(name, "host", 1, "cpu", copies)), 0.0)

    def _warmed_up(self, spec: ModelSpec) -> dict[str, Any]:
        """What a copy finds out before it is ready."""
        sizes = {1, spec.batch_size_max}
        return {"batch_us": {str(rows): int(self.cost(spec.name, rows, 0.0) * 1e6) for rows in sizes}}

    def at(self, time: float, event: Any) -> None:
        heapq.heappush(self._events, (time, next(self._order), event))

    def arrive(self, model: str, rate: float, start: float, end: float, timeout_s: float = 30.0) -> None:
        """Requests at random times, so many a second."""
        time = start
        while (time := time + self.random.expovariate(rate)) < end:
            id = len(self.asked) + 1
            self.asked[id] = (model, time)
            request = Request(id, model, "", int(timeout_s * 1000), 0, 0, {}, b"")
            self.at(time, FromCaller(b"c", Requests([request])))

    def run(self, until: float) -> None:
        """All that happens at one moment is one turn."""
        while True:
            due = min(self._events[0][0] if self._events else math.inf, self._wake_at)
            if due > until:
                return
            self.now = max(self.now, due)
            while self._events and self._events[0][0] <= self.now:
                self.scheduler.handle(heapq.heappop(self._events)[2], self.now)
            self._turn()

    def _turn(self) -> None:
        for action in self.scheduler.wake(self.now):
            match action:
                case ToWorker(worker, Batches(batches)):
                    for batch in batches:
                        self._ride(worker, batch)
                case ToCaller(_, Replies(replies)):
                    for reply in replies:
                        self._settle(reply)
                case ToWorker(_, Load()):
                    raise AssertionError("every worker has every model already")
        if self._turns % CHECK_EACH == 0:
            self.scheduler.check()
        self._turns += 1
        wake_at = self.scheduler.next_wake()
        self._wake_at = math.inf if wake_at is None else max(wake_at, self.now)

    def _ride(self, worker: bytes, batch: Batch) -> None:
        start = max(self.now + TRIP_S, self._free[worker])
        took = self.cost(batch.model, len(batch.requests), start)
        self._free[worker] = start + took
        self.busy[batch.model] += took
        self.rows[batch.model].append(len(batch.requests))
        result = Result(batch.id, int(took * 1e6), [BatchReply(OK, b"", {})] * len(batch.requests))
        self.at(start + took + TRIP_S, FromWorker(worker, Results([result])))

    def _settle(self, reply: Any) -> None:
        model, asked = self.asked[reply.id]
        if reply.code == OK:
            self.took[model].append(self.now - asked)
            self.answered_at[model].append(self.now)
        else:
            self.refused[model].append(self.now - asked)


def p99(values: list[float]) -> float:
    return sorted(values)[int(len(values) * 0.99)]
