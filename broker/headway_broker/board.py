"""The broker's parts, all on one board: what the scheduler's rooms read, and how a version comes and goes.

Pure. Knows: that each version has a queue, counters and costs. Must not know: what any of them decides.

A version that is unregistered is *retiring* until what it had accepted has its outcome: no request is
accepted for it any more, and its copies stay for as long as somebody waits for them.

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
from headway_broker.stats import ModelStats

NOTES_MAX = 100


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
        self.notes: deque[tuple[float, Note]] = deque(maxlen=NOTES_MAX)
        self.sync()

    def sync(self) -> None:
        """The catalog changed: versions that are new get their parts, those that are gone retire."""
        for spec in self.catalog:
            self.retiring.discard(spec.key)
            if spec.key not in self.queues:
                self._add(spec)
        self.retiring.update(key for key in self.queues if key not in self.catalog.specs)

    def purge(self) -> list[Key]:
        """Take away what has retired: nothing waits for it, and no worker has it. Returns what that was."""
        busy = {flight.key for worker in self.roster for flight in worker.batches.values()}
        done = [k for k in self.retiring if not len(self.queues[k]) and k not in busy]
        done = [key for key in done if not self.roster.hosts(key)]
        for key in done:
            self.retiring.discard(key)
            for parts in (self.queues, self.stats, self.costs, self.copies, self.scaling):
                parts.pop(key, None)
        return done

    def ready(self, key: Key) -> int:
        """How many copies can serve."""
        return sum(copy.state == "ready" for _, copy in self.roster.hosts(key))

    def loading(self, key: Key) -> int:
        """How many copies are on their way."""
        return sum(copy.state == "loading" for _, copy in self.roster.hosts(key))

    def is_awaited(self, key: Key) -> bool:
        """Whether a retiring version still owes somebody an answer that it can give."""
        if not self.ready(key) and not self.loading(key):
            return False
        queue = self.queues[key]
        return bool(len(queue)) or any(
            flight.key == key for worker in self.roster for flight in worker.batches.values()
        )

    def _add(self, spec: ModelSpec) -> None:
        self.queues[spec.key] = Queue(spec)
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
