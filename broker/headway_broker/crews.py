"""Workers that have the same models ready: a crew. They are as good as one another, and share one line.

Knows: who is idle, who has credit to spare, whose turn it is. Must not know: queues, costs.

Why crews. A worker that becomes free must find what waits for it, and a request must find a worker. Lists
by model would have to be changed for each model that a worker hosts, lists by worker for each worker that
hosts a model. A crew has one list of each for all of both, so either costs the same with 1 and with 500
models in a worker, with 1 and with 1,000 workers. What it costs grows with the number of *different* sets
of models among the workers that host one; placement makes few.

PERF: `python -m benchmarks.broker_cost`. 1,000 workers and 500 models cost a request 1.1 (idle) to 1.2 (all
busy) times what 1 and 1 do, and 1.45 where all of a model's 40 workers host different models and all are
busy. With a list for each model and state, which every batch changed twice, a first measurement had 4 times
and more.

Invariants: `idle` and `spare` hold exactly the workers of the crew that are so; `busy_s` counts exactly
those with batches.
"""

from __future__ import annotations

from collections import OrderedDict

from headway_broker.catalog import Key
from headway_broker.turns import Turns
from headway_broker.workers import Worker


class Crew:
    """`idle` and `spare` are in the order in which the workers became so."""

    def __init__(self, keys: frozenset[Key]) -> None:
        self.keys = keys
        # OrderedDict and not dict: taking the first of a plain dict scans over all that went before.
        self.idle: OrderedDict[bytes, Worker] = OrderedDict()
        self.spare: OrderedDict[bytes, Worker] = OrderedDict()
        self.size = 0
        self.turns = Turns()
        self._free_at: dict[bytes, float] = {}  # of those with batches
        self._free_sum = 0.0

    @property
    def first_idle(self) -> Worker | None:
        """The worker that has been idle longest."""
        return next(iter(self.idle.values()), None)

    @property
    def first_spare(self) -> Worker | None:
        """A busy worker that may be sent a batch ahead."""
        return next(iter(self.spare.values()), None)

    def add(self, worker: Worker) -> None:
        self.size += 1
        self.place(worker)

    def remove(self, worker: Worker) -> None:
        self.size -= 1
        self.idle.pop(worker.identity, None)
        self.spare.pop(worker.identity, None)
        self._count(worker.identity, None)

    def place(self, worker: Worker) -> None:
        """Something changed for the worker."""
        state, identity = worker.state, worker.identity
        for name, among in (("idle", self.idle), ("spare", self.spare)):
            if state == name:
                among.setdefault(identity, worker)
            elif identity in among:
                del among[identity]
        self._count(identity, worker.free_at if worker.batches else None)

    def busy_s(self, now: float) -> float:
        """How long until a worker is free, about: the mean of what each has left to do; 0 with one idle."""
        if self.idle or not self.size:
            return 0.0
        left_s = self._free_sum - now * len(self._free_at)
        return max(left_s / self.size, 0.0)

    def counts(self, worker: Worker) -> bool:
        """Whether the worker's batches are counted as they are. For the invariants."""
        return self._free_at.get(worker.identity) == (worker.free_at if worker.batches else None)

    def _count(self, identity: bytes, free_at: float | None) -> None:
        self._free_sum -= self._free_at.pop(identity, 0.0)
        if free_at is not None:
            self._free_at[identity] = free_at
            self._free_sum += free_at
        elif not self._free_at:
            self._free_sum = 0.0  # no rounding is left over
