"""The way into the queues, and the ways out of them that lead to no worker.

Knows: which requests are refused and why, cancels, expiry. Must not know: workers' messages, batches,
what is to be sent.
"""

from __future__ import annotations

import math
from contextlib import suppress
from typing import Any

from headway.errors import (
    DeadlineExceeded,
    HeadwayError,
    InvalidInput,
    NotReady,
    QueueFull,
    TooLarge,
    WorkerLost,
)
from headway.messages import REQUEST_BYTES_MAX, Request
from headway.models import WORKER, ModelSpec
from headway.pieces import takes_pieces
from headway.refs import has_slots, without_reply_slot
from headway.steps import SEQUENCE, step_of
from headway_broker.admission import Admission
from headway_broker.board import Board
from headway_broker.catalog import Key
from headway_broker.queues import OpenRequest, Queue
from headway_broker.report import Report
from headway_broker.sequence_queue import SequenceQueue

RETRY_AFTER_S = (0.1, 60.0)
LOOK_S = 1.0


class Intake:
    """Puts requests into their queues, or refuses them."""

    def __init__(self, board: Board, report: Report) -> None:
        self._catalog = board.catalog
        self._queues = board.queues
        self._copies = board.copies
        self._costs = board.costs
        self._roster = board.roster
        self._ledger = board.ledger
        self._report = report
        self._admission = Admission(board.queues, board.costs, board.roster)
        self._look_at = -math.inf
        self.moved: list[Key] = []  # models with sequences that are to find another worker

    def accept(self, caller: bytes, request: Request, now: float) -> Key | None:
        """Queue a request, or refuse it. Returns whose queue it is in, or was full: that version is wanted.
        One that is open already was sent again: it keeps its place."""
        if opened := self._ledger.find(caller, request.id):
            self._sent_again(opened, request, now)
            return None
        key, options = (request.model, request.version), request.options
        try:
            sticky = _sticky(options)
            key = self._catalog.resolve(request.model, request.version, sticky)
            if sticky and not request.version and self._queues[key].spec.sequences_max:
                key = self._home(key, request)
            queue = self._queues[key]
            self._check(request, key, queue.spec)
            self._ledger.open(self._queued(caller, key, queue, request, now))
            self._ledger.companies.asked(queue, caller, options, now)
        except HeadwayError as error:
            if isinstance(full := self._queues.get(key), SequenceQueue):
                _refused(full, request, now)
            self._ledger.refuse(caller, request.id, key, error)
            return key if isinstance(error, QueueFull) else None
        return key

    def _sent_again(self, opened: OpenRequest, request: Request, now: float) -> None:
        """By a caller that took this broker for another one when it sent it first. It takes no piece of an
        attempt that is over, nor its reply; a reply that has begun has no second beginning."""
        if not opened.stream or request.attempt <= opened.attempt:
            return
        opened.attempt = request.attempt
        if opened.begun:
            self._ledger.fail(opened, WorkerLost("it was sent again after its reply had begun"), now)

    def _home(self, key: Key, request: Request) -> Key:
        """A sequence stays with the version that it was opened with, whoever has the traffic now."""
        if (step := step_of(request.options)) is None or step.starts:
            return key
        named = [k for k in self._catalog.specs if k[0] == key[0]]
        queues = ((k, self._queues[k]) for k in (key, *named))
        found = (k for k, q in queues if isinstance(q, SequenceQueue) and step.sequence in q.sequences.open)
        return next(found, key)

    def cancel(self, requests: list[OpenRequest]) -> None:
        """Nobody waits for these any more."""
        for request in requests:
            self._queues[request.key].remove(request)
            self._ledger.cancel(request)

    def expire(self, now: float) -> None:
        """Answer what waited until its time was over, and what has no hope any more."""
        for key, queue in self._queues.items():
            if now >= queue.earliest:
                for request in queue.expire(now):
                    self._ledger.fail(request, DeadlineExceeded(self._too_late(key)), now)
            if isinstance(queue, SequenceQueue):
                self._look_at_sequences(key, queue, now)
            if queue.spec.slo_ms and len(queue) and not self._roster.idle(key):
                self.refuse(self._admission.hopeless(key, now), now)

    def _look_at_sequences(self, key: Key, queue: SequenceQueue, now: float) -> None:
        """Answer what waits in sequences that are over."""
        if queue.keep(self._roster.lasting(key), now):
            self.moved.append(key)
        queue.close_due(now)
        for request, error in queue.take_over():
            if request.open:
                self._ledger.fail(request, error, now)

    def _too_late(self, key: Key) -> str:
        said = "the request's time ran out in the queue"
        return said if self._roster.crews(key) else f"{said}: no copy of model {key[0]!r} was ready yet"

    def refuse(self, hopeless: list[OpenRequest], now: float) -> None:
        """Answer what was taken out of its queue because it would be late."""
        for request in hopeless:
            self._ledger.fail(request, self._bounded(self._admission.refusal(request, now)), now)

    def look(self, now: float) -> None:
        """Now and then: answer what waits for a version that nobody can serve any more, whatever became of
        those who could."""
        if now < self._look_at:
            return
        self._look_at = now + LOOK_S
        for key, queue in self._queues.items():
            if len(queue) and not self._roster.crews(key):
                self.give_up(key, now)

    def give_up(self, key: Key, now: float) -> None:
        """Answer what waits for a model that failed to load everywhere."""
        reason = self._report.unservable(key) if key in self._queues else ""
        if reason:
            for request in list(self._queues[key]):
                self._queues[key].remove(request)
                self._ledger.fail(request, NotReady(reason), now)

    def _check(self, request: Request, key: Key, spec: ModelSpec) -> None:
        """Raises: what speaks against the request, whatever its queue."""
        rows, size = request.rows, len(request.tensors)
        if rows > spec.batch_size_max:
            raise TooLarge(f"{rows} rows, and batch_size_max of {spec.name!r} is {spec.batch_size_max}")
        if size > REQUEST_BYTES_MAX:
            raise TooLarge(f"{size} bytes, and a request has at most {REQUEST_BYTES_MAX}")
        if request.attempt and not spec.may_run_again:
            raise WorkerLost(f"sent before the broker was restarted, and {_once(spec)}")
        if not request.timeout_ms:
            raise DeadlineExceeded("the request's time ran out before it reached the broker")
        if not self._copies[key] and (reason := self._report.unordered(key)):
            raise NotReady(reason)  # even if one that goes could still serve it
        if not self._roster.crews(key) and (reason := self._report.unservable(key)):
            raise NotReady(reason)

    def _queued(self, caller: bytes, key: Key, queue: Queue, request: Request, now: float) -> OpenRequest:
        options, spec = request.options, queue.spec
        slots = has_slots(options)
        accepted = OpenRequest(
            caller,
            request.id,
            key,
            now,
            now + request.timeout_ms / 1000,
            request.rows or 1,
            request.rows,
            without_reply_slot(options) if slots and request.attempt else options,
            request.tensors,
            slots=slots,
        )
        if takes_pieces(options):
            accepted.stream, accepted.attempt = True, request.attempt
        try:
            self._admission.check(accepted, now)
            # PERF: what is taken at once, or was sent ahead, is counted only where it can matter.
            ahead = len(self._roster.workers) * spec.batch_size_max if spec.batch_clock == WORKER else 0
            may_be_full = queue.count + ahead >= spec.queue_size_max
            queue.add(accepted, self._taken_at_once(key) if may_be_full else 0)
        except QueueFull as error:
            error.retry_after_s = error.retry_after_s or self._empty_in(key)
            raise self._bounded(error) from None
        return accepted

    def _taken_at_once(self, key: Key) -> int:
        """How many requests idle copies take of a queue that has its number: a batch each or, where none may
        wait for company, one each. Less what was sent ahead, where the worker's clock says that what a worker
        does not run yet waits."""
        queue = self._queues[key]
        spec = queue.spec
        sent = self._sent_ahead(key) if spec.batch_clock == WORKER else 0
        if len(queue) + sent < spec.queue_size_max:  # PERF: nobody needs to know
            return -sent
        if spec.abreast_max:
            room = self._roster.room_abreast(key, spec.abreast_max)[0]
            return room if spec.continuous or not spec.queue_size_max else room * spec.batch_size_max
        return self._roster.idle_count(key) * (spec.batch_size_max if spec.queue_size_max else 1) - sent

    def _sent_ahead(self, key: Key) -> int:
        """Requests that are at a worker which runs something else first. PERF: counted only for a queue that
        they could make full."""
        queue = self._queues[key]
        workers = sum(crew.size for crew in self._roster.crews(key))
        if len(queue) + workers * queue.spec.batch_size_max < queue.spec.queue_size_max:
            return 0
        busy = [worker for worker, _ in self._roster.hosts(key) if len(worker.batches) > 1]
        flights = (flight for worker in busy for flight in worker.batches_ahead)
        return sum(len(flight.requests) for flight in flights if flight.key == key)

    def _empty_in(self, key: Key) -> float:
        """How long the queue takes to run empty, at the pace of its last batches."""
        queue, workers = self._queues[key], sum(crew.size for crew in self._roster.crews(key))
        rows_max = queue.spec.batch_size_max
        return queue.rows / rows_max / max(workers, 1) * self._costs[key].mean_s(rows_max)

    def _bounded(self, error: QueueFull) -> QueueFull:
        least, most = RETRY_AFTER_S
        error.retry_after_s = min(max(error.retry_after_s or 0.0, least), most)
        return error


def _once(spec: ModelSpec) -> str:
    return "the model has sequences" if spec.sequences_max else "the model is not idempotent"


def _refused(queue: SequenceQueue, request: Request, now: float) -> None:
    with suppress(InvalidInput):
        if step := step_of(request.options):
            queue.refused(step, now)


def _sticky(options: dict[str, Any]) -> str:
    """The key by which a caller stays with one version of a split."""
    sticky = options.get("sticky") or options.get(SEQUENCE, "")
    return sticky if isinstance(sticky, str) else ""
