"""Agents and operators for the false world: the real agent's session with a played crew, and somebody who
deploys, scales, splits and drains.

Knows: `world`, the agent's words, the broker's commands. Must not know: why anything is decided.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from headway.exits import Exit
from headway.messages import Answer, Command
from headway_broker.events import FromCaller, FromWorker
from headway_worker.agent.offer import Device, Offer
from headway_worker.agent.orders import Adopted, Ended, Kill, Start, Started, Stop
from headway_worker.agent.session import Leaving, Send, Session, Unsent
from headway_worker.session import Drain
from tests.sim.world import TOKEN, Node, WorkerNode, World


class AgentNode(Node):
    """One host's agent. Its workers outlive it, and it finds them again."""

    def __init__(self, world: World, host: str, workers_max: int, workers_wanted: int) -> None:
        super().__init__(world, f"agent-{host}")
        self.host = host
        device = Device("cpu", "cpu", "cpu", 0, workers_max)
        self.offer = Offer((device,), workers_max, workers_wanted)
        self.workers: dict[str, WorkerNode] = {}
        self.ended: list[Ended] = []  # while it was dead

    @property
    def identity(self) -> bytes:
        return f"{self.name}.{self.life}".encode()

    def start(self) -> None:
        self.session = Session(self.name, self.host, self.offer, drain_s=2.0)
        super().start()
        for worker in self.workers.values():
            self.deliver(Adopted(worker.name, worker.pid, "cpu", 0))
        for ended in self.ended:
            self.deliver(ended)
        self.ended = []

    def turn(self) -> None:
        events, self.inbox = self.inbox, []
        for event in events:
            self.do_all(self.session.handle(event, self.world.now))
        self.do_all(self.session.wake(self.world.now))
        self.session.check()
        if self.alive:
            self.wake_at(self.session.next_wake())

    def do_all(self, actions: list[Any]) -> None:
        for action in actions:
            match action:
                case Send(message):
                    if not self.world.to_broker(self, self.identity, message, FromWorker):
                        self.session.handle(Unsent(message), self.world.now)
                case Start(name=name):
                    self.boot(name)
                case Stop(name=name):
                    self.workers[name].deliver(Drain("its agent said so"))
                case Kill(name=name):
                    self.world.crash(self.workers[name])
                case Leaving(code=code):
                    assert code != Exit.LOCKED, "a host's only agent was sent away"
                    self.world.restart_later(self)

    def boot(self, name: str) -> None:
        """Start a process; it runs its own code a while later."""
        found = (worker for worker in self.world.workers if worker.name == name)
        worker = next(found, None) or WorkerNode(self.world, name)
        assert not worker.alive, f"{name} runs already"
        if worker not in self.world.workers:
            self.world.workers.append(worker)
        worker.owner, worker.host = self, self.host
        self.workers[name] = worker
        worker.start()
        self.deliver(Started(name, worker.pid))

    def lost(self, worker: WorkerNode, how: str) -> None:
        """One of its processes ended."""
        if self.workers.get(worker.name) is not worker:
            return
        del self.workers[worker.name]
        ended = Ended(worker.name, "cpu", how)
        if self.alive:
            self.deliver(ended)
        else:
            self.ended.append(ended)


@dataclass
class Given:
    """A command, and what became of it. `life`: the broker's that it was sent to."""

    verb: str
    arguments: dict[str, Any]
    until: float
    life: int
    answer: dict[str, Any] | None = None


class OperatorNode(Node):
    """Gives commands, one after the other, and keeps the answers."""

    def __init__(self, world: World) -> None:
        super().__init__(world, "operator")
        self.given: dict[int, Given] = {}

    @property
    def identity(self) -> bytes:
        return b"operator"

    def turn(self) -> None:
        events, self.inbox = self.inbox, []
        for event in events:
            if isinstance(event, Answer):
                given = self.given[event.id]
                assert given.answer is None, f"{given} was answered twice"
                assert self.world.now <= given.until + 1.0, f"{given} was answered late"
                given.answer = event.body

    def order(self, verb: str, **arguments: Any) -> None:
        """Give a command; lost where no broker is there."""
        id, timeout_s = len(self.given) + 1, arguments.get("timeout_ms", 60_000) / 1000
        self.given[id] = Given(verb, arguments, self.world.now + timeout_s, self.world.broker.life)
        command = Command(id, TOKEN, verb, arguments)
        if not self.world.to_broker(self, self.identity, command, FromCaller):
            del self.given[id]

    def later(self, time: float, verb: str, **arguments: Any) -> None:
        self.world.plan(time, lambda: self.order(verb, **arguments))

    def unanswered(self) -> list[Given]:
        """What the broker that is there now owes an answer."""
        owed = (given for given in self.given.values() if given.life == self.world.broker.life)
        return [given for given in owed if given.answer is None]


def drain_someone(world: World, operator: OperatorNode) -> Callable[[], None]:
    def event() -> None:
        names = [worker.name for worker in world.workers if worker.alive]
        if names:
            operator.order("drain", worker=world.random.choice(names))

    return event
