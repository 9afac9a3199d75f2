"""What is: the workers, what each hosts, what each is busy with, and which of them are alike.

Knows: workers, crews. Must not know: queues, what a request is for, how to answer.

How a worker is found. Workers with the same ready copies are one crew (see `crews`), and a model version
has the crews that can serve it. A worker that is sent a batch, or is done with one, changes its place in
its crew, which costs the same whatever it hosts and however many workers there are. It changes its crew
only when its copies change.

Invariants: a worker has at most CREDIT batches; while it runs a batch that must be alone, no other; a
worker is in a crew exactly while it neither loads nor leaves and has a ready copy, and that crew's keys are
its ready copies; a crew has a worker; every worker is watched.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator

from headway.messages import Copy
from headway_broker.alarms import Alarms
from headway_broker.catalog import Key
from headway_broker.crews import Crew
from headway_broker.workers import Flight, HostedCopy, Worker


class Roster:
    """All workers."""

    def __init__(self) -> None:
        self.workers: dict[bytes, Worker] = {}
        self._hosts: dict[Key, dict[bytes, Worker]] = {}
        self._counts: Counter[tuple[Key, str]] = Counter()  # of copies, by their state
        self._names: dict[str, dict[bytes, Worker]] = {}
        self._crews: dict[frozenset[Key], Crew] = {}
        self._crews_for: dict[Key, dict[Crew, None]] = {}
        self._crew_of: dict[bytes, Crew] = {}
        self._watch: Alarms[bytes] = Alarms()

    def __iter__(self) -> Iterator[Worker]:
        return iter(self.workers.values())

    def __len__(self) -> int:
        return len(self.workers)

    def get(self, identity: bytes) -> Worker | None:
        return self.workers.get(identity)

    def crews(self, key: Key) -> Iterable[Crew]:
        """All whose workers can run `key`."""
        return self._crews_for.get(key, ())

    def crew_of(self, worker: Worker) -> Crew | None:
        """None while the worker takes nothing."""
        return self._crew_of.get(worker.identity)

    def idle(self, key: Key) -> Worker | None:
        """A worker that could run `key` at once."""
        return next((w for crew in self.crews(key) if (w := crew.first_idle)), None)

    def idle_count(self, key: Key) -> int:
        """How many workers could."""
        return sum(len(crew.idle) for crew in self.crews(key))

    def hosts(self, key: Key) -> list[tuple[Worker, HostedCopy]]:
        """Every worker with a copy of `key`, in whatever state."""
        return [(worker, worker.copies[key]) for worker in self._hosts.get(key, {}).values()]

    def count(self, key: Key, state: str) -> int:
        """How many workers have a copy of `key` in that state."""
        return self._counts[key, state]

    def serving(self, key: Key) -> list[bytes]:
        """The workers with a ready copy of `key`. PERF: asked for every version once a second."""
        hosts = self._hosts.get(key)
        return [who for who, w in hosts.items() if w.copies[key].report.state == "ready"] if hosts else []

    def lasting(self, key: Key) -> dict[bytes, bool]:
        """The workers that can serve `key` and take new work; whether each drains."""
        hosts = self._hosts.get(key, {}).items()
        return {who: w.draining for who, w in hosts if w.copies[key].state == "ready" and not w.leaving}

    def named(self, name: str) -> Iterable[Worker]:
        """The workers that say they are called so."""
        return self._names.get(name, {}).values()

    def add(self, worker: Worker) -> None:
        self.workers[worker.identity] = worker
        self._names.setdefault(worker.name, {})[worker.identity] = worker
        self.watch(worker, -math.inf)

    def remove(self, worker: Worker) -> None:
        if self.workers.pop(worker.identity, None):
            self._leave_crew(worker)
            for key, copy in worker.copies.items():
                self._counts[key, copy.state] -= 1
                self._forget_host(worker, key)
            del self._names[worker.name][worker.identity]
            if not self._names[worker.name]:
                del self._names[worker.name]

    def load(self, worker: Worker, key: Key, now: float) -> None:
        """The worker was told to load a copy."""
        self._note(worker, Copy(*key, "loading", "", {}), now)
        self._changed(worker, key)

    def set_copies(self, worker: Worker, reports: Iterable[Copy], now: float) -> list[Copy]:
        """The worker reported how its copies are; "gone" removes one. Returns what was news."""
        news = [report for report in reports if not worker.is_old(report, now)]
        for report in news:
            self._note(worker, report, now)
            self._note_host(worker, (report.model, report.version))
        self._choose_crew(worker)
        self.watch(worker, -math.inf)
        return news

    def let_go(self, worker: Worker, key: Key, now: float) -> None:
        """The worker was told to unload a copy."""
        self._count(worker, key, -1)
        worker.let_go(key, now)
        self._changed(worker, key)

    def watch(self, worker: Worker, at: float) -> None:
        """Something about the worker may be due then; its batches are looked after here."""
        self._watch.set(worker.identity, at)

    def is_watched(self, worker: Worker) -> bool:
        """Whether `due` will name the worker some day. For the invariants."""
        return worker.identity in self._watch

    def due(self, now: float) -> list[Worker]:
        """Those about whom something may be due. Whoever stays must be watched anew."""
        return [worker for identity in self._watch.due(now) if (worker := self.workers.get(identity))]

    def start(self, worker: Worker, flight: Flight, now: float) -> None:
        """The worker was sent a batch."""
        worker.start(flight, now)
        self._place(worker)

    def finish(self, worker: Worker, batch: int, now: float) -> Flight | None:
        """The worker is done with a batch; None if it never had it."""
        flight = worker.finish(batch, now)
        self._place(worker)
        return flight

    def start_abreast(self, worker: Worker, flight: Flight, now: float) -> None:
        """The worker was sent a batch that runs beside others, which leaves its place in its crew."""
        worker.start_abreast(flight, now)
        self.watch(worker, -math.inf)

    def room_abreast(self, key: Key, most: int) -> tuple[int, Worker | None]:
        """How many batches of `key`, of which a copy takes so many beside one another, its workers have room
        for; and the worker that has the fewest, if it has room. Costs as much as there are copies."""
        able = [w for w in self._hosts.get(key, {}).values() if self._serves(w, key)]
        if not able:
            return 0, None
        freest = min(able, key=lambda worker: worker.abreast.count(key))
        room = sum(max(most - worker.abreast.count(key), 0) for worker in able)
        return room, freest if room else None

    def _serves(self, worker: Worker, key: Key) -> bool:
        crew = self._crew_of.get(worker.identity)
        return crew is not None and key in crew.keys

    def expect(self, worker: Worker, now: float) -> None:
        """See whether the worker is at its batch for longer than was expected."""
        if worker.overdue(now):
            self._place(worker)

    def leave(self, worker: Worker) -> None:
        """The worker takes nothing new."""
        worker.leaving = True
        self._choose_crew(worker)

    def _changed(self, worker: Worker, key: Key) -> None:
        self._note_host(worker, key)
        self._choose_crew(worker)
        self.watch(worker, -math.inf)

    def _note(self, worker: Worker, report: Copy, now: float) -> None:
        key = (report.model, report.version)
        self._count(worker, key, -1)
        worker.note(report, now)
        self._count(worker, key, 1)

    def _count(self, worker: Worker, key: Key, sign: int) -> None:
        if copy := worker.copies.get(key):
            self._counts[key, copy.report.state] += sign

    def _note_host(self, worker: Worker, key: Key) -> None:
        if key in worker.copies:
            self._hosts.setdefault(key, {})[worker.identity] = worker
        else:
            self._forget_host(worker, key)

    def _forget_host(self, worker: Worker, key: Key) -> None:
        if hosts := self._hosts.get(key):
            hosts.pop(worker.identity, None)
            if not hosts:
                del self._hosts[key]
                for state in ("loading", "ready", "failed"):
                    self._counts.pop((key, state), None)

    def _place(self, worker: Worker) -> None:
        self.watch(worker, worker.batches_due)
        if crew := self._crew_of.get(worker.identity):
            crew.place(worker)

    def _choose_crew(self, worker: Worker) -> None:
        """Where the worker belongs, by what it has ready."""
        keys: frozenset[Key] = frozenset()
        if not worker.loading and not worker.leaving:
            keys = frozenset(key for key, copy in worker.copies.items() if copy.state == "ready")
        before = self._crew_of.get(worker.identity)
        if keys != (before.keys if before else frozenset()):
            self._leave_crew(worker)
            if keys:
                self._join_crew(worker, keys)

    def _join_crew(self, worker: Worker, keys: frozenset[Key]) -> None:
        crew = self._crews.get(keys)
        if crew is None:
            crew = self._crews[keys] = Crew(keys)
            for key in keys:
                self._crews_for.setdefault(key, {})[crew] = None
        self._crew_of[worker.identity] = crew
        crew.add(worker)

    def _leave_crew(self, worker: Worker) -> None:
        crew = self._crew_of.pop(worker.identity, None)
        if crew is None:
            return
        crew.remove(worker)
        if not crew.size:
            del self._crews[crew.keys]
            for key in crew.keys:
                del self._crews_for[key][crew]
