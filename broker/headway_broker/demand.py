"""How many copies each version shall have: what was ordered, or between its bounds what its load asks for.

Pure. Knows: how to read queues, counters and workers for `scaling`. Must not know: how to decide, placement.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from headway_broker.board import Board
from headway_broker.catalog import Key
from headway_broker.scaling import Load, Scaler
from headway_broker.sequence_queue import SequenceQueue
from headway_broker.workers import Worker


@dataclass
class _Mark:
    """What was seen of a version at the last look. `active`: when it last had a request."""

    at: float
    busy_s: float
    count: int
    active: float


class Demand:
    """Looks at the board, and asks the scaler."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._scaler = Scaler()
        self._marks: dict[Key, _Mark] = {}
        self._busy: dict[
            bytes, tuple[float, float]
        ] = {}  # by worker: when, and for how long it had been busy
        self._parts: dict[bytes, float] = {}

    def wishes(self, now: float) -> Iterator[tuple[Key, int, str]]:
        """For every version how many copies, and why."""
        busy = self._parts = self._busy_parts(now)
        for key in list(self._board.catalog.specs):
            least, most = self._board.catalog.limits(key)
            if least == most:
                yield key, least, "as ordered"
                continue
            spec = self._board.catalog.specs[key]
            wish = self._scaler.decide(key, least, most, self._load(key, busy, now), spec.slo_ms / 1000, now)
            if wish.copies < self._board.copies[key] and self._has_sequences(key):
                continue
            yield key, wish.copies, wish.reason or self._board.scaling.get(key, "")
        for key in [key for key in self._marks if key not in self._board.catalog.specs]:
            del self._marks[key]
            self._scaler.forget(key)

    def _has_sequences(self, key: Key) -> bool:
        """Whether copies have the states of sequences that are open: none goes by itself then."""
        queue = self._board.queues[key]
        return isinstance(queue, SequenceQueue) and bool(queue.bound)

    def bounds(self) -> Iterator[tuple[Key, int, str]]:
        """Every version that has no copies, or fewer or more than was ordered. What is learned by looking now
        and then is left alone: orders come at any time."""
        for key in self._board.catalog.specs:
            (least, most), copies = self._board.catalog.limits(key), self._board.copies[key]
            bound = min(max(copies, least), most)
            if bound != copies:
                reason = f"at least {least} are ordered" if copies < least else f"at most {most} are ordered"
                yield key, bound, "as ordered" if least == most else reason
            elif not copies:
                yield key, 0, self._board.scaling.get(key, "as ordered")

    def busy(self, worker: Worker) -> float:
        """The part of the time before the last look in which it had something to do."""
        return self._parts.get(worker.identity, 0.0)

    def _load(self, key: Key, busy: dict[bytes, float], now: float) -> Load:
        queue, board = self._board.queues[key], self._board
        hosts = board.roster.serving(key)
        mark, seen = self._marks.get(key), self._mark(key, now)
        self._marks[key] = seen
        passed_s = now - mark.at if mark else 0.0
        own = (seen.busy_s - mark.busy_s) / (passed_s * len(hosts)) if mark and passed_s and hosts else 0.0
        mean = sum(busy.get(host, 0.0) for host in hosts) / len(hosts) if hosts else 0.0
        idle_s = now - seen.active
        if queue.spec.abreast_max:  # its batches overlap: what is taken of the room says how busy it is
            own = mean = self._taken(key, queue.spec.abreast_max)
            idle_s = 0.0 if own else idle_s
        return Load(
            waiting=queue.rows,
            oldest_wait_s=max(now - queue.head - queue.spec.batch_delay_ms / 1000, 0.0)
            if len(queue)
            else 0.0,
            busy=mean,
            own=min(own, 1.0),
            ready=len(hosts),
            wanted=board.copies[key],
            idle_s=idle_s,
        )

    def _taken(self, key: Key, most: int) -> float:
        """Which part of the room for batches that run beside one another is taken."""
        counts = [worker.abreast.count(key) for worker, _ in self._board.roster.hosts(key)]
        return sum(counts) / (most * len(counts)) if counts else 0.0

    def _mark(self, key: Key, now: float) -> _Mark:
        stats, before = self._board.stats[key], self._marks.get(key)
        count = sum(stats.outcomes.values()) + stats.batches
        is_active = before is None or count != before.count or len(self._board.queues[key])
        return _Mark(now, stats.busy_s, count, now if is_active or before is None else before.active)

    def _busy_parts(self, now: float) -> dict[bytes, float]:
        """The part of the time since the last look in which each worker had something to do."""
        parts: dict[bytes, float] = {}
        seen: dict[bytes, tuple[float, float]] = {}
        for worker in self._board.roster:
            total = worker.busy_for(now)
            at, before = self._busy.get(worker.identity, (now, total))
            seen[worker.identity] = (now, total)
            parts[worker.identity] = (total - before) / (now - at) if now > at else 0.0
        self._busy = seen
        return parts
