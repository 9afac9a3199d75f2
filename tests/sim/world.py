"""A false world for the real scheduler, real sessions and real calls: virtual time, false sockets, faults.

Every node runs the turn that the real loops run: hand all that has arrived to `handle`, call `wake` once,
do the actions, sleep until `next_wake`. Messages are encoded and decoded on their way. Between two nodes
they keep their order and take a random time; a message to a node that dies is lost with it.

After every turn the node's own invariants are checked (see `check_each`); `Judge` holds what callers are
promised.
"""

from __future__ import annotations

import heapq
import itertools
import json
import math
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any
from zlib import crc32

from headway.calls import Abandon, Advance, Call, Calls, CallTimes, Release, Settle
from headway.calls import Send as CallerSend
from headway.calls import Unsent as CallerUnsent
from headway.company import COMPANY
from headway.errors import BrokerUnreachable, HeadwayError, InvalidInput
from headway.messages import OK, BatchReply, Copy, Load, Message, Piece, Reply, Result, Unload
from headway.models import ModelSpec
from headway.pieces import STREAM, TRUE, takes_pieces
from headway.refs import REPLY_SLOT, SLOT
from headway.slots import Slot
from headway.steps import Step, step_of
from headway.wire import decode, encode
from headway_broker.catalog import Catalog, Key
from headway_broker.desired import read_desired
from headway_broker.events import (
    Action,
    CallerGone,
    FromCaller,
    FromWorker,
    ReadStore,
    Save,
    StoreRead,
    ToCaller,
    ToWorker,
    WorkerGone,
)
from headway_broker.scheduler import BrokerTimes, Scheduler
from headway_broker.state import About as BrokerAbout
from headway_worker.orders import Drop, Run
from headway_worker.session import About, Drain, Leaving, Send, Session, Unsent
from tests.sim.arena import Arena, slots_of

TOKEN = "t" * 20
GRACE_S = 1.0  # the contract: an outcome within the deadline and a second
LONG_MS = 1_000_000  # no newcomer for so long


class Clock:
    """Virtual time and what is to happen in it."""

    def __init__(self) -> None:
        self.now = 0.0
        self._order = itertools.count()
        self._events: list[tuple[float, int, Callable[[], None]]] = []

    def at(self, time: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (max(time, self.now), next(self._order), event))

    def run(self, until: float) -> None:
        while self._events and self._events[0][0] <= until:
            self.now, _, event = heapq.heappop(self._events)
            event()
        self.now = until


class Judge:
    """What every caller is promised, checked as it happens."""

    def __init__(self) -> None:
        self.outcomes: dict[Any, Any] = {}
        self.deadlines: dict[Any, float] = {}
        self.abandoned: set[Any] = set()
        self.runs: Counter[bytes] = Counter()  # executions, by the request's own tensors
        self.errors: Counter[str] = Counter()
        self.shared = 0  # replies that came in slots
        self.released = 0  # calls with slots that got them back
        self.pieces: dict[Any, list[tuple[int, int]]] = defaultdict(list)  # of each: which run, and its place
        self.steps: dict[str, list[tuple[int, bool]]] = defaultdict(list)  # of each sequence, as asked
        self.brokers = 0  # that there have been
        self.seen: dict[str, list[int]] = defaultdict(list)  # of each sequence, as answered

    def asked(self, who: Any, deadline: float) -> None:
        self.deadlines[who] = deadline

    def settled(self, who: Any, tensors: bytes, outcome: Reply | HeadwayError, now: float) -> None:
        assert who not in self.outcomes, f"{who} was answered twice"
        assert who not in self.abandoned, f"{who} was answered after it was abandoned"
        assert now <= self.deadlines[who] + GRACE_S, f"{who} was answered {now - self.deadlines[who]} s late"
        self.outcomes[who] = outcome
        if isinstance(outcome, HeadwayError):
            self.errors[type(outcome).__name__] += 1
        else:
            assert outcome.code == OK and outcome.content == answer_to(tensors), f"{who} got another's answer"
            run, count = outcome.meta.get("run", 0), outcome.meta.get("pieces", 0)
            assert self.pieces.get(who, []) == [(run, i) for i in range(count)], f"{who} lacks pieces"
            if "state" in outcome.meta:
                self.stepped(who[0], *outcome.meta["state"])

    def advanced(self, who: Any, tensors: bytes, piece: Reply) -> None:
        """A piece of a reply: each once and in order, all of one run, none after the outcome."""
        assert who not in self.outcomes and who not in self.abandoned, f"{who} got a piece after the end"
        assert piece.content == answer_to(tensors), f"{who} got a piece of another's answer"
        self.pieces[who].append((piece.meta["run"], piece.meta["piece"]))
        run = self.pieces[who][0][0]
        assert self.pieces[who] == [(run, i) for i in range(len(self.pieces[who]))], self.pieces[who]

    def stepped(self, caller: bytes, name: str, state: list[int]) -> None:
        """A sequence's answer was made with the state of all that was answered since its last start, and with
        nothing from before it. A start that its caller gave up before a broker had it is none. (Where any
        request opens a sequence, one without a start is new, unless a broker knows better; and that may have
        died together with the worker.)"""
        id, start = state[-1], state[0]
        before = [step for step, starts in self.steps[name] if starts and step <= start]
        if start not in before and self.brokers == 1:
            missed = [step for step in before if not self.is_given_up((caller, step))]
            assert not missed, f"{name}: {id} was answered without a start, and {missed[-1]} was one"
        later = [step for step, starts in self.steps[name] if starts and start < step <= id]
        missed = [step for step in later if not self.is_given_up((caller, step))]
        assert not missed, f"{name}: {id} was answered with the state of {start}, not of {missed[-1]}"
        assert state == sorted(set(state)), f"{name} was run out of order: {state}"
        lost = [step for step in self.seen[name] if start <= step < id and step not in state]
        assert not lost, f"{name}: {id} was answered without the state of {lost}"
        self.seen[name].append(id)

    def is_given_up(self, who: Any) -> bool:
        return who in self.abandoned or isinstance(self.outcomes.get(who), BrokerUnreachable)

    def unanswered(self) -> set[Any]:
        return set(self.deadlines) - set(self.outcomes) - self.abandoned


def answer_to(tensors: bytes) -> bytes:
    """What the false models compute."""
    return b"answer to " + tensors


class Node:
    """A process: an inbox, turns, and a life that can end. `life` tells one start from the next."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.alive = False
        self.life = 0
        self.inbox: list[Any] = []
        self._turn_at = math.inf

    def start(self) -> None:
        self.alive = True
        self.life += 1
        self.inbox = []
        self._turn_at = math.inf
        self.wake_at(self.world.now)

    def kill(self) -> None:
        self.alive = False

    def deliver(self, event: Any) -> None:
        self.inbox.append(event)
        self.wake_at(self.world.now)

    def wake_at(self, time: float | None) -> None:
        if time is None or time >= self._turn_at:
            return
        self._turn_at = max(time, self.world.now)
        self.world.clock.at(self._turn_at, self._maybe_turn(self.life, self._turn_at))

    def _maybe_turn(self, life: int, at: float) -> Callable[[], None]:
        def event() -> None:
            if self.alive and self.life == life and self._turn_at == at:
                self._turn_at = math.inf
                self.turn()

        return event

    def turn(self) -> None:
        raise NotImplementedError


class BrokerNode(Node):
    """The real scheduler; its store and its times are the world's."""

    turns = 0

    def start(self) -> None:
        nonce, world = b"broker-%d" % (self.life + 1), self.world
        world.judge.brokers += 1
        desired = read_desired(json.loads(world.saved)) if world.saved else None
        about = BrokerAbout(token=TOKEN, started=world.now)
        catalog = Catalog(world.specs, None, desired)
        self.scheduler = Scheduler(catalog, nonce, world.times, about=about)
        self.orders: list[tuple[float, str, Load | Unload]] = []  # copies to load and unload
        super().start()

    def life_of(self, batch: int) -> int:
        """In which of its lives it gave the batch, which a worker that stood still takes up later."""
        return next(n for n in range(1, self.life + 1) if crc32(b"broker-%d" % n) == batch >> 31)

    def turn(self) -> None:
        events, self.inbox = self.inbox, []
        for event in events:
            self.scheduler.handle(event, self.world.now)
        for action in self.scheduler.wake(self.world.now):
            self.do(action)
        self.turns += 1
        if self.turns % self.world.check_each == 0:
            self.scheduler.check()
        self.wake_at(self.scheduler.next_wake())

    def do(self, action: Action) -> None:
        match action:
            case Save(document=document):
                self.world.saved = json.dumps(document, sort_keys=True)
            case ReadStore():
                self.world.read_store()
            case ToCaller() | ToWorker():
                self.send(action)

    def send(self, action: ToCaller | ToWorker) -> None:
        if isinstance(action.message, Load | Unload):
            self.orders.append((self.world.now, action.worker.decode(), action.message))  # type: ignore[union-attr]
        peer = action.caller if isinstance(action, ToCaller) else action.worker
        node = self.world.reachable(peer)
        if node is None:
            gone = CallerGone(peer) if isinstance(action, ToCaller) else WorkerGone(peer, "no route")
            self.scheduler.handle(gone, self.world.now)
        else:
            self.world.carry(self, node, action.message, lambda message: message)


class WorkerNode(Node):
    """The real session and a false runner that takes its time, or dies of what it is given."""

    host = "host"
    owner: Any = None  # the agent that started it
    pid = 1

    def start(self) -> None:
        self.pid = next(self.world.pids)
        self.session = Session(About(self.name, self.host, self.pid, "cpu"), drain_s=5.0)
        self.loaded: set[Key] = set()
        self.busy = False
        self.orders: list[Any] = []
        self.hung = False
        self.frozen_until = 0.0
        self.abreast: dict[int, Run] = {}  # batches that run beside one another
        self.touches: dict[int, tuple[int, list[Any]]] = {}  # by batch: the broker's life, its slots
        self.states: dict[Key, dict[str, list[int]]] = defaultdict(
            dict
        )  # by model: of each sequence, its ids
        super().start()

    @property
    def identity(self) -> bytes:
        return f"{self.name}.{self.life}".encode()

    def turn(self) -> None:
        if self.world.now < self.frozen_until:
            self.wake_at(self.frozen_until)
            return
        events, self.inbox = self.inbox, []
        for event in events:
            for action in self.session.handle(event, self.world.now):
                self.do(action)
        for action in self.session.wake(self.world.now):
            self.do(action)
        self.session.check()
        if self.alive:
            self.wake_at(self.session.next_wake())

    def do(self, action: Any) -> None:
        match action:
            case Drop(batch):
                self.drop(batch)
            case Run() | Load() | Unload():
                if isinstance(action, Run):
                    slots = [slot for r in action.batch.requests for slot in slots_of(r.options)]
                    self.touches[action.batch.id] = self.world.broker.life_of(action.batch.id), slots
                self.orders.append(action)
                self.next_order()
            case Send(message):
                if not self.world.to_broker(self, self.identity, message, FromWorker):
                    self.session.handle(Unsent(message), self.world.now)
            case Leaving():
                self.world.restart_later(self, "ended with exit code 0 (OK)")

    def next_order(self) -> None:
        if self.busy or self.hung or not self.orders:
            return
        beside = isinstance(self.orders[0], Run) and self.most_of(self.orders[0]) > 0
        if not beside and self.abreast and not isinstance(self.orders[0], Run):
            return  # a load or unload waits for what runs
        order, life = self.orders.pop(0), self.life
        self.busy = not beside
        if beside:
            self.abreast[order.batch.id] = order
        if isinstance(order, Run):
            for request in order.batch.requests:
                self.world.judge.runs[self.read(request)] += 1
            self.step(order.batch)
            loaded = (order.batch.model, order.batch.version) in self.loaded
            assert loaded, f"{self.name} got a batch for {order.batch.model} {order.batch.version}"
        elif isinstance(order, Load):
            assert (order.model, order.version) not in self.loaded, f"{self.name} is to load what it has"
            self.deliver(Copy(order.model, order.version, "loading", "", {}))
        took = self.world.duration(order)
        sent = self.plan_pieces(order.batch, took) if isinstance(order, Run) else {}
        self.world.clock.at(self.world.now + took, lambda: self.finished(order, took, life, sent))
        if beside:
            self.next_order()

    def most_of(self, order: Run) -> int:
        """How many batches of its model run beside one another."""
        key = (order.batch.model, order.batch.version)
        most = next((spec.abreast_max for spec in self.world.specs if spec.key == key), 0)
        if most:
            running = [run.batch for run in self.abreast.values() if run.batch.model == key[0]]
            # A broker that is new gives more than there is room for, beside what the old one gave.
            old = sum(self.touches[batch.id][0] < self.world.broker.life for batch in running)
            assert len(running) - old < most, f"{self.name} got more than it has room for"
        return most

    def runs_beside(self, order: Run) -> bool:
        return order.batch.id in self.abreast or self.most_of(order) > 0

    def drop(self, batch: int) -> None:
        """Leave it, if it still runs."""
        for order in [o for o in (*self.abreast.values(), *self.orders) if isinstance(o, Run)]:
            stands_still = self.hung or self.world.now < self.frozen_until
            if order.batch.id == batch and self.runs_beside(order) and not stands_still:
                self.world.dropped += 1
                if batch not in self.abreast:
                    self.orders.remove(order)
                self.abreast.pop(batch, None)
                del self.touches[batch]
                nothing = BatchReply(InvalidInput.code, "nobody waits for it", {})
                self.deliver(Result(batch, 0, [nothing] * len(order.batch.requests)))
                self.next_order()

    def step(self, batch: Any) -> None:
        """Note in each sequence's state what runs."""
        states, names = self.states[batch.model, batch.version], set()
        for request in batch.requests:
            if step := step_of(request.options):
                assert step.sequence not in names, "a batch has two requests of one sequence"
                names.add(step.sequence)
                before = [] if step.starts else states.get(step.sequence, [])
                states[step.sequence] = [*before, int(self.read(request).split()[-1] or 0)]

    def plan_pieces(self, batch: Any, took: float) -> dict[int, dict[str, int]]:
        """Send pieces while the batch runs; what the last reply of each request then says of them."""
        said = {}
        for place, request in enumerate(batch.requests):
            if not takes_pieces(request.options):
                continue
            run, count = next(self.world.executions), self.world.random.randint(0, 4)
            said[place] = {"run": run, "pieces": count}
            for i in range(count):
                made = Piece(batch.id, place, answer_to(self.read(request)), {"run": run, "piece": i})
                at = self.world.now + took * (i + 1) / (count + 1)
                self.world.clock.at(at, lambda made=made, life=self.life: self.send_piece(made, life))
        return said

    def send_piece(self, piece: Piece, life: int) -> None:
        if self.world.now < self.frozen_until:
            self.world.clock.at(self.frozen_until, lambda: self.send_piece(piece, life))
        elif self.alive and self.life == life and not self.hung:
            self.deliver(piece)

    def finished(self, order: Any, took: float, life: int, sent: dict[int, dict[str, int]]) -> None:
        if not self.alive or self.life != life or self.hung:
            return
        if isinstance(order, Run) and order.batch.id not in self.touches:
            return  # it was dropped
        if self.world.now < self.frozen_until:
            self.world.clock.at(self.frozen_until, lambda: self.finished(order, took, life, sent))
            return
        if not (isinstance(order, Run) and self.abreast.pop(order.batch.id, None)):
            self.busy = False
        if isinstance(order, Run):
            if any(b"poison" in self.read(request) for request in order.batch.requests):
                self.world.crash(self)
                return
            requests = order.batch.requests
            replies = [self.reply(request, sent.get(place, {})) for place, request in enumerate(requests)]
            states = self.states[order.batch.model, order.batch.version]
            for request, reply in zip(requests, replies, strict=True):
                if step := step_of(request.options):
                    reply.meta["state"] = [step.sequence, states[step.sequence]]
            del self.touches[order.batch.id]
            self.deliver(Result(order.batch.id, int(took * 1e6), replies))
        elif isinstance(order, Unload):
            self.loaded.discard((order.model, order.version))
            self.states.pop((order.model, order.version), None)
            self.deliver(Copy(order.model, order.version, "gone", "", {}))
        elif (order.model, order.version) in self.world.deadly:
            self.world.crash(self)
        elif (order.model, order.version) in self.world.broken:
            self.deliver(Copy(order.model, order.version, "failed", "no weights", {}))
        else:
            self.loaded.add((order.model, order.version))
            low, high = self.world.nature.batch_s
            facts = {"batch_us": {"1": int(low * 1e6), "16": int(high * 1e6)}}
            self.deliver(Copy(order.model, order.version, "ready", "", facts))
        self.next_order()

    def reply(self, request: Any, meta: dict[str, Any]) -> BatchReply:
        tensors, ref = self.read(request), request.options.get(REPLY_SLOT)
        if not tensors:
            return BatchReply(InvalidInput.code, "the slot is not this request's any more", {})
        answer = answer_to(tensors)
        if ref and self.world.arenas[ref[0]].write(ref, answer):
            return BatchReply(OK, b"", {SLOT: len(answer), **meta})
        return BatchReply(OK, answer, meta)

    def read(self, request: Any) -> bytes:
        """The request's tensors; b"" when its slot is another's by now."""
        ref = request.options.get(SLOT)
        return (self.world.arenas[ref[0]].read(ref) or b"") if ref else request.tensors

    def hang(self) -> None:
        self.hung = True

    def freeze(self) -> None:
        """The whole process stands still for a while, then goes on as if nothing had been."""
        self.frozen_until = self.world.now + self.world.random.uniform(0.2, 6.0)


class CallerNode(Node):
    """The real calls, and somebody who makes them."""

    def start(self) -> None:
        self.calls = Calls(CallTimes(orphan_s=self.world.orphan_s))
        self.open: dict[int, bytes] = {}  # by id: the tensors
        self.connected_to = 0  # which life of the broker
        super().start()
        self.arena = self.world.arenas[self.identity.decode()] = Arena(self.identity.decode())

    @property
    def identity(self) -> bytes:
        return f"{self.name}.{self.life}".encode()

    def step(self, id: int, model: str, timeout_s: float, step: Step) -> None:
        """Ask for a step of a sequence, which is this caller's own."""
        if self.alive:
            step = step._replace(sequence=f"{self.identity.decode()}/{step.sequence}")
            self.world.judge.steps[step.sequence].append((id, step.starts))
            self.ask(id, model, timeout_s, b"step %d" % id, options=step.options)

    def ask(
        self,
        id: int,
        model: str,
        timeout_s: float,
        tensors: bytes,
        rows: int = 0,
        version: str = "",
        options: dict[str, Any] | None = None,
    ) -> None:
        if not self.alive:
            return
        self.open[id] = tensors
        chance = self.world.random.random()
        own = {**(options or {}), COMPANY: LONG_MS} if chance > 0.9 else options
        options = self.arena.ask(id, tensors, reply=chance < 0.4) if chance < self.world.sharing else {}
        deadline, inline, slots = self.world.now + timeout_s, b"" if options else tensors, bool(options)
        stream = self.world.streaming > 0 and self.world.random.random() < self.world.streaming
        options = {**options, **(own or {}), STREAM: TRUE} if stream else {**options, **(own or {})}
        call = Call(id, deadline, model, version, rows, options, inline, slots=slots, stream=stream)
        self.world.judge.asked((self.identity, id), call.deadline)
        self.deliver(call)

    def abandon(self, id: int) -> None:
        if self.alive and self.open.pop(id, None):
            self.arena.settle(id, self.world.now)
            self.world.judge.abandoned.add((self.identity, id))
            self.deliver(Abandon(id))

    def kill(self) -> None:
        super().kill()
        self.world.judge.abandoned.update((self.identity, id) for id in self.open)
        self.open = {}

    def turn(self) -> None:
        events, self.inbox = self.inbox, []
        for event in events:
            self.do_all(self.calls.handle(event, self.world.now))
        self.do_all(self.calls.wake(self.world.now))
        self.wake_at(self.calls.next_wake())

    def send(self, message: Message) -> bool:
        """As a caller's dealer: refused where nobody is there, and once where it is another one."""
        if self.world.broker.alive and self.connected_to != self.world.broker.life:
            self.connected_to = self.world.broker.life
            return False
        return self.world.to_broker(self, self.identity, message, FromCaller)

    def do_all(self, actions: Iterable[Any]) -> None:
        refused = self.calls.refused
        for action in actions:
            match action:
                case Settle(id, outcome):
                    self.settle(id, outcome)
                case Advance(id, piece):
                    if id in self.open:
                        self.world.judge.advanced((self.identity, id), self.open[id], piece)
                case Release(id):
                    self.release(id)
                case CallerSend(message):
                    if self.calls.refused != refused or not self.send(message):
                        self.calls.handle(CallerUnsent(message), self.world.now)

    def settle(self, id: int, outcome: Reply | HeadwayError) -> None:
        self.arena.settle(id, self.world.now)
        tensors = self.open.pop(id, None)
        if tensors is None:
            return
        if isinstance(outcome, Reply) and SLOT in outcome.meta:
            outcome = outcome._replace(content=self.arena.reply(id, outcome.meta[SLOT]))
            assert not self.writers(self.arena.lent[id].slots[1]), "a reply was read that is still written"
            self.world.judge.shared += 1
        self.world.judge.settled((self.identity, id), tensors, outcome, self.world.now)

    def writers(self, slot: Slot) -> list[WorkerNode]:
        """The workers that were given the slot for a reply, and may write there."""
        name = (self.arena.name, slot.offset, slot.generation)
        living = (w for w in self.world.workers if w.alive)
        return [w for w in living if any(name in slots for _, slots in w.touches.values())]

    def release(self, id: int) -> None:
        """Slots are free: no worker that lives may hold one, unless the broker that gave it is gone, and the
        outcome was a while ago."""
        settled = self.arena.lent[id].settled
        assert settled >= 0, "the slots of an open call were freed"
        freed = {(self.arena.name, slot.offset, slot.generation) for slot in self.arena.free(id)}
        for worker in (w for w in self.world.workers if w.alive):
            for life, slots in worker.touches.values():
                old = life < self.world.broker.life and self.world.now >= settled + self.world.orphan_s
                assert old or not freed & set(slots), f"{worker.name} may still touch slots that were freed"
        self.world.judge.released += 1


@dataclass
class Nature:
    """How rough a world is; seconds and probabilities."""

    latency_s: tuple[float, float] = (0.0001, 0.002)
    batch_s: tuple[float, float] = (0.002, 0.02)
    load_s: tuple[float, float] = (0.05, 0.5)
    restart_s: tuple[float, float] = (0.2, 1.5)


@dataclass
class World:
    """Everything there is."""

    seed: int
    specs: list[ModelSpec]
    nature: Nature = field(default_factory=Nature)
    times: BrokerTimes = field(default_factory=BrokerTimes)
    sharing: float = 0.6  # of the requests are in slots, where there is room
    streaming: float = 0.0  # of the requests take pieces
    orphan_s: float = 6.0
    check_each: int = 1  # of the broker's turns; more where they are very many

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.clock = Clock()
        self.judge = Judge()
        self.broker = BrokerNode(self, "broker")
        self.workers: list[WorkerNode] = []
        self.callers: list[CallerNode] = []
        self.others: list[Any] = []  # agents and operators
        self.saved = ""  # what the broker keeps of its orders
        self.deadly: set[Key] = set()  # versions whose load kills the worker
        self.broken: set[Key] = set()  # versions whose load fails
        self.pids = itertools.count(1)
        self.dropped = 0  # batches that workers left because nobody waited any more
        self.executions = itertools.count(1)  # of requests that take pieces
        self.arenas: dict[str, Arena] = {}  # as workers have them mapped, also those of callers that died
        self.planned = 0.0  # when the last of what the test plans happens
        self._arrives: dict[tuple[str, str], float] = defaultdict(float)

    @property
    def now(self) -> float:
        return self.clock.now

    def plan(self, time: float, event: Callable[[], None]) -> None:
        """What the test wants to happen."""
        self.planned = max(self.planned, time)
        self.clock.at(time, event)

    def add_workers(self, count: int) -> None:
        self.workers += [WorkerNode(self, f"w{len(self.workers) + i}") for i in range(count)]

    def add_callers(self, count: int) -> None:
        self.callers += [CallerNode(self, f"c{len(self.callers) + i}") for i in range(count)]

    def start(self) -> None:
        for node in (self.broker, *self.workers, *self.callers, *self.others):
            node.start()

    def between(self, span: tuple[float, float]) -> float:
        return self.random.uniform(*span)

    def duration(self, order: Any) -> float:
        return self.between(self.nature.batch_s if isinstance(order, Run) else self.nature.load_s)

    def reachable(self, identity: bytes) -> Node | None:
        nodes = (
            n for n in (*self.workers, *self.callers, *self.others) if n.alive and n.identity == identity
        )
        return next(nodes, None)

    def to_broker(self, node: Node, identity: bytes, message: Message, event: Any) -> bool:
        """False when nobody listens."""
        if not self.broker.alive:
            return False
        self.carry(node, self.broker, message, lambda carried: event(identity, carried))
        return True

    def carry(self, sender: Node, to: Node, message: Message, wrap: Callable[[Message], Any]) -> None:
        frame, life, route = encode(message), to.life, (f"{sender.name}.{sender.life}", to.name)
        arrives = max(self.now + self.between(self.nature.latency_s), self._arrives[route])
        self._arrives[route] = arrives

        def arrive() -> None:
            if to.alive and to.life == life:
                to.deliver(wrap(decode(frame)))

        self.clock.at(arrives, arrive)

    def crash(self, node: Node) -> None:
        """Kill -9; somebody starts it again."""
        if node.alive:
            self.restart_later(node)

    def restart_later(self, node: Node, how: str = "was killed by SIGKILL") -> None:
        node.kill()
        if isinstance(node, WorkerNode) and node.owner:
            node.owner.lost(node, how)
            return
        self.clock.at(self.now + self.between(self.nature.restart_s), lambda: node.alive or node.start())

    def read_store(self, asked: bool = True) -> None:
        """The broker's thread reads what is there now, and says so a while later."""
        read, life = StoreRead(list(self.specs), {}, asked=asked), self.broker.life
        took = self.between((0.001, 0.1))
        self.clock.at(self.now + took, lambda: self.broker.life == life and self.broker.deliver(read))

    def drain(self, worker: WorkerNode) -> None:
        if worker.alive:
            worker.deliver(Drain("told to"))

    def settle_down(self, until: float) -> None:
        """Let everything planned happen and end, by `until` at the latest; check that nothing is left."""
        self.clock.run(min(self.planned, until))
        while self.now < until and self.unsettled():
            self.clock.run(min(self.now + 0.25, until))
        assert not self.judge.unanswered(), f"never answered: {sorted(self.judge.unanswered())[:5]}"
        assert not list(self.broker.scheduler.ledger), "the broker holds a request that nobody waits for"
        assert not self.unsettled(), "a caller still waits"
        self.give_back()

    def give_back(self) -> None:
        """Every slot comes back in the end, also those that a broker's death put into quarantine."""
        living, end = [c for c in self.callers if c.alive], self.now + self.orphan_s + 10.0
        while self.now < end and (any(len(c.arena.slots) for c in living) or self.kept()):
            self.clock.run(self.now + 0.5)
        for caller in living:
            assert not len(caller.arena.slots) and not caller.calls.held, f"{caller.name} has lost slots"
            caller.arena.slots.check()
        assert not self.kept(), "the broker keeps requests that nobody waits for"

    def kept(self) -> list[Any]:
        """Requests that the broker, which may be another by now, keeps for their slots."""
        return list(self.broker.scheduler.holds)

    def unsettled(self) -> bool:
        """Whether anybody waits for anything."""
        calls = any(len(caller.calls) for caller in self.callers if caller.alive)
        return calls or bool(self.broker.scheduler.ledger.callers) or bool(self.judge.unanswered())
