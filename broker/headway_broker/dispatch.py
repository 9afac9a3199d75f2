"""Which requests ride in which batch, to which worker.

Knows: queues, crews, the batch policy. Must not know: callers, outcomes, placement.

How it works. `look_at` marks a queue as worth a look, and `free` a worker's crew, which costs nothing.
`run` lets each marked queue whose batch is ripe wait for its turn: at one crew that has somebody idle for
it, else at each crew that can run it. Then it serves the crews that have something new, first their idle
workers and then those with credit to spare. A queue that is not ripe yet is marked again when it will be.
So nothing is scanned, however many models and workers there are.

Whose turn it is, `turns` says: the crew's time is shared between the models that wait. An idle worker takes
the batch whose turn it is, full or not, formed at that moment. A busy worker is sent a batch ahead only if
it is full and its turn: one that is partial, or must travel alone, is waited for. A crew with several
models sends ahead only AHEAD_S before the worker is expected to be free; so whoever comes meanwhile waits
for the batch that runs and for no other.

The delay of a model with `batch_clock = "worker"` counts from when an idle worker took up what waits for it
(`_taken_up`). Until then such a queue waits for its turn as if it were ripe, and is looked at again when it
has it. Full batches are sent ahead all the same; what is so sent still counts for the queue (see `intake`).

A model whose batches run beside one another (`abreast_max`) has no turn to wait for: what waits goes at once
to the copy that holds the fewest, as long as one has room; so does what comes back from a lost worker, and
not alone, since to run one after the other what ran beside one another would take too long. If the model is
`continuous`, each request is a batch of its own, else batches are formed as ever.

A model with sequences waits for its turn at every crew, and takes it with a worker for which something of it
is ripe (`affinity`); ahead, full or not, only where other models would else keep that worker busy for ever.

Longer than 300 lines because every batch that is sent is sent here.

Invariant: what is hopeless is taken out of its queue here, and handed out with `take_hopeless` in the same
wake.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from zlib import crc32

from headway.messages import Batch, BatchRequest
from headway.models import WORKER
from headway.refs import without_reply_slot
from headway_broker.admission import Admission
from headway_broker.affinity import Affinity
from headway_broker.alarms import Alarms
from headway_broker.batching import BatchPolicy, Waiting
from headway_broker.catalog import Key
from headway_broker.companies import Companies
from headway_broker.costs import Costs
from headway_broker.crews import Crew
from headway_broker.queues import OpenRequest, Queue
from headway_broker.roster import Roster
from headway_broker.sequence_queue import SequenceQueue
from headway_broker.stats import ModelStats
from headway_broker.workers import Flight, Worker

AHEAD_S = 0.005  # the way to the worker, and its copy to the device


class Dispatch:
    """Forms batches; `take_batches` hands them out by worker."""

    def __init__(
        self,
        queues: Mapping[Key, Queue],
        stats: Mapping[Key, ModelStats],
        costs: Mapping[Key, Costs],
        roster: Roster,
        policy: BatchPolicy,
        nonce: bytes,
        companies: Companies | None = None,
    ) -> None:
        self._queues = queues
        self._companies = companies or Companies()
        self._stats = stats
        self._costs = costs
        self._roster = roster
        self._policy = policy
        self._admission = Admission(queues, costs, roster)
        # A worker outlives its broker, and its results for the old one may reach the new one: ids of two
        # starts must not meet.
        self._last_id = crc32(nonce) << 31
        self._look: dict[Key, None] = {}  # in the order in which they were marked
        self._serve: dict[Crew, None] = {}
        self._fresh: set[Key] = set()  # found ripe in this turn, and untouched since (PERF)
        self._figures: dict[Key, Waiting] = {}  # of what was looked at in this turn
        self._taken_up: dict[Key, float] = {}  # since when a worker that is idle waits for company
        self._ripe: Alarms[Key] = Alarms()
        self._ahead: Alarms[Crew] = Alarms()
        self.hopeless: list[OpenRequest] = []
        self._affinity = Affinity(costs, roster, policy, self._ripe)
        self.batches: dict[bytes, list[Batch]] = {}

    def look_at(self, key: Key) -> None:
        """Something changed for this queue."""
        self._look[key] = None

    def look_for(self, worker: Worker) -> None:
        """The worker's copies changed: look at what waits for it, those first that have waited longest."""
        waiting = [key for key in worker.copies if key in self._queues and len(self._queues[key])]
        for key in sorted(waiting, key=lambda key: self._queues[key].head):
            self._look[key] = None

    def free(self, worker: Worker) -> None:
        """The worker has credit again."""
        if worker.parked:
            self._look.update(worker.parked)
            worker.parked = {}
        if crew := self._roster.crew_of(worker):
            self._serve[crew] = None

    def next_wake(self) -> float:
        """-inf: at once; inf: not for a batch's sake."""
        if self._look or self._serve or self.batches:
            return -math.inf
        return min(self._ripe.next, self._ahead.next)

    def run(self, now: float) -> None:
        """Form every batch that can be formed now."""
        if now >= self._ripe.next:
            self._look.update(dict.fromkeys(self._ripe.due(now)))
        if now >= self._ahead.next:
            self._serve.update(dict.fromkeys(self._ahead.due(now)))
        look, self._look = self._look, {}
        ripe = [key for key in look if self._is_ripe(key, now)] if look else []
        if ripe:
            self._serve_ripe(ripe, now)
        elif self._serve:
            self._serve_all([], now)
        self._figures.clear()

    def _serve_ripe(self, ripe: list[Key], now: float) -> None:
        """Let these wait for their turns, and serve whom they wait for."""
        self._fresh.update(ripe)
        placed = {key for key in ripe if self._take_place(key)}
        self._serve_all([key for key in ripe if key not in placed], now)
        if left := [key for key in ripe if key in placed and self._queues[key].count]:
            self._serve_all(left, now)
        self._fresh.clear()

    def _serve_all(self, keys: list[Key], now: float) -> None:
        for key in keys:
            self._line_up(key)
        serve, self._serve = self._serve, {}
        for crew in serve:
            if crew.turns.waiting:
                self._serve_idle(crew, now)
        for crew in serve:
            if crew.turns.waiting:
                self._serve_ahead(crew, now)

    def take_batches(self) -> dict[bytes, list[Batch]]:
        """What is to be sent, by worker."""
        batches, self.batches = self.batches, {}
        return batches

    def take_hopeless(self) -> list[OpenRequest]:
        """What was taken out of its queue because it cannot make it any more."""
        hopeless, self.hopeless = self.hopeless, []
        return hopeless

    def check(self) -> None:
        """Raise AssertionError where something waits and nobody would look at it. For tests: it is slow."""
        for key, queue in self._queues.items():
            if not len(queue) or key in self._look:
                continue
            if isinstance(queue, SequenceQueue):
                self._affinity.check(key, queue)
                continue
            later = key in self._ripe or self._policy.ripe_at(self._waiting(key)) == math.inf
            if queue.spec.abreast_max:
                room, _ = self._roster.room_abreast(key, queue.spec.abreast_max)
                assert later or not room, f"{key} waits while a copy has room"
                continue
            for crew in self._roster.crews(key):
                assert later or key in crew.turns.waiting, f"{key} has no turn"
                waits = key in crew.turns.waiting and crew.idle and crew not in self._serve
                # One that was taken up when a worker joined keeps the turn that it had, and has an alarm.
                assert later or not waits, f"{key} waits while a worker is idle"

    def _take_place(self, key: Key) -> bool:
        """Let the queue wait at one crew only, if it has somebody idle whom nobody waits for. PERF: where all
        workers host different models this is 2 us for a batch, and to wait at 40 crews is 150."""
        spec = self._queues[key].spec
        if spec.sequences_max:
            return False
        for crew in self._roster.crews(key):
            if crew.idle and not crew.turns.waiting:
                crew.turns.wait(key, spec.share)
                self._serve[crew] = None
                return True
        return False

    def _line_up(self, key: Key) -> None:
        """Let the queue wait for its turn wherever it can be served. A crew with an alarm looks by itself."""
        share = self._queues[key].spec.share
        for crew in self._roster.crews(key):
            if key not in crew.turns.waiting:
                crew.turns.wait(key, share)
            if crew.idle or (crew.spare and crew not in self._ahead):
                self._serve[crew] = None

    def _is_ripe(self, key: Key, now: float) -> bool:
        queue = self._queues.get(key)
        if queue is None or not queue.count:  # None: an alarm of a version that has gone since
            self._taken_up.pop(key, None)
            return False
        if queue.spec.abreast_max:
            return self._serve_abreast(key, queue, now)
        if isinstance(queue, SequenceQueue):
            return self._affinity.look(key, queue, now)
        if queue.returns:
            return True
        if self._waits_already(key, queue):
            return False
        return not self._is_taken_up(key, queue, now) or self._is_due(key, now)

    def _waits_already(self, key: Key, queue: Queue) -> bool:
        """Whether it has its turn to come at busy workers, and is not full: nothing is to be done. PERF: most
        messages find it so, and to find that in all other ways took 3 us for each of their requests."""
        if queue.spec.slo_ms:
            return False
        for crew in self._roster.crews(key):
            if crew.idle or key not in crew.turns.waiting or len(crew.keys) > 1:
                return False
        waiting = self._waiting(key)
        return waiting.rows < self._policy.rows_max(waiting)

    def _is_due(self, key: Key, now: float) -> bool:
        waiting = self._figures[key] = self._waiting(key)
        if waiting.rows >= self._policy.rows_max(waiting):
            return True
        ripe_at = self._policy.ripe_at(waiting)
        if ripe_at > now:
            self._ripe.set(key, ripe_at)
        return ripe_at <= now

    def _serve_abreast(self, key: Key, queue: Queue, now: float) -> bool:
        """Send what waits to whoever has room. Returns False: nothing waits for a turn."""
        spec = queue.spec
        while len(queue) and (worker := self._roster.room_abreast(key, spec.abreast_max)[1]):
            if spec.batch_clock == WORKER and self._taken_up.get(key, -math.inf) < queue.oldest:
                self._taken_up[key] = now
            if returned := queue.take_returned():
                requests = [returned]
            elif spec.continuous:
                requests = queue.take(1)
            elif self._is_due(key, now):
                requests = queue.take(self._policy.rows_max(self._waiting(key)))
            else:
                break
            self._taken_up.pop(key, None)
            flight = self._flight(worker, requests, now)
            flight.abreast = True
            self._roster.start_abreast(worker, flight, now)
        return False

    def _serve_idle(self, crew: Crew, now: float) -> None:
        """Give every idle worker a batch, as long as something waits."""
        while (key := crew.turns.first) and (worker := crew.first_idle):
            queue = self._queues[key]
            if isinstance(queue, SequenceQueue):
                self._serve_sequences(crew, key, queue, crew.idle, now)
                continue
            self._drop_hopeless(key, now)
            if key not in self._fresh and not self._is_ripe(key, now):
                crew.turns.pass_over()
            elif returned := queue.take_returned():
                self._send(crew, worker, [returned], now, alone=True)
            else:
                known = self._figures.get(key) if key in self._fresh else None
                rows_max = self._policy.rows_max(known or self._waiting(key))
                self._send(crew, worker, queue.take(rows_max), now)

    def _serve_ahead(self, crew: Crew, now: float) -> None:
        """Send full batches ahead to workers that are about to be free."""
        while not crew.idle and (key := crew.turns.first) and (worker := crew.first_spare):
            queue, start = self._queues[key], max(worker.free_at, now)
            if isinstance(queue, SequenceQueue):
                if not self._serve_sequences(crew, key, queue, crew.spare if len(crew.keys) > 1 else {}, now):
                    return
                continue
            self._drop_hopeless(key, start)
            if not queue.count:
                crew.turns.pass_over()
                continue
            waiting = self._waiting(key)
            rows_max = self._policy.rows_max(waiting)
            if queue.returns or waiting.rows < rows_max:
                return
            if len(crew.keys) > 1 and now < worker.free_at - AHEAD_S:
                self._ahead.set(crew, worker.free_at - AHEAD_S)
                return
            self._send(crew, worker, queue.take(rows_max), now)

    def _serve_sequences(
        self, crew: Crew, key: Key, queue: SequenceQueue, among: Mapping[bytes, Worker], now: float
    ) -> bool:
        """Give one of these workers what is ripe for it; without one the queue is looked at again later.
        False: it is too early to send it ahead."""
        found = self._affinity.ready(key, queue, among, now)
        if found is None:
            crew.turns.pass_over()
            self._affinity.look(key, queue, now)
            return True
        worker, rows_max = found
        if worker.batches and now < worker.free_at - AHEAD_S:
            self._ahead.set(crew, worker.free_at - AHEAD_S)
            return False
        self._send(crew, worker, queue.take_for(worker.identity, rows_max), now)
        return True

    def _drop_hopeless(self, key: Key, start: float) -> None:
        """Take out what cannot make it in a batch that starts then; what is left may not be ripe."""
        if hopeless := self._admission.hopeless(key, start, keep=1):
            self.hopeless += hopeless
            self._fresh.discard(key)

    def _is_taken_up(self, key: Key, queue: Queue, now: float) -> bool:
        """Whether the delay of what waits has begun."""
        if queue.spec.batch_clock != WORKER:
            return True
        if self._taken_up.get(key, -math.inf) < queue.oldest:  # not yet, or for others that have gone
            self._taken_up.pop(key, None)
            if self._roster.idle(key):
                self._taken_up[key] = now
        return key in self._taken_up

    def _waiting(self, key: Key) -> Waiting:
        queue = self._queues[key]
        spec = queue.spec
        oldest = queue.oldest
        return Waiting(
            queue.rows_together,
            spec.batch_size_max,
            oldest,
            queue.earliest,
            spec.batch_delay_ms / 1000,
            self._costs[key],
            spec.slo_ms / 1000,
            self._taken_up.get(key, oldest),
            self._companies.are_complete(queue),
        )

    def _send(
        self, crew: Crew, worker: Worker, requests: list[OpenRequest], now: float, alone: bool = False
    ) -> None:
        """Send a batch of the model whose turn it is."""
        key = requests[0].key
        queue, cost_s = self._queues[key], self._costs[key].mean_s(sum([r.rows for r in requests]))
        crew.turns.take(cost_s)
        if queue.count:
            crew.turns.wait(key, queue.spec.share)
        self._fresh.discard(key)
        self._taken_up.pop(key, None)
        self._roster.start(worker, self._flight(worker, requests, now, alone, cost_s), now)

    def _flight(
        self,
        worker: Worker,
        requests: list[OpenRequest],
        now: float,
        alone: bool = False,
        cost_s: float = 0.0,
    ) -> Flight:
        """Make a batch of the requests, to be sent."""
        self._last_id += 1
        key = requests[0].key
        lease_s = self._queues[key].spec.response_timeout_s
        earliest = min([request.deadline for request in requests])
        flight = Flight(self._last_id, key, requests, lease_s, earliest, alone, cost_s)
        self._stats[key].batch_sent(requests, now)
        batch = Batch(self._last_id, *key, int(lease_s * 1000), [_rider(r, now) for r in requests])
        self.batches.setdefault(worker.identity, []).append(batch)
        return flight


def _rider(request: OpenRequest, now: float) -> BatchRequest:
    """A request as it travels to a worker."""
    request.tries += 1
    options = request.options
    if request.slots:
        request.holders += 1
        options = options if request.tries == 1 else without_reply_slot(options)
    left_ms = max(int((request.deadline - now) * 1000), 0)
    return BatchRequest(left_ms, request.batched_rows, options, request.tensors)
