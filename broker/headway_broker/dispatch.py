"""Which requests ride in which batch, to which worker.

Knows: queues, the roster's credit, the batch policy. Must not know: callers, outcomes, placement.

How it works. `look_at` marks a queue as worth a look, which costs nothing; `run` looks at each marked
queue once and forms as many batches as there are workers for. A queue that is not ripe yet is marked
again when it will be. So nothing is scanned, however many models and workers there are.
"""

from __future__ import annotations

import heapq
import math
from zlib import crc32

from headway.messages import Batch, BatchRequest
from headway.refs import without_reply_slot
from headway_broker.batching import BatchPolicy, Waiting
from headway_broker.catalog import Key
from headway_broker.queues import OpenRequest, Queue
from headway_broker.roster import Flight, Roster, Worker
from headway_broker.stats import ModelStats


class Dispatch:
    """Forms batches; `take_batches` hands them out by worker."""

    def __init__(
        self,
        queues: dict[Key, Queue],
        stats: dict[Key, ModelStats],
        roster: Roster,
        policy: BatchPolicy,
        nonce: bytes,
    ) -> None:
        self._queues = queues
        self._stats = stats
        self._roster = roster
        self._policy = policy
        # A worker outlives its broker, and its results for the old one may reach the new one: ids of two
        # starts must not meet.
        self._last_id = crc32(nonce) << 31
        self._look: dict[Key, None] = {}  # in the order in which they were marked
        self._ripe: list[tuple[float, Key]] = []  # heap
        self._ripe_keys: dict[Key, float] = {}  # the heap's valid entry for each key
        self.batches: dict[bytes, list[Batch]] = {}

    def look_at(self, key: Key) -> None:
        """Something changed for this queue."""
        self._look[key] = None

    def look_for(self, worker: Worker) -> None:
        """The worker has credit: look at what waits for it, those first that have waited longest."""
        waiting = [key for key in worker.copies if key in self._queues and len(self._queues[key])]
        if len(waiting) > 1:
            waiting.sort(key=lambda key: self._queues[key].head)
        for key in waiting:
            self._look[key] = None

    def next_wake(self) -> float:
        """-inf: at once; inf: not for a batch's sake."""
        if self._look or self.batches:
            return -math.inf
        return self._ripe[0][0] if self._ripe else math.inf

    def run(self, now: float) -> None:
        """Form every batch that can be formed now."""
        while self._ripe and self._ripe[0][0] <= now:
            at, key = heapq.heappop(self._ripe)
            if self._ripe_keys.get(key) == at:
                del self._ripe_keys[key]
                self._look[key] = None
        look, self._look = self._look, {}
        for key in look:
            queue = self._queues[key]
            while len(queue) and self._send_one(key, queue, now):
                pass

    def take_batches(self) -> dict[bytes, list[Batch]]:
        """What is to be sent, by worker."""
        batches, self.batches = self.batches, {}
        return batches

    def _send_one(self, key: Key, queue: Queue, now: float) -> bool:
        """Send the next batch of a queue, if there is a worker for it and it is ripe."""
        full = queue.rows_together >= queue.spec.batch_size_max
        worker = self._roster.idle(key)
        if worker and (returned := queue.take_returned()):
            self._send(worker, key, [returned], now, alone=True)
            return True
        if worker and not full and not self._is_ripe(key, queue, now):
            return False
        if worker is None and full:
            worker = self._ahead(key, queue)
        if worker is None or not (requests := queue.take(queue.spec.batch_size_max)):
            return False
        self._send(worker, key, requests, now)
        return True

    def _ahead(self, key: Key, queue: Queue) -> Worker | None:
        """The worker to send a full batch ahead to. None while anything has waited longer for that worker to
        be idle: one that is always sent ahead never is."""
        worker = self._roster.spare(key)
        if worker is None or queue.rows > queue.rows_together:
            return None
        queues = (self._queues.get(k) for k, copy in worker.copies.items() if copy.state == "ready")
        return None if any(q.head < queue.oldest for q in queues if q) else worker

    def _is_ripe(self, key: Key, queue: Queue, now: float) -> bool:
        spec = queue.spec
        waiting = Waiting(
            queue.rows_together,
            spec.batch_size_max,
            queue.oldest,
            queue.earliest,
            spec.batch_delay_ms / 1000,
            self._stats[key].batch_s,
        )
        ripe_at = self._policy.ripe_at(waiting)
        if ripe_at > now and ripe_at < self._ripe_keys.get(key, math.inf):
            self._ripe_keys[key] = ripe_at
            heapq.heappush(self._ripe, (ripe_at, key))
        return ripe_at <= now

    def _send(
        self, worker: Worker, key: Key, requests: list[OpenRequest], now: float, alone: bool = False
    ) -> None:
        self._last_id += 1
        lease_s = self._queues[key].spec.response_timeout_s
        earliest = min(request.deadline for request in requests)
        self._roster.start(worker, Flight(self._last_id, key, requests, lease_s, earliest, alone), now)
        self._stats[key].batch_sent(requests, now)
        riders = []
        for request in requests:
            request.tries += 1
            options = request.options
            if request.slots:
                request.holders += 1
                options = options if request.tries == 1 else without_reply_slot(options)
            left_ms = max(int((request.deadline - now) * 1000), 0)
            riders.append(BatchRequest(left_ms, request.batched_rows, options, request.tensors))
        batch = Batch(self._last_id, *key, int(lease_s * 1000), riders)
        self.batches.setdefault(worker.identity, []).append(batch)
