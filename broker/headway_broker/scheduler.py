"""The broker's mind: which request rides in which batch to which worker, and what becomes of each.

Speaks the three verbs of the design:

    handle(event, now) -> actions     something happened
    wake(now)          -> actions     time has passed; everything there is to send, coalesced
    next_wake()        -> float|None  call `wake` no later than this (-inf: at once)

Knows: catalog (what should be), roster (what is), queues, batching, placement. Must not know: sockets,
clocks, bytes, what is inside tensors.

How it works. `handle` notes what happened: requests join their queue, results settle requests, free
credit marks queues as worth a look. It sends nothing. `wake` then forms batches and hands out all that
was collected, one message for each peer. A router that drains its sockets into `handle` before it calls
`wake` once thereby coalesces on every hop and lets batches grow until the last moment, with no delay.

Replies need not wait for `wake`: `answers` hands out those that there are, to a router that has heard all
that the workers say. What else the end of a batch means (`_land`) is noted by whatever verb comes next. PERF:
one request at a time has its answer sooner by a quarter of what the turn takes.

    caller ── Requests ──► queue ── ripe and a worker has credit ──► flight ── Results ──► Replies
                             ▲                                         │
                             └───── worker lost: to the head, alone ◄──┘

A worker has credit for two batches. An idle one gets a batch as soon as it is ripe; a busy one gets a full
batch ahead. A request whose worker was lost goes back once, and then travels alone and to an idle worker, so
that what kills workers kills two at most and takes nobody with it. One whose reply has begun does not go
back: its caller has a part of the answer. Nor does one whose batch outlived its lease: it had all the time
that its model gives, and each request of a batch that waits for something dead would take a worker.

Deadlines, leases and silences are looked at every TICK_S, not by a timer each: at 100,000 requests a
second a timer each would hold millions of them. Only batch delays have exact timers.

Invariants (proved by `check`): an open request is in one queue or in one flight, and in its caller's
table; one that is not open is in no queue and no table; a request has one outcome; the roster's holds.

Longer than 300 lines because it is the one place where the parts meet: `intake`, `dispatch`, `ledger`,
`holds`, `roster` and `placement` do not know each other's business, and this file tells it to them.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass

from headway.errors import (
    DeadlineExceeded,
    InternalError,
    RemoteProtocolError,
    WorkerLost,
)
from headway.headers import HEADERS
from headway.messages import (
    AgentJoin,
    AgentReport,
    Alive,
    Answer,
    Batch,
    Batches,
    Bye,
    Cancels,
    Command,
    Copy,
    CopyState,
    Dismiss,
    Drops,
    Heartbeat,
    Join,
    Leave,
    Message,
    Pieces,
    Ping,
    Query,
    Reclaims,
    Released,
    Replies,
    Reply,
    Requests,
    Result,
    Results,
    Welcome,
)
from headway.parts import parts
from headway_broker.agents import Agent
from headway_broker.batching import BatchPolicy, FillOrDelay
from headway_broker.board import LIVE, Board
from headway_broker.catalog import Catalog
from headway_broker.commands import Commands
from headway_broker.dispatch import Dispatch
from headway_broker.events import (
    Action,
    CallerGone,
    Event,
    FromCaller,
    FromWorker,
    Note,
    Refused,
    StoreRead,
    ToCaller,
    ToWorker,
    WorkerGone,
)
from headway_broker.forwarding import meta_of, pass_on
from headway_broker.hosts import Hosts
from headway_broker.intake import Intake
from headway_broker.invariants import check, check_holds
from headway_broker.queues import OpenRequest
from headway_broker.report import Report
from headway_broker.sequence_queue import SequenceQueue
from headway_broker.state import About, State
from headway_broker.steering import Steering
from headway_broker.strays import Strays
from headway_broker.timing import timed
from headway_broker.workers import Abreast, Flight, Worker

TICK_S = 0.1
PROBE_S = 1.0
TRIES_MAX = 2
YOUNG_S = 60.0  # so long after a broker's start, copies that workers bring are its predecessor's


@dataclass(frozen=True)
class BrokerTimes:
    """When a worker counts as lost, in seconds."""

    heartbeat_s: float = 0.5
    silence_s: float = 3.0
    load_timeout_s: float = 600.0


class Scheduler:
    """One broker. `nonce` is fresh for every start, so that peers notice a restart."""

    def __init__(
        self,
        catalog: Catalog,
        nonce: bytes,
        times: BrokerTimes | None = None,
        policy: BatchPolicy | None = None,
        about: About | None = None,
    ) -> None:
        board = self.board = Board(catalog)
        self.catalog, self.roster, self.ledger = catalog, board.roster, board.ledger
        self.queues, self.stats, self.costs = board.queues, board.stats, board.costs
        self.holds = board.holds
        self.report = Report(board)
        about, self._times = about or About(), times or BrokerTimes()
        self._steering = Steering(board, about.started)
        self._hosts = Hosts(board, self._steering, self._times.silence_s + 1.0)
        self._state = State(board, self.report, self._steering, self._hosts, about)
        self._commands = Commands(board, self._steering, self._hosts, self._state, about.token)
        self._intake = Intake(board, self.report)
        self._dispatch = Dispatch(
            self.queues,
            self.stats,
            self.costs,
            self.roster,
            policy or FillOrDelay(),
            nonce,
            self.ledger.companies,
        )
        self._nonce, self._started = nonce, about.started
        self._met: set[bytes] = set()  # workers that joined soon after the start
        self._tick_at = -math.inf
        self._beat_at = -math.inf
        self._beats: list[bytes] = []  # who has a heartbeat to come
        self._beats_each = 0  # at a tick
        self._probe_at = -math.inf
        self._strays = Strays()
        self._twins: dict[bytes, float] = {}  # workers whose name another has, and since when they ask
        self._landing: tuple[Worker, Flight, Result, float] | None = None  # the last that was answered
        self._freed: Worker | None = None  # whose results were the last
        self._outbox: list[Action] = []

    # ---- the three verbs ----

    def handle(self, event: Event, now: float) -> list[Action]:
        """Note what happened. Raises: RemoteProtocolError for a message from the wrong side."""
        if self._freed:
            self._finish()
        match event:
            case FromCaller(caller, message):
                self._from_caller(caller, message, now)
            case FromWorker(identity, message):
                self._from_worker(identity, message, now)
            case CallerGone(caller):
                self._caller_left(caller)
            case WorkerGone(identity, reason, dead):
                if dead:
                    self.holds.bury(identity)
                worker = self.roster.get(identity)
                if worker:
                    self._lose(worker, reason, now, dead=dead)
                if agent := self.board.agents.get(identity):
                    self._hosts.lose(agent, reason)
            case StoreRead():
                self._commands.store_read(event, now)
            case Refused(side):
                self.report.refused[side] += 1
        return []

    def wake(self, now: float) -> list[Action]:
        """Look at the time if it is time to, form batches, and hand out what is to be sent."""
        if self._freed:
            self._finish()
        if now >= self._tick_at:
            self._tick(now)
        if self._steering.plan_is_old or self._steering.changed_workers:
            self._replan(now)
        self._dispatch.run(now)
        if self._dispatch.hopeless:
            self._intake.refuse(self._dispatch.take_hopeless(), now)
        if self._steering.outbox or self._hosts.outbox or self._commands.answers or self._outbox:
            self._collect(now)
        # Replies first: a heartbeat may make a caller send again what it has no reply to.
        actions = self.answers() if self.ledger.replies else []
        if self.holds.released:
            for who, ids in self.holds.take_released().items():
                actions += [ToCaller(who, Released(self._nonce, part)) for part in parts(ids, lambda id: 0)]
        if self._outbox:
            actions += self._outbox
            self._outbox = []
        if self._dispatch.batches:
            for who, batches in self._dispatch.take_batches().items():
                actions += [ToWorker(who, Batches(part)) for part in parts(batches, _batch_size)]
        return actions

    def answers(self) -> list[Action]:
        """Hand out the replies that there are."""
        actions: list[Action] = []
        for who, replies in self.ledger.take_replies().items():
            actions += [ToCaller(who, Replies(part)) for part in parts(replies, _reply_size)]
        return actions

    def next_wake(self) -> float | None:
        """None: nobody is here, sleep until an event."""
        if self._outbox or self._steering.plan_is_old or self.ledger.replies or self.holds.released:
            return -math.inf
        if self._freed or self._commands.answers or self._steering.outbox or self._hosts.outbox:
            return -math.inf
        if (
            not self.ledger.callers
            and not len(self.roster)
            and not self.holds.limbo
            and not self._is_operated
        ):
            return None
        return min(self._tick_at, self._dispatch.next_wake())

    @property
    def _is_operated(self) -> bool:
        return bool(len(self.board.agents) or self._commands.waits or self.board.retiring)

    def _collect(self, now: float) -> None:
        """What the rooms want done and said."""
        for room in (self._steering, self._hosts):
            if room.outbox:
                self._outbox += room.outbox
                room.outbox = []
        if self._commands.answers:  # orders are kept before they are acknowledged
            answers, self._commands.answers = self._commands.answers, []
            self._outbox += [ToCaller(caller, answer) for caller, answer in answers]
        if self._outbox:
            self.board.notes.extend((now, action) for action in self._outbox if isinstance(action, Note))

    # ---- callers ----

    def _from_caller(self, caller: bytes, message: Message, now: float) -> None:
        match message:
            case Requests(requests=requests):
                accepted = [self._intake.accept(caller, request, now) for request in requests]
                for key in dict.fromkeys(accepted):
                    if key:
                        self._dispatch.look_at(key)
                        if key in self._steering.asleep:
                            self._steering.awake(key)
            case Cancels(ids=ids):
                self._cancel([r for id in ids if (r := self.ledger.find(caller, id))])
            case Reclaims(ids=ids):
                self._cancel([r for id in ids if (r := self.ledger.find(caller, id))])
                self.holds.reclaim(caller, ids)
            case Ping():
                self.ledger.heard(caller)
                self._outbox.append(ToCaller(caller, Heartbeat(self._nonce)))
            case Query(id=id, what=what):
                self._replan(now)
                body = self._state.document(now) if what == "state" else self.report.answer(what)
                self._outbox.append(ToCaller(caller, Answer(id, body)))
            case Command():
                self._replan(now)
                self._commands.handle(caller, message, now)
            case Bye():
                self._caller_left(caller)
            case _:
                raise RemoteProtocolError(f"a caller sends no {type(message).__name__}")

    def _caller_left(self, caller: bytes) -> None:
        self._cancel(self.ledger.of(caller))
        self.ledger.forget(caller)

    def _cancel(self, requests: list[OpenRequest]) -> None:
        """Nobody waits for these any more, and whoever runs one beside others may leave it."""
        self._intake.cancel(requests)
        for request in requests:
            if request.tries and self.queues[request.key].spec.abreast_max:
                for worker in self.roster:
                    if worker.abreast and (flight := worker.abreast.of(request)):
                        self._drop(worker, flight)

    def _drop(self, worker: Worker, flight: Flight) -> None:
        if not any(request.open for request in flight.requests):
            self._outbox.append(ToWorker(worker.identity, Drops([flight.id])))

    # ---- workers ----

    def _from_worker(self, identity: bytes, message: Message, now: float) -> None:
        worker = self.roster.get(identity)
        if worker:
            worker.heard = now
            if isinstance(message, Alive):  # PERF: 1,000 workers say so 2,000 times a second
                return
        if isinstance(message, Join):
            self._join(identity, message, now)
        elif isinstance(message, AgentJoin):
            self._hosts.join(identity, message, self._welcome, now)
        elif worker:
            self._from_known(worker, message, now)
        elif agent := self.board.agents.get(identity):
            self._from_agent(agent, message, now)
        elif not isinstance(message, Pieces):  # it says other things too, and many of these
            if isinstance(message, Results):
                self._finish_lost(identity, message.results)
            self._outbox.append(ToWorker(identity, Dismiss("not on the roster: join again", 0)))

    def _finish_lost(self, identity: bytes, results: list[Result]) -> None:
        """A worker that was given up is through with batches. What it says of them means nothing any more."""
        for result in results:
            if result.done:
                self.holds.finish(identity, result.batch)

    def _from_known(self, worker: Worker, message: Message, now: float) -> None:
        match message:
            case Results(results=results):
                for result in results:
                    self._finish()
                    self._done(worker, result, now)
                self._freed = worker
            case Pieces(pieces=pieces):
                for piece in pieces:
                    pass_on(self.ledger, worker, piece, self._steering.cold, now)
            case CopyState(copy=copy):
                self._set_copies(worker, [copy], now)
                self._note("copy", worker, model=copy.model, version=copy.version, state=copy.state)
                self._intake.give_up((copy.model, copy.version), now)
            case Leave(reason=reason):
                self.roster.leave(worker)
                self._note("worker leaves", worker, reason=reason)
                self._steering.plan_is_old = True
                self._release(worker)
            case _:
                raise RemoteProtocolError(f"a worker sends no {type(message).__name__}")

    def _from_agent(self, agent: Agent, message: Message, now: float) -> None:
        agent.heard = now
        match message:
            case Alive():
                return
            case AgentReport():
                if worker := self._hosts.report(agent, message, now):
                    self._lose(worker, f"its process {message.worker.reason}", now, dead=True)
            case _:
                raise RemoteProtocolError(f"an agent sends no {type(message).__name__}")

    def _is_twin(self, identity: bytes, join: Join, now: float) -> bool:
        """Whether another worker has the name. A restarted one asks until the dead one before it is found
        gone; one whose twin lives is sent away."""
        other = next((w for w in self.roster.named(join.name) if w.identity != identity), None)
        if other is None:
            self._twins.pop(identity, None)
            return False
        since = self._twins.setdefault(identity, now)
        if since == now:
            self._outbox.append(
                ToWorker(other.identity, Heartbeat(self._nonce))
            )  # finds out whether it lives
        elif now >= since + self._times.silence_s + 1.0:
            del self._twins[identity]
            where = f"{other.about.host}, pid {other.about.pid}"
            self._note("worker refused", other, reason="its name is taken", host=join.host, pid=join.pid)
            self._outbox.append(
                ToWorker(identity, Dismiss(f"a worker named {join.name} is there: {where}", 1))
            )
        return True

    def _join(self, identity: bytes, join: Join, now: float) -> None:
        if self._is_twin(identity, join, now):
            return
        worker = self.roster.get(identity)
        if worker is None:
            worker = Worker(identity, join, now)
            self.roster.add(worker)
            self._steering.joined(worker)
            self._steering.plan_is_old = True
            self._note("worker joined", worker, host=join.host, pid=join.pid, device=join.device)
            self._note_orphans(identity, join, now)
        self._set_copies(worker, join.copies, now)
        self._outbox.append(ToWorker(identity, self._welcome))

    def _note_orphans(self, identity: bytes, join: Join, now: float) -> None:
        """Soon after its start the broker is told what its predecessor had loaded."""
        if now < self._started + YOUNG_S and identity not in self._met:
            self._met.add(identity)
            for copy in join.copies:
                queue = self.queues.get((copy.model, copy.version))
                if copy.state == "ready" and isinstance(queue, SequenceQueue):
                    queue.orphan(now)

    @property
    def _welcome(self) -> Welcome:
        return Welcome(self._nonce, int(self._times.heartbeat_s * 1000))

    def _set_copies(self, worker: Worker, copies: list[Copy], now: float) -> None:
        """A worker said how its copies are."""
        live = {key for key, copy in worker.copies.items() if copy.state in LIVE}
        news = self.roster.set_copies(worker, copies, now)
        for copy in news:
            key = (copy.model, copy.version)
            if key in self.costs and copy.state == "ready":
                self.costs[key].learn(copy.facts.get("batch_us"))
            self._steering.copy_changed(key, copy.state, copy.facts, now)
        if len(news) < len(copies) or live != {k for k, copy in worker.copies.items() if copy.state in LIVE}:
            self._steering.plan_is_old = True  # one that was let go is gone, or one came or went unasked
        self._dispatch.look_for(worker)

    def _done(self, worker: Worker, result: Result, now: float) -> None:
        """Settle what a batch's result, or a part of it, answers. (A batch taken back is not known.)"""
        flight = worker.batches.get(result.batch) or worker.abreast.flights.get(result.batch)
        if flight is None:
            self._finish_lost(worker.identity, [result])
            return
        if result.done:
            self.holds.let_go(flight.requests)
        self._answer(flight, result, now)
        if result.done:
            self._landing = (worker, flight, result, now)

    def _finish(self) -> None:
        """Note what the last results mean beside their replies."""
        landing, self._landing = self._landing, None
        freed, self._freed = self._freed, None
        if landing:
            self._land(*landing)
        if freed:
            self._release(freed)

    def _answer(self, flight: Flight, result: Result, now: float) -> None:
        """Settle what the result answers."""
        key, cold, outcomes = flight.key, self._steering.cold, defaultdict[int, list[OpenRequest]](list)
        version = {"version": key[1]}
        ready_at = cold.get(key, -math.inf) if cold else -math.inf
        answered = flight.requests[result.first :] if result.first else flight.requests
        for request, (code, content, said) in zip(answered, result.replies, strict=False):
            if request.open:
                is_shown = HEADERS in request.options
                meta = {**said, **version} if said or is_shown else version
                if request.attempt or request.arrived < ready_at < math.inf:
                    meta = {**meta, **meta_of(request, key, cold)}
                if is_shown:
                    meta = timed(meta, request, flight, result, now)
                    if self._strays.kept:
                        meta = self._strays.join(key, meta)
                self.ledger.answer(request, code, content, meta)
                outcomes[code].append(request)
            elif said:
                self._strays.keep(key, said)
        for code, requests in outcomes.items():
            self.ledger.count(key, code, requests, now)

    def _land(self, worker: Worker, flight: Flight, result: Result, now: float) -> None:
        """The batch is done."""
        if isinstance(queue := self.queues[flight.key], SequenceQueue):
            queue.landed(flight.requests, now)
            self._dispatch.look_at(flight.key)
        self.stats[flight.key].batch_done(result.compute_us / 1e6, len(flight.requests))
        if flight.abreast:
            worker.finish_abreast(flight, now)
            self._dispatch.look_at(flight.key)
        else:
            self.roster.finish(worker, result.batch, now)
            self._charge(worker, flight, result, now)
        for request in flight.requests:
            if request.open:
                self.ledger.fail(request, InternalError("the worker sent no reply to this request"), now)

    def _charge(self, worker: Worker, flight: Flight, result: Result, now: float) -> None:
        """What the batch took: as long as it was its worker's first, since `compute_us` leaves out what
        happens on the CPU before and after."""
        took_s = max(result.compute_us / 1e6, now - flight.began)
        if result.compute_us:
            self.costs[flight.key].observe(flight.rows, took_s)
        if crew := self.roster.crew_of(worker):
            crew.turns.correct(flight.key, took_s - flight.cost_s, self.queues[flight.key].spec.share)

    def _release(self, worker: Worker) -> None:
        """The worker has credit again; one that wants to leave may go when nothing of it is open."""
        if not worker.leaving:
            self._dispatch.free(worker)
        elif not worker.flights:
            self.roster.remove(worker)
            self._steering.plan_is_old = True  # its memory is free
            self._outbox.append(
                ToWorker(worker.identity, Dismiss("drained" if worker.draining else "you asked to leave", 1))
            )

    def _lose(self, worker: Worker, reason: str, now: float, final: bool = False, dead: bool = False) -> None:
        """Take the worker off the roster; its requests go back, each at most once more. `final`: its time was
        over, and so is that of what it ran."""
        held = self._steering.lost(worker, reason, dead, now)
        self.roster.remove(worker)
        flights = worker.flights
        self.holds.lose(worker.identity, flights)
        if dead:
            self.holds.bury(worker.identity)
        self._note("worker lost", worker, reason=reason, batches=len(flights))
        self._outbox.append(ToWorker(worker.identity, Dismiss(reason, int(final))))
        overrun = worker.pressing if final else []
        for flight in flights:
            for request in flight.requests:
                if request.open:
                    self._try_again(request, reason, now, flight in overrun)
            self._dispatch.look_at(flight.key)
        worker.batches.clear()
        worker.abreast = Abreast()
        for key in worker.copies:
            if isinstance(queue := self.queues.get(key), SequenceQueue):
                queue.lose(worker.identity, f"its worker was lost ({reason}), and its state with it", now)
                self._dispatch.look_at(key)
        for key in held:
            self._intake.give_up(key, now)

    def _try_again(self, request: OpenRequest, reason: str, now: float, overrun: bool) -> None:
        queue = self.queues[request.key]
        if overrun:
            self.ledger.fail(request, WorkerLost(f"its worker was ended: {reason}"), now)
        elif request.begun:
            text = f"its worker was lost ({reason}) after the reply had begun"
            self.ledger.fail(request, WorkerLost(text), now)
        elif not queue.spec.may_run_again:
            what = "the state of its sequence with it" if request.sequence else "the model is not idempotent"
            self.ledger.fail(request, WorkerLost(f"its worker was lost ({reason}), and {what}"), now)
        elif request.tries >= TRIES_MAX:
            self.ledger.fail(
                request, WorkerLost(f"{request.tries} workers were lost with it (the last: {reason})"), now
            )
        else:
            queue.put_back(request)

    def _replan(self, now: float) -> None:
        """Once for all that happened: with many workers and models a plan is long."""
        if self._steering.plan_is_old:
            self._steering.replan(now)
            self.report.short = self._steering.plan.short
        if self._steering.changed_workers:
            changed, self._steering.changed_workers = self._steering.changed_workers, {}
            for worker in filter(None, map(self.roster.get, changed)):
                self._dispatch.look_for(worker)

    # ---- time ----

    def _tick(self, now: float) -> None:
        self._tick_at = now + TICK_S
        self._intake.expire(now)
        while self._intake.moved:
            self._dispatch.look_at(self._intake.moved.pop())
        for worker in self.roster.due(now):
            self._watch(worker, now)
        for agent in self.board.agents.silent(now - self._times.silence_s):
            self._hosts.lose(agent, f"silent for {self._times.silence_s:g} s")
        for worker in self._steering.look(now):
            self.roster.leave(worker)
            self._release(worker)
        patience_s = 2 * self._times.silence_s + 2.0  # one that asks is sent away sooner
        self._twins = {who: since for who, since in self._twins.items() if now < since + patience_s}
        self._hosts.look(now)
        self._intake.look(now)
        self._commands.look(now)
        self._beat(now)
        if now >= self._probe_at:  # a caller that died finds no route, and what it had queued is dropped
            self._probe_at = now + PROBE_S
            self._outbox += [ToCaller(caller, Heartbeat(self._nonce)) for caller in self.ledger.callers]

    def _beat(self, now: float) -> None:
        """A heartbeat for each worker in `heartbeat_s`, and for each that was given up, which finds no route
        once its process is gone. Some at each tick: a thousand at once would hold up everything else."""
        if now >= self._beat_at and not self._beats:
            self._beat_at = now + self._times.heartbeat_s
            self._beats = [*self.holds.limbo, *self.roster.workers, *self.board.agents.identities]
            self._beats_each = math.ceil(len(self._beats) * TICK_S / self._times.heartbeat_s)
        beat = Heartbeat(self._nonce)
        for _ in range(min(self._beats_each, len(self._beats))):
            identity = self._beats.pop()
            if (
                identity in self.roster.workers
                or identity in self.holds.limbo
                or self.board.agents.get(identity)
            ):
                self._outbox.append(ToWorker(identity, beat))

    def _watch(self, worker: Worker, now: float) -> None:
        """Lose a worker whose time is over, and say when to look again."""
        for flight in worker.flights:
            if now >= flight.earliest:
                self._expire(flight, now)
                if flight.abreast:
                    self._drop(worker, flight)
        self.roster.expect(worker, now)
        until, reason, final = self._patience(worker)
        if now >= until:
            self._lose(worker, reason, now, final=final)
        else:
            self.roster.watch(worker, min(until, worker.batches_due))

    def _patience(self, worker: Worker) -> tuple[float, str, bool]:
        """Until when the worker is waited for, why no longer, and whether it must end then."""
        first, (until, lease_s) = worker.first, worker.abreast.patience
        if first and first.lease_until <= until:
            return first.lease_until, f"batch not done in {first.lease_s:g} s", True
        if until < math.inf:
            return until, f"nothing of the batches that it runs in {lease_s:g} s", True
        if worker.loading or worker.unloading:  # it does one after the other
            since = max([worker.unloading_since, *(copy.since for copy in worker.copies.values())])
            timeout_s, what = self._load_timeout_s(worker), "loaded" if worker.loading else "unloaded"
            return since + timeout_s, f"model not {what} in {timeout_s:g} s", True
        return worker.heard + self._times.silence_s, f"silent for {self._times.silence_s:g} s", False

    def _load_timeout_s(self, worker: Worker) -> float:
        """What a version says of itself counts only while it is loaded, and not before, behind an unload."""
        key = worker.loads
        if worker.unloading or key is None or key not in self.queues:
            return self._times.load_timeout_s
        return self.queues[key].spec.load_timeout_s or self._times.load_timeout_s

    def _expire(self, flight: Flight, now: float) -> None:
        """Answer those in a running batch whose time is over; what the worker says of them is dropped."""
        for request in flight.requests:
            if request.open and request.deadline <= now:
                self.ledger.fail(request, DeadlineExceeded("the request's time ran out in its batch"), now)
        flight.earliest = min((r.deadline for r in flight.requests if r.open), default=math.inf)

    def _note(self, event: str, worker: Worker, **facts: object) -> None:
        self._outbox.append(Note(event, {"worker": worker.name, **facts}))

    def check(self) -> None:
        """Raise AssertionError if an invariant of the header does not hold. For tests: it is slow."""
        check(self.ledger, self.queues, self.roster)
        self.board.check()
        self._steering.check()
        check_holds(self.holds, self.ledger, self.roster)
        self._dispatch.check()


def _batch_size(batch: Batch) -> int:
    return sum(len(request.tensors) for request in batch.requests)


def _reply_size(reply: Reply) -> int:
    return len(reply.content)
