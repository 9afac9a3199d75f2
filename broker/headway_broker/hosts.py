"""The hosts with an agent: their workers are started and stopped as they are needed.

Pure. Knows: agents, orders for hosts, which versions find no place. Must not know: how `fleet` decides,
placement.

The end of a worker's process is told here by its agent, which knows at once and knows why.
"""

from __future__ import annotations

from collections.abc import Mapping

from headway.errors import InvalidInput
from headway.messages import AgentJoin, AgentReport, Dismiss, Heartbeat, StopWorker, Welcome
from headway_broker import offers
from headway_broker.agents import Agent
from headway_broker.board import Board
from headway_broker.catalog import Key
from headway_broker.events import Action, Note, ToWorker
from headway_broker.fleet import Fleet, Joined, Need
from headway_broker.offers import Offer
from headway_broker.steering import Steering
from headway_broker.workers import Worker

LOOK_S = 0.5


class Hosts:
    """One broker's. `outbox` is what it wants done; `patience_s`, how long a second agent may ask."""

    def __init__(self, board: Board, steering: Steering, patience_s: float = 4.0) -> None:
        self.outbox: list[Action] = []
        self._board = board
        self._steering = steering
        self._patience_s = patience_s
        self._seconds: dict[bytes, float] = {}  # agents whose host has another, and since when they ask
        self._fleet = Fleet()
        self._look_at = 0.0
        self._lacking: Mapping[Key, int] = {}  # as of the last look

    def join(self, identity: bytes, about: AgentJoin, welcome: Welcome, now: float) -> None:
        """An agent is there. One for a host: whoever comes second asks until the first is found gone (a
        restarted agent is there before its dead one is missed, and would stop all workers if it were sent
        away), or is sent away when that lives. Raises: RemoteProtocolError for facts that are none."""
        offers.offer_of(about.host, about.facts, {}, now)
        other = self._board.agents.of(about.host)
        if other and other.identity != identity:
            self._ask(identity, other, welcome, now)
            return
        self._seconds.pop(identity, None)
        if other is None:
            self.note("agent joined", agent=about.name, host=about.host, workers=len(about.workers))
        self._board.agents.join(identity, about, now)
        self._look_at = now
        self.outbox.append(ToWorker(identity, welcome))

    def _ask(self, identity: bytes, other: Agent, welcome: Welcome, now: float) -> None:
        """A second agent for a host: find out whether the first lives."""
        since = self._seconds.setdefault(identity, now)
        if since == now:
            self.outbox.append(ToWorker(other.identity, Heartbeat(welcome.broker)))
        elif now >= since + self._patience_s:
            del self._seconds[identity]
            reason = f"host {other.host} has an agent: {other.about.name}"
            self.note("agent refused", host=other.host, reason=reason)
            self.outbox.append(ToWorker(identity, Dismiss(reason, 1)))

    def report(self, agent: Agent, report: AgentReport, now: float) -> Worker | None:
        """One of its workers changed. Returns the worker on the roster whose process has ended."""
        worker = report.worker
        self._board.agents.report(agent, report)
        facts = {"worker": worker.name, "host": agent.host, "state": worker.state}
        self.note("worker process", **facts, reason=worker.reason)
        if worker.state != "ended":
            return None
        self._fleet.ended(agent.host, worker, now)
        self._look_at = now
        return next((w for w in self._board.roster if _is_same(w, agent, worker.name, worker.pid)), None)

    def lose(self, agent: Agent, reason: str) -> None:
        """The agent is gone; its workers may live."""
        self._board.agents.remove(agent.identity)
        self.note("agent lost", agent=agent.about.name, host=agent.host, reason=reason)

    def look(self, now: float) -> None:
        """Order what is missing, and what is too much."""
        lacking = self._steering.plan.lacking
        if (now < self._look_at and lacking == self._lacking) or not len(self._board.agents):
            return
        self._look_at, self._lacking = now + LOOK_S, lacking
        agents = {agent.host: agent for agent in self._board.agents}
        joined = {
            worker.name: Joined(worker.about.host, len(worker.copies), worker.draining or worker.leaving)
            for worker in self._board.roster
        }
        hosts = self._board.catalog.desired.hosts
        orders = self._fleet.orders(map(_offer, agents.values()), joined, hosts, self._needs(), now)
        for order in orders:
            agent = agents[order.host]
            self.note("worker ordered", host=order.host, **_words(order.message))
            if not self._drains(order.message, now):
                self.outbox.append(ToWorker(agent.identity, order.message))

    @property
    def coming(self) -> bool:
        """Whether a worker is on its way."""
        return self._fleet.is_starting

    def wanted(self, agent: Agent) -> int:
        """How many workers its host shall have."""
        return offers.wanted(_offer(agent), self._board.catalog.desired.hosts.get(agent.host))

    def order(self, host: str, count: int | None, now: float) -> None:
        """How many workers the host shall have; None: as its agent says. Raises: InvalidInput."""
        agent = self._board.agents.of(host)
        if agent is None:
            known = ", ".join(sorted(a.host for a in self._board.agents)) or "none"
            raise InvalidInput(f"host {host!r} has no agent; hosts with one: {known}")
        hosts = self._board.catalog.desired.hosts
        if count is None:
            hosts.pop(host, None)
        elif problem := offers.check_count(_offer(agent), count):
            raise InvalidInput(problem)
        else:
            hosts[host] = count
        self._look_at = now

    def note(self, event: str, **facts: object) -> None:
        self.outbox.append(Note(event, facts))

    def _needs(self) -> list[Need]:
        """Versions that more workers would help."""
        board, plan = self._board, self._steering.plan
        found = ((key, count) for key, count in plan.lacking.items() if key in board.catalog.specs)
        specs = board.catalog.specs
        return [Need(specs[key], n, self._steering.need(specs[key]), plan.short[key]) for key, n in found]

    def _drains(self, message: object, now: float) -> bool:
        """A worker on the roster is not stopped by its agent: it drains, and ends by itself when its copies
        are ready elsewhere. (Nothing is loaded into it meanwhile, even if it has none.) One that does not end
        then is not on the roster any more when the order is repeated."""
        if not isinstance(message, StopWorker):
            return False
        worker = next(iter(self._board.roster.named(message.name)), None)
        if worker:
            self._steering.drain(worker, now)
        return worker is not None


def _offer(agent: Agent) -> Offer:
    return offers.offer_of(agent.host, agent.about.facts, agent.workers, agent.joined)


def _is_same(worker: Worker, agent: Agent, name: str, pid: int) -> bool:
    """Not without a pid: an agent says so of a worker that it could not start, since one with the name is
    there already."""
    return worker.name == name and worker.about.host == agent.host and worker.about.pid == pid


def _words(message: object) -> dict[str, object]:
    assert isinstance(message, tuple)
    verb = "stop" if isinstance(message, StopWorker) else "start"
    return {"order": verb, "worker": message[0], "reason": message[-1]}
