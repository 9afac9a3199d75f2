"""Which worker may have what of a model with sequences, and when it is looked at again.

Knows: sequence queues, crews, the batch policy. Must not know: whose turn it is, callers, outcomes.

How it works. What waits is bound to workers (see `sequence_queue`). What waits for an idle one goes when it
is ripe, and has an alarm until then. What waits for a busy one is noted there (`Worker.parked`), and looked
at when that worker is free. A worker that belongs to no crew for now is looked at when it does again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from headway.models import WORKER
from headway_broker.alarms import Alarms
from headway_broker.batching import BatchPolicy, Waiting
from headway_broker.catalog import Key
from headway_broker.costs import Costs
from headway_broker.crews import Crew
from headway_broker.roster import Roster
from headway_broker.sequence_queue import SequenceQueue
from headway_broker.workers import Worker


class Affinity:
    """`ripe` are the alarms of all models, which are set here too."""

    def __init__(
        self, costs: Mapping[Key, Costs], roster: Roster, policy: BatchPolicy, ripe: Alarms[Key]
    ) -> None:
        self._costs = costs
        self._roster = roster
        self._policy = policy
        self._ripe = ripe

    def look(self, key: Key, queue: SequenceQueue, now: float) -> bool:
        """Whether something is ripe for a worker that may be sent it; what is not has an alarm."""
        if queue.unbound:
            queue.bind(self._roster.lasting(key))
        is_ripe = False
        for who in queue.heads:
            worker, crew = self._place(who)
            if not worker or not crew:
                continue
            if _may_take(crew, who):
                ripe_at = self._ripe_at(key, queue, who, now)
                is_ripe = is_ripe or ripe_at <= now
                if ripe_at > now:
                    self._ripe.set(key, ripe_at)
            else:
                worker.parked[key] = None
        return is_ripe

    def ready(
        self, key: Key, queue: SequenceQueue, among: Mapping[bytes, Worker], now: float
    ) -> tuple[Worker, int] | None:
        """One of these workers for which something is ripe, and the most rows of its batch."""
        for who in queue.heads:
            worker = among.get(who)
            if worker and self._ripe_at(key, queue, who, now) <= now:
                return worker, self._policy.rows_max(self._waiting(key, queue, who))
        return None

    def check(self, key: Key, queue: SequenceQueue) -> None:
        """Raise AssertionError where something waits and nobody would look at it. For tests."""
        assert not queue.unbound or not self._roster.lasting(key), f"{key} has sequences that nobody gets"
        for who in queue.heads:
            worker, crew = self._place(who)
            if worker and crew and key in crew.keys and key not in crew.turns.waiting:
                later = key in self._ripe or (key in worker.parked and who not in crew.idle)
                assert later, f"a sequence of {key} waits and nobody would look at it"

    def _place(self, who: bytes) -> tuple[Worker | None, Crew | None]:
        worker = self._roster.get(who)
        return worker, self._roster.crew_of(worker) if worker else None

    def _ripe_at(self, key: Key, queue: SequenceQueue, who: bytes, now: float) -> float:
        """When what waits for a worker that takes it may go."""
        queue.taken_up.setdefault(who, now)
        waiting = self._waiting(key, queue, who)
        full = waiting.rows >= self._policy.rows_max(waiting)
        return -math.inf if full else self._policy.ripe_at(waiting)

    def _waiting(self, key: Key, queue: SequenceQueue, who: bytes) -> Waiting:
        spec, oldest = queue.spec, queue.oldest_for(who)
        since = max(queue.taken_up.get(who, oldest), oldest) if spec.batch_clock == WORKER else oldest
        return Waiting(
            queue.rows_for(who),
            spec.batch_size_max,
            oldest,
            queue.earliest_for(who),
            spec.batch_delay_ms / 1000,
            self._costs[key],
            0.0,
            since,
        )


def _may_take(crew: Crew, who: bytes) -> bool:
    """Whether the worker may be sent a batch now: an idle one or, where nobody is and another model could
    keep it busy for ever, one that is about to be."""
    return who in crew.idle or (not crew.idle and len(crew.keys) > 1 and who in crew.spare)
