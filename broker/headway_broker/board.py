"""The broker's parts, all on one board: what the scheduler's rooms read, and how a version comes and goes.

Pure. Knows: that each version has a queue, counters and costs. Must not know: what any of them decides.

A version that is unregistered is *retiring* until what it had accepted has its outcome: no request is
accepted for it any more, and its copies stay for as long as somebody waits for them. If it comes back
meanwhile, it is taken back as it was, or, if its `model.toml` has changed, *renewed*: its copies are of the
old one.

Invariant: `queues`, `stats` and `costs` have the same keys: the catalog's, and those that retire.
"""

from __future__ import annotations

from collections import deque

from headway.models import ModelSpec
from headway_broker.agents import Agents
from headway_broker.catalog import Catalog, Key
from headway_broker.costs import Costs
from headway_broker.events import Note
from headway_broker.holds import Holds
from headway_broker.ledger import Ledger
from headway_broker.queues import Queue
from headway_broker.roster import Roster
from headway_broker.sequence_queue import queue_for, queue_instead
from headway_broker.stats import ModelStats

NOTES_MAX = 100
LIVE = ("loading", "ready")


class Board:
    """One broker's parts. `notes` are its last decisions, with their times, for people."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self.roster = Roster()
        self.agents = Agents()
        self.queues: dict[Key, Queue] = {}
        self.stats: dict[Key, ModelStats] = {}
        self.costs: dict[Key, Costs] = {}
        self.holds = Holds()
        self.ledger = Ledger(self.stats, self.holds)
        self.retiring: set[Key] = set()
        self.copies: dict[Key, int] = {}  # how many each version shall have now
        self.scaling: dict[Key, str] = {}  # why so many
        self.held: dict[Key, str] = {}  # versions that are not loaded for now, and why
        self.losses: dict[Key, str] = {}  # versions whose load took workers with it, and how
        self.notes: deque[tuple[float, Note]] = deque(maxlen=NOTES_MAX)
        self.sync()

    def sync(self) -> list[Key]:
        """The catalog changed: versions that are new get their parts, those that are gone retire. Returns
        those that were renewed."""
        renewed = []
        for spec in self.catalog:
            self.retiring.discard(spec.key)
            if spec.key not in self.queues:
                self._add(spec)
            elif self.queues[spec.key].spec != spec:
                self.queues[spec.key] = queue_instead(self.queues[spec.key], spec)
                self.costs[spec.key] = Costs()
                renewed.append(spec.key)
        self.retiring.update(key for key in self.queues if key not in self.catalog.specs)
        return renewed

    def purge(self) -> list[Key]:
        """Take away what has retired: nothing waits for it, and no worker has it. Returns what that was."""
        done = [k for k in self.retiring if not len(self.queues[k]) and not self.roster.hosts(k)]
        if done:
            busy = self._in_batches()
            done = [key for key in done if key not in busy]
        for key in done:
            self.retiring.discard(key)
            for parts in (self.queues, self.stats, self.costs, self.copies, self.scaling, self.held):
                parts.pop(key, None)
        return done

    def ready(self, key: Key) -> int:
        """How many copies can serve."""
        return self.roster.count(key, "ready")

    def loading(self, key: Key) -> int:
        """How many copies are on their way."""
        return self.roster.count(key, "loading")

    def staying(self, key: Key, states: tuple[str, ...] = LIVE) -> int:
        """How many copies are ready or on their way, in workers that stay."""
        hosts = self.roster.hosts(key)
        return sum(c.state in states and not (w.leaving or w.draining) for w, c in hosts)

    def awaited(self) -> dict[Key, int]:
        """The retiring versions that still owe somebody an answer, and how many copies that takes."""
        if not self.retiring:
            return {}
        busy = self._in_batches()
        owing = [key for key in sorted(self.retiring) if len(self.queues[key]) or key in busy]
        return {key: max(self.staying(key), int(len(self.queues[key]) > 0)) for key in owing}

    def _in_batches(self) -> set[Key]:
        return {flight.key for worker in self.roster for flight in worker.flights}

    def _add(self, spec: ModelSpec) -> None:
        self.queues[spec.key] = queue_for(spec)
        self.stats[spec.key] = ModelStats()
        self.costs[spec.key] = Costs()
        least, most = self.catalog.limits(spec.key)
        self.copies[spec.key] = min(max(spec.copies, least), most)

    def check(self) -> None:
        """Raise AssertionError if the invariant does not hold. For tests."""
        keys = set(self.catalog.specs) | self.retiring
        assert not self.retiring & set(self.catalog.specs), "a registered version retires"
        for parts in (self.queues, self.stats, self.costs, self.copies):
            assert set(parts) == keys, f"parts of {set(parts) ^ keys} are missing, or left over"
