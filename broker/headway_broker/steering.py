"""Brings what is to what should be: copies by placement, how many by the load, traffic by readiness.

Pure. Knows: the board. Must not know: requests, batches, who ordered what.

Two rhythms. `replan` runs when something changed that copies depend on, once for all that happened. `look`
runs every LOOK_S: it scales, moves traffic to versions that have become ready, lets draining workers go whose
copies are elsewhere, tries failed copies again, and forgets versions that have retired.

A broker that was started anew knows no worker for a moment: for SETTLE_S it orders nothing, or the first that
joins would be told to load what the others are about to bring.

Longer than 300 lines because whatever changes copies or traffic, for whatever reason, is to be seen here.

A copy that failed is not tried again in the same worker before RETRY_S, twice as long after each failure:
what was wrong may be mended (a file, memory that another has left), and an operator who mends it need not
come back. A version whose load takes workers with it is held back (see `casualties`).
"""

from __future__ import annotations

import math
from collections import Counter

from headway.messages import Load, Unload
from headway.models import ModelSpec
from headway_broker.board import Board
from headway_broker.casualties import RETRY_MOST_S, RETRY_S, Casualties
from headway_broker.catalog import Key
from headway_broker.demand import Demand
from headway_broker.events import Action, Note, Save, ToWorker
from headway_broker.placement import Plan, Seat, Want, plan
from headway_broker.sequence_queue import SequenceQueue
from headway_broker.workers import Worker

LOOK_S = 1.0
SETTLE_S = 1.0
FAULT_S = 10.0  # a process that ends so soon after a copy failed in it ended of that
DRAIN_S = 120.0  # a worker that is to go waits no longer for its copies to be ready elsewhere
COLD_S = 60.0  # how long it is known when a version was loaded because somebody asked for it


class Steering:
    """One broker's. `outbox` is what it wants done; `needs`, what a copy takes, is in bytes. `started`: when
    the broker was, -inf for long ago."""

    def __init__(self, board: Board, started: float = -math.inf) -> None:
        self.board = board
        self.plan = Plan([], {})
        self.plan_is_old = False
        self.outbox: list[Action] = []
        self.changed_workers: dict[
            bytes, None
        ] = {}  # they belong to another crew, where nothing has a turn yet
        self.needs: dict[Key, int] = {}
        self.asleep: set[Key] = set()  # no copy is wanted, but one may be
        self.cold: dict[Key, float] = {}  # when a version that was asleep became ready; inf: not yet
        self.demand = Demand(board)
        self._failures: Counter[Key] = Counter()
        self._awaited: dict[Key, int] = {}  # see `Board.awaited`
        self._casualties = Casualties()
        self._drains: dict[bytes, float] = {}  # until when each worker that is to go is waited for
        self._look_at = -math.inf
        self._settle_at = started + SETTLE_S
        self._is_settled = started == -math.inf

    # ---- at once ----

    def replan(self, now: float) -> None:
        """Order what is missing, and what is too much."""
        if not self.plan_is_old:
            return
        self._hold(now)
        self.plan_is_old = False
        self._awaited = self.board.awaited()
        made = plan(self._wants(), [_seat(worker) for worker in self.board.roster], self.needs)
        held = self.board.held
        lacking = {key: count for key, count in made.lacking.items() if key not in held}
        self.plan = Plan(made.orders, {**made.short, **held}, lacking)
        for order in made.orders if self._is_settled else ():
            worker = self.board.roster.workers[order.worker]
            if order.spec is None:
                self._unload(worker, order.key, now)
            else:
                self.board.roster.load(worker, order.key, now)
                self._tell(worker, Load(*order.key, order.spec.folder))

    def copy_changed(self, key: Key, state: str, facts: dict[str, object], now: float) -> None:
        """A worker reported a copy. PERF: that a load goes as it should changes no plan, and thousands say so
        when a thousand workers start."""
        if state == "failed":
            self._failures[key] += 1
        elif state == "ready":
            del self._failures[key]
            if self._casualties.forget(key):
                self.plan_is_old = True
            if self.cold.get(key) == math.inf:
                self.cold[key] = now
            need = facts.get("memory_bytes")
            if isinstance(need, int) and need > self.needs.get(key, 0):
                self.needs[key] = need
                self.plan_is_old = True
        self._move()

    def awake(self, key: Key) -> None:
        """Somebody asks for a version that has no copies, and may have some."""
        self.asleep.discard(key)
        self.cold[key] = math.inf
        self._wish(key, 1, "a request waits for it")

    def joined(self, worker: Worker) -> None:
        """A worker is on the roster. One that was lost, and lives, is still to go if it was."""
        worker.draining = worker.identity in self._drains

    def lost(self, worker: Worker, reason: str, dead: bool, now: float) -> list[Key]:
        """A worker was lost. Returns the versions that are held back because of it."""
        self.plan_is_old = True
        blamed = [] if worker.flights else [key for key, c in worker.copies.items() if c.state == "loading"]
        if not blamed and dead:
            failed = [(copy.since, key) for key, copy in worker.copies.items() if copy.state == "failed"]
            blamed = [key for since, key in sorted(failed)[-1:] if now < since + FAULT_S]
        held = [key for key in blamed[:1] if self._casualties.lost(key, worker.name, reason, now)]
        for key in held:
            self.note("version held back", model=key[0], version=key[1], worker=worker.name, reason=reason)
        self._hold(now)
        return held

    def changed(self, now: float) -> None:
        """The catalog or its orders changed: copies, traffic and the state file follow."""
        for key in self.board.sync():
            self._renew(key, now)
        for key, copies, reason in self.demand.bounds():
            self._wish(key, copies, reason)
        self._move()
        self.plan_is_old = True
        self.save()

    def save(self) -> None:
        self.outbox.append(Save(self.board.catalog.document()))

    def drain(self, worker: Worker, now: float) -> None:
        """Let the worker go as soon as its copies are ready elsewhere."""
        if not worker.draining:
            worker.draining = True
            self._drains[worker.identity] = now + DRAIN_S
            self.plan_is_old = True
            self.note("worker drains", worker=worker.name)

    def forget_failures(self, model: str, now: float) -> None:
        """Try what failed again at once: the operator says that it was mended."""
        for worker, key in self._failed():
            if key[0] == model:
                self._unload(worker, key, now)
        for key in self.board.queues:
            if key[0] == model:
                self._casualties.forget(key)
        self._hold(now)
        self.plan_is_old = True

    def note(self, event: str, **facts: object) -> None:
        self.outbox.append(Note(event, facts))

    # ---- now and then ----

    def look(self, now: float) -> list[Worker]:
        """Returns the workers that may leave now."""
        if not self._is_settled and now >= self._settle_at:
            self._is_settled = self.plan_is_old = True
        if now < self._look_at:
            return []
        self._look_at = now + LOOK_S
        self._scale(now)
        self._move()
        self._retry(now)
        self._hold(now)
        self._forget(now)
        return [worker for worker in self._draining(now) if self._may_go(worker, now)]

    def _scale(self, now: float) -> None:
        for key, copies, reason in self.demand.wishes(now):
            self._wish(key, copies, reason)

    def _wish(self, key: Key, copies: int, reason: str) -> None:
        before = self.board.copies.get(key)
        self.board.scaling[key] = reason
        if copies or not self.board.catalog.limits(key)[1]:
            self.asleep.discard(key)
        else:
            self.asleep.add(key)
        if copies == before:
            return
        self.board.copies[key] = copies
        self.plan_is_old = True
        self.note("scaled", model=key[0], version=key[1], copies=copies, before=before, reason=reason)

    def _move(self) -> None:
        """Give traffic to what was ordered to have it, where that is ready."""
        catalog = self.board.catalog
        for model in sorted(catalog.moving):
            wanted = catalog.wanted(model)
            if all(self._is_warm((model, version)) for version in wanted):
                catalog.move(model)
                self.note("traffic moved", model=model, weights=wanted)
                self.plan_is_old = True
                self.save()

    def _is_warm(self, key: Key) -> bool:
        hosts = [(copy.state, host.leaving) for host, copy in self.board.roster.hosts(key)]
        return ("ready", False) in hosts and not any(state == "loading" for state, _ in hosts)

    def _renew(self, key: Key, now: float) -> None:
        """What is loaded of it is of a `model.toml` that is not there any more."""
        for worker, _ in self.board.roster.hosts(key):
            self._unload(worker, key, now)
        self.needs.pop(key, None)
        self._casualties.forget(key)
        self.note("version is loaded anew", model=key[0], version=key[1], reason="its model.toml has changed")

    def _hold(self, now: float) -> None:
        """Whom to hold back."""
        held = self._casualties.held(now)
        self.plan_is_old = self.plan_is_old or held.keys() != self.board.held.keys()
        self.board.held, self.board.losses = held, self._casualties.told()

    def _retry(self, now: float) -> None:
        for worker, key in self._failed():
            wait_s = min(RETRY_S * 2 ** min(self._failures[key] - 1, 10), RETRY_MOST_S)
            if now >= worker.copies[key].since + wait_s:
                self._unload(worker, key, now)
                self.plan_is_old = True
                self.note("copy is tried again", worker=worker.name, model=key[0], version=key[1])

    def _forget(self, now: float) -> None:
        if self.board.awaited() != self._awaited:  # nobody waits any more: copies may go
            self.plan_is_old = True
        for key in self.board.purge():
            self.note("version is gone", model=key[0], version=key[1])
            self._failures.pop(key, None)
            self.needs.pop(key, None)
            self.asleep.discard(key)
            self._casualties.forget(key)
        self.cold = {
            key: since for key, since in self.cold.items() if since == math.inf or now < since + COLD_S
        }

    def _may_go(self, worker: Worker, now: float) -> bool:
        """Whether all it has ready is ready elsewhere, as far as there is a place for it."""
        if now >= self._drains.get(worker.identity, now):
            return True
        ready = [key for key, copy in worker.copies.items() if copy.state == "ready"]
        if any(self._has_sequences(worker, key) for key in ready):
            return False
        return not self.plan_is_old and all(self._is_covered(key, worker) for key in ready)

    def _has_sequences(self, worker: Worker, key: Key) -> bool:
        queue = self.board.queues.get(key)
        return isinstance(queue, SequenceQueue) and queue.has_open(worker.identity)

    def _is_covered(self, key: Key, worker: Worker) -> bool:
        hosts = self.board.roster.hosts(key)
        others = [copy.state for host, copy in hosts if not (host.draining or host.leaving)]
        if "loading" in others:
            return False
        if key in self.board.retiring:
            return others.count("ready") >= self._awaited.get(key, 0)
        return others.count("ready") >= self.board.copies.get(key, 0) or key in self.plan.short

    # ---- inside ----

    def _wants(self) -> list[Want]:
        catalog, board = self.board.catalog, self.board
        wants = [Want(spec, self._copies(spec.key), self.need(spec)) for spec in catalog]
        for key, copies in self._awaited.items():
            spec = board.queues[key].spec
            wants.append(Want(spec, self._safe(key, copies), self.need(spec)))
        return wants

    def _copies(self, key: Key) -> int:
        """A version that is to get traffic needs a copy to show that it is ready, whatever its load."""
        copies, catalog = self.board.copies[key], self.board.catalog
        if not copies and key[0] in catalog.moving and key[1] in catalog.wanted(key[0]):
            copies = min(1, catalog.limits(key)[1])
        return self._safe(key, copies)

    def _safe(self, key: Key, copies: int) -> int:
        """As many of the copies as may be tried now."""
        if key in self.board.held:
            return min(copies, self.board.staying(key))
        if self._casualties.is_suspect(key):
            return min(copies, self.board.staying(key, ("ready",)) + 1)
        return copies

    def need(self, spec: ModelSpec) -> int:
        """The memory a copy takes: as declared, else as measured, else 0."""
        return spec.memory_mb << 20 or self.needs.get(spec.key, 0)

    def check(self) -> None:
        """Raise AssertionError if a version or a worker is not as it is kept here. For tests."""
        board = self.board
        for key in self.asleep & set(board.catalog.specs):
            assert not board.copies[key] and board.catalog.limits(key)[1], f"{key} sleeps, and shall not"
        for worker in board.roster:
            assert not worker.draining or worker.identity in self._drains, f"{worker.name} drains for ever"
        assert board.held.keys() <= board.queues.keys(), "a version that is gone is held back"

    def _draining(self, now: float) -> list[Worker]:
        self._drains = {who: t for who, t in self._drains.items() if now < t or self.board.roster.get(who)}
        there = [worker for who in self._drains if (worker := self.board.roster.get(who))]
        return [worker for worker in there if not worker.leaving]

    def _failed(self) -> list[tuple[Worker, Key]]:
        if not self._failures:
            return []
        found = [(w, key) for key in self._failures for w, copy in self.board.roster.hosts(key)]
        return [(worker, key) for worker, key in found if worker.copies[key].state == "failed"]

    def _unload(self, worker: Worker, key: Key, now: float) -> None:
        self.board.roster.let_go(worker, key, now)
        self.changed_workers[worker.identity] = None
        self._tell(worker, Unload(*key))

    def _tell(self, worker: Worker, message: Load | Unload) -> None:
        self.outbox.append(ToWorker(worker.identity, message))


def _seat(worker: Worker) -> Seat:
    about, facts = worker.about, worker.about.facts
    return Seat(
        worker.identity,
        about.name,
        about.host,
        about.device,
        str(facts.get("device_id") or about.device),
        dict.fromkeys(worker.unloading, "unloading")
        | {key: c.report.state for key, c in worker.copies.items()},
        _number(facts.get("memory_bytes")),
        _number(facts.get("device_memory_bytes")),
        worker.draining or worker.leaving,
        _number(facts.get("copies_max")),
    )


def _number(value: object) -> int:
    return value if isinstance(value, int) and value > 0 else 0
