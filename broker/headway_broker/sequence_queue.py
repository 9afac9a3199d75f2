"""The queue of a model whose requests belong to sequences: who has the state of each, and what may go next.

Knows: the order within each sequence, the worker that each is bound to. Must not know: crews, whose turn it
is, how a request is answered, the clock.

How it works. A sequence is bound to the copy with the fewest sequences before its first request goes, and
stays there: its state is in that worker's memory. Its requests go one after the other, each when the one
before has its result; a batch has at most one of each sequence. A request without a sequence is one by
itself, which any copy may have.

Nothing of a sequence runs anywhere else once a worker has seen it. When its copy goes, with a worker that is
lost or leaves or by an unload, the sequence is lost, and what waits of it is answered with `NoSequence`. It
is the same with what follows a start that was never run (withdrawn, out of time, refused).

Invariants (`check`): a request that waits is in one sequence, which knows it; `heads` has exactly the bound
sequences of which something waits and nothing runs; `unbound` those that nobody has and something waits of.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping

from headway.errors import HeadwayError, QueueFull
from headway.models import ModelSpec
from headway.steps import Step, step_of
from headway_broker.queues import BATCH_BYTES_MAX, OpenRequest, Queue
from headway_broker.sequences import ORPHANED, Sequence, Sequences

Among = dict[Sequence, None]  # in order


class SequenceQueue(Queue):
    """`heads`, by worker: the sequences whose next request may go, in the order in which it could.
    `taken_up`, by worker: since when it waits, idle, for its batch to fill."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__(spec)
        self.sequences = Sequences(spec)
        self.heads: dict[bytes, Among] = {}
        self.unbound: Among = {}
        self.bound: dict[bytes, Among] = {}
        self.taken_up: dict[bytes, float] = {}
        self._over: list[Sequence] = []  # those of which something waits
        self._now = -math.inf  # when it was last looked at

    # ---- requests ----

    def add(self, request: OpenRequest, taken: int = 0) -> None:
        """Append it to its sequence. Raises: InvalidInput; NoSequence; QueueFull naming the bound."""
        step, now = step_of(request.options), request.arrived
        if self.bytes + len(request.tensors) > self.spec.queue_bytes_max and len(self):
            raise self._too_many_bytes()
        if step is None:
            self._wait(request, self._own(now, taken), now)
            return
        sequence, closed = self.sequences.of(step, now)
        for other in closed:
            self._unbind(other)
        if step.ends:
            sequence.ending = request
        self._wait(request, sequence, now)

    def take_in(self, request: OpenRequest) -> None:
        """It was accepted before the model had sequences, and is one by itself."""
        self._wait(request, Sequence("", request.arrived, math.inf), request.arrived)

    def put_back(self, request: OpenRequest) -> None:
        raise AssertionError("a request of a sequence is not tried again")

    def remove(self, request: OpenRequest) -> None:
        """Take out a request that nobody waits for, if it is here. Without its start a sequence is over."""
        if id(request) not in self._waiting:
            return
        super().remove(request)
        sequence = request.sequence
        place = sequence.waiting.index(request)
        del sequence.waiting[place]
        sequence.ending = _unless(sequence.ending, request)
        if sequence.over:
            return
        if _starts(request):
            self._cut(sequence, place)
        if sequence.is_idle and not sequence.over:
            self._may_not_go(sequence)
            self._rest(sequence, sequence.since)

    def refused(self, step: Step, now: float) -> None:
        """A request was refused. If it was a start, nothing follows it as if it had been run."""
        if not step.starts:
            return
        sequence, why = self.sequences.open.get(step.sequence), "its start was refused"
        if sequence is None:
            self.sequences.remember(step.sequence, why, now)
        elif sequence.is_idle:
            self._lose(sequence, why, now)
        else:
            sequence.unstarted = why

    def take_for(self, worker: bytes, rows_max: int) -> list[OpenRequest]:
        """The next batch of the worker: of each of its sequences one request at most."""
        taken: list[OpenRequest] = []
        rows = size = 0
        for sequence in list(self.heads.get(worker, ())):
            request = sequence.waiting[0]
            rows += request.rows
            size += len(request.tensors)
            if taken and (rows > rows_max or size > BATCH_BYTES_MAX):
                break
            self._may_not_go(sequence)
            del self._waiting[id(request)]
            self._discount(1, request.rows, len(request.tensors))
            sequence.running, sequence.begun = sequence.waiting.popleft(), True
            taken.append(request)
        self.taken_up.pop(worker, None)
        return taken

    def landed(self, requests: Iterable[OpenRequest], now: float) -> None:
        """Their batch is over: what comes next of their sequences may go."""
        for request in requests:
            sequence = request.sequence
            if sequence is None or sequence.over or sequence.running is not request:
                continue
            sequence.running = None
            ended, sequence.ending = sequence.ending is request, _unless(sequence.ending, request)
            if sequence.waiting:
                self._may_go(sequence, now)
            elif sequence.unstarted:
                self._lose(sequence, sequence.unstarted, now)
            elif ended:
                self._close(sequence, "it has ended")
            else:
                self._rest(sequence, now)

    def take_over(self) -> list[tuple[OpenRequest, HeadwayError]]:
        """What waited in sequences that are over, and what each is to be told."""
        told: list[tuple[OpenRequest, HeadwayError]] = []
        over, self._over = self._over, []
        for sequence in over:
            while sequence.waiting:
                request = sequence.waiting[0]
                self.remove(request)
                told.append((request, self.sequences.refusal(sequence.name, sequence.over)))
        return told

    # ---- workers ----

    def bind(self, workers: Mapping[bytes, bool]) -> None:
        """Give each sequence that nobody has to one of these; `workers` says of each whether it is to go."""
        for sequence in list(self.unbound) if workers else ():
            who = min(workers, key=lambda who: (workers[who], len(self.bound.get(who, ()))))
            del self.unbound[sequence]
            sequence.worker = who
            self.bound.setdefault(who, {})[sequence] = None
            self.heads.setdefault(who, {})[sequence] = None

    def keep(self, workers: Mapping[bytes, bool], now: float) -> bool:
        """Only these can serve now: sequences elsewhere are lost. Whether any moves to another."""
        gone = [who for who in self.bound if who not in workers]
        moves = [self.lose(who, "its copy was unloaded, or its worker left", now) for who in gone]
        return any(moves)

    def lose(self, worker: bytes, reason: str, now: float) -> bool:
        """The worker has no state any more. Whether any of its sequences had none yet, and moves."""
        moves = False
        for sequence in list(self.bound.get(worker, ())):
            if sequence.begun:
                self._lose(sequence, reason, now)
                continue
            self._unbind(sequence)
            if sequence.waiting:
                self.unbound[sequence] = None
                moves = True
        self.taken_up.pop(worker, None)
        return moves

    def orphan(self, now: float) -> None:
        """A worker brought a copy that is older than this broker. What has begun without a start since may be
        what began before it."""
        for sequence in self.sequences.orphan(now):
            self._lose(sequence, ORPHANED, now)

    def has_open(self, worker: bytes) -> bool:
        return worker in self.bound

    # ---- time ----

    def close_due(self, now: float) -> None:
        """Close what nothing came of for too long, or whose time is over."""
        self._now = now
        for sequence in self.sequences.due(now):
            self._close(sequence, "it expired")

    # ---- figures of a worker's next batch ----

    def rows_for(self, worker: bytes) -> int:
        return sum(sequence.waiting[0].rows for sequence in self.heads[worker])

    def oldest_for(self, worker: bytes) -> float:
        """Since when the first of those that may go could."""
        return min(sequence.since for sequence in self.heads[worker])

    def earliest_for(self, worker: bytes) -> float:
        """The first deadline among those that may go."""
        return min(sequence.waiting[0].deadline for sequence in self.heads[worker])

    def check(self) -> None:
        """Raise AssertionError if an invariant of the header does not hold. For tests: it is slow."""
        known = {id(s): s for s in (*self.sequences.open.values(), *self._over, *self.unbound)}
        known |= {id(s): s for among in self.bound.values() for s in among}
        pairs = [(request, sequence) for sequence in known.values() for request in sequence.waiting]
        assert {id(request) for request, _ in pairs} == set(self._waiting), "a request waits in no sequence"
        assert len(pairs) == len(self._waiting), "a request waits in two sequences"
        assert all(request.sequence is sequence for request, sequence in pairs), "a request is misplaced"
        for sequence in known.values():
            could = bool(sequence.waiting) and not sequence.running and not sequence.over
            who = sequence.worker
            assert (sequence in self.unbound) == (could and who is None), "a sequence is not looked for"
            if who is not None:
                assert sequence in self.bound[who] and not sequence.over, "a sequence is bound to nobody"
                assert (sequence in self.heads.get(who, ())) == could, "a sequence is held up, or is not"
        for table in (self.bound, self.heads):
            assert all(table.values()), "a worker without sequences is remembered"
            assert all(s.worker == who for who, among in table.items() for s in among), "bound elsewhere"

    # ---- inside ----

    def _wait(self, request: OpenRequest, sequence: Sequence, now: float) -> None:
        request.sequence = sequence
        sequence.waiting.append(request)
        self._waiting[id(request)] = request
        self._count(request)
        if len(sequence.waiting) == 1 and not sequence.running:
            self._may_go(sequence, now)

    def _own(self, now: float, taken: int) -> Sequence:
        """The sequence of a request without one."""
        if len(self) >= self.spec.queue_size_max + taken:
            raise QueueFull(f"the queue of {self.spec.name!r} holds its {self.spec.queue_size_max} requests")
        return Sequence("", now, math.inf)

    def _may_go(self, sequence: Sequence, now: float) -> None:
        sequence.since = now
        if sequence.worker is None:
            self.unbound[sequence] = None
        else:
            self.heads.setdefault(sequence.worker, {})[sequence] = None

    def _may_not_go(self, sequence: Sequence) -> None:
        self.unbound.pop(sequence, None)
        if sequence.worker is not None:
            _discard(self.heads, sequence.worker, sequence)

    def _cut(self, sequence: Sequence, place: int) -> None:
        """The start that was there will not be run: what is behind it is over, up to the next start."""
        waiting, why = list(sequence.waiting), "its start was not run"
        end = next((i for i in range(place, len(waiting)) if _starts(waiting[i])), len(waiting))
        cut = Sequence(sequence.name, self._now, math.inf, over=why, waiting=deque(waiting[place:end]))
        for request in cut.waiting:
            request.sequence = cut
            sequence.ending = _unless(sequence.ending, request)
        if cut.waiting:
            self._over.append(cut)
        sequence.waiting = deque(waiting[:place] + waiting[end:])
        if end < len(waiting):
            return
        if sequence.is_idle:
            self._lose(sequence, why, self._now)
        else:
            sequence.unstarted = why

    def _rest(self, sequence: Sequence, now: float) -> None:
        if self.sequences.rest(sequence, now):
            self._close(sequence, "its time is over")

    def _unbind(self, sequence: Sequence) -> None:
        self._may_not_go(sequence)
        if sequence.worker is not None:
            _discard(self.bound, sequence.worker, sequence)
            sequence.worker = None

    def _close(self, sequence: Sequence, why: str) -> None:
        self._unbind(sequence)
        self.sequences.close(sequence, why)

    def _lose(self, sequence: Sequence, why: str, now: float) -> None:
        self._unbind(sequence)
        self.sequences.lose(sequence, why, now)
        if sequence.waiting:
            self._over.append(sequence)


def queue_for(spec: ModelSpec) -> Queue:
    return SequenceQueue(spec) if spec.sequences_max else Queue(spec)


def queue_instead(queue: Queue, spec: ModelSpec) -> Queue:
    """The queue, of a version that is described anew; another one where it has sequences and had none, or the
    other way round."""
    if isinstance(queue, SequenceQueue) and spec.sequences_max:
        queue.sequences.spec = spec
    elif isinstance(queue, SequenceQueue) or spec.sequences_max:
        other = queue_for(spec)
        for request in list(queue):
            queue.remove(request)
            other.take_in(request)
        return other
    queue.spec = spec
    return queue


def _starts(request: OpenRequest) -> bool:
    step = step_of(request.options)
    return step is not None and step.starts


def _unless(ending: OpenRequest | None, request: OpenRequest) -> OpenRequest | None:
    return None if ending is request else ending


def _discard(table: dict[bytes, Among], worker: bytes, sequence: Sequence) -> None:
    if among := table.get(worker):
        among.pop(sequence, None)
        if not among:
            del table[worker]
