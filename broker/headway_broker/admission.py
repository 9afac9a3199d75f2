"""Who is refused early: a request that cannot make it, and one that cannot make it any more.

Knows: what waits and what it costs, how busy the workers are. Must not know: callers, how a refusal
travels.

How it works. Only for models with an SLO. When a request comes, its reply is estimated from what is before
it (`done_at`): until a worker is free; the batches of its own queue, slower by what other models get of
those workers meanwhile; its own batch. If that is after its SLO, or after its own deadline, it is refused
at once. What waits is looked at again when a batch is formed and at every tick: a request that would be
late in the batch that would leave now is refused, too. To serve it, in a smaller batch, would make those
behind it late as well, and in the end all of them (see Decisions in docs/architecture.md).

It cannot refuse everybody for ever. Nobody is refused while a worker is idle and nothing waits, and of
those that wait for an idle worker the last stays; so there is always a next batch, and it brings the costs
up to date. Nobody is refused on a guess either: not without a ready copy, not before the costs are known. A
request whose worker was lost is not refused: a crash costs latency, not an error.
"""

from __future__ import annotations

from collections.abc import Mapping

from headway.errors import QueueFull
from headway_broker.batching import MARGIN_S, slo_rows
from headway_broker.catalog import Key
from headway_broker.costs import Costs
from headway_broker.queues import OpenRequest, Queue
from headway_broker.roster import Roster


class Admission:
    """Reads the broker's parts; takes nothing but what is hopeless out of a queue."""

    def __init__(self, queues: Mapping[Key, Queue], costs: Mapping[Key, Costs], roster: Roster) -> None:
        self._queues = queues
        self._costs = costs
        self._roster = roster

    def check(self, request: OpenRequest, now: float) -> None:
        """Raises: QueueFull for a request that cannot make it, with the estimate."""
        queue = self._queues[request.key]
        if queue.spec.slo_ms and (done := self.done_at(request.key, request.rows, now)) > _limit(
            request, queue
        ):
            raise _refusal(request, queue, done)

    def done_at(self, key: Key, rows: int, now: float) -> float:
        """When a request that comes now is answered, about; -inf for soon enough, or nobody knows."""
        queue, costs = self._queues[key], self._costs[key]
        if not costs.known or (not len(queue) and self._roster.idle(key)):
            return -float("inf")
        size = slo_rows(costs, queue.spec.slo_ms / 1000, queue.spec.batch_size_max)
        full, rest = divmod(queue.rows, size)
        if rest + rows > size:
            full, rest = full + 1, 0
        wait_s = self._wait_s(key, full * costs.late_s(size), now)
        return now + wait_s + costs.late_s(rest + rows) + MARGIN_S

    def hopeless(self, key: Key, start: float, keep: int = 0) -> list[OpenRequest]:
        """Take out what would be late in a batch that starts then; the last `keep` stay."""
        queue, costs = self._queues[key], self._costs[key]
        late: list[OpenRequest] = []
        if not queue.spec.slo_ms or not costs.known:
            return late
        size = slo_rows(costs, queue.spec.slo_ms / 1000, queue.spec.batch_size_max)
        while len(queue) > keep and (first := queue.first):
            rows = max(min(queue.rows_together, size), first.rows)
            if start + costs.late_s(rows) <= _limit(first, queue):
                break
            queue.remove(first)
            late.append(first)
        return late

    def refusal(self, request: OpenRequest, now: float) -> QueueFull:
        """What is said to one that was taken out."""
        costs = self._costs[request.key]
        return _refusal(request, self._queues[request.key], now + costs.late_s(request.rows))

    def _wait_s(self, key: Key, work_s: float, now: float) -> float:
        """Until so much work of this model is done by the workers that can, and one of them is free."""
        share = self._queues[key].spec.share
        pace, free_s = 0.0, float("inf")
        for crew in self._roster.crews(key):
            rivals = crew.turns.rivals - (share if key in crew.turns.waiting else 0.0)
            pace += crew.size * share / (share + rivals)
            free_s = min(free_s, crew.busy_s(now) + crew.turns.behind_s(key, share))
        return free_s + work_s / pace if pace else -float("inf")


def _limit(request: OpenRequest, queue: Queue) -> float:
    return min(request.arrived + queue.spec.slo_ms / 1000, request.deadline)


def _refusal(request: OpenRequest, queue: Queue, done: float) -> QueueFull:
    spec, took_ms = queue.spec, (done - request.arrived) * 1000
    limit_ms = (_limit(request, queue) - request.arrived) * 1000
    what = f"slo_ms is {spec.slo_ms:g}" if limit_ms >= spec.slo_ms else f"it has {limit_ms:.0f} ms"
    return QueueFull(
        f"model {spec.name!r} would answer after {took_ms:.0f} ms, and {what}", (took_ms - limit_ms) / 1000
    )
