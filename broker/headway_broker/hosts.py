"""The hosts with an agent: their workers are started and stopped as they are needed.

Pure. Knows: agents, orders for hosts, which versions find no place. Must not know: how `fleet` decides,
placement.

The end of a worker's process is told here by its agent, which knows at once and knows why.
"""

from __future__ import annotations

from headway.errors import InvalidInput
from headway.messages import AgentJoin, AgentReport, Dismiss, StartWorker, StopWorker, Welcome
from headway_broker.agents import Agent
from headway_broker.board import Board
from headway_broker.events import Action, Note, ToWorker
from headway_broker.fleet import Fleet
from headway_broker.workers import Worker


class Hosts:
    """One broker's. `outbox` is what it wants done."""

    def __init__(self, board: Board) -> None:
        self.outbox: list[Action] = []
        self._board = board
        self._fleet = Fleet()

    def join(self, identity: bytes, about: AgentJoin, welcome: Welcome, now: float) -> None:
        """An agent is there. One for a host: whoever comes second is sent away while the first is heard."""
        other = self._board.agents.of(about.host)
        if other and other.identity != identity:
            reason = f"host {about.host} has an agent: {other.about.name}"
            self.outbox.append(ToWorker(identity, Dismiss(reason, 1)))
            return
        if other is None:
            self.note("agent joined", agent=about.name, host=about.host, workers=len(about.workers))
        self._board.agents.join(identity, about, now)
        self.outbox.append(ToWorker(identity, welcome))

    def report(self, agent: Agent, report: AgentReport) -> Worker | None:
        """One of its workers changed. Returns the worker on the roster whose process has ended."""
        worker = report.worker
        self._board.agents.report(agent, report)
        self.note(
            "worker process", worker=worker.name, host=agent.host, state=worker.state, reason=worker.reason
        )
        if worker.state != "ended":
            return None
        return next((w for w in self._board.roster if self._is_same(w, agent, worker.name, worker.pid)), None)

    def lose(self, agent: Agent, reason: str) -> None:
        """The agent is gone; its workers may live."""
        self._board.agents.remove(agent.identity)
        self.note("agent lost", agent=agent.about.name, host=agent.host, reason=reason)

    def wanted(self, agent: Agent) -> int:
        """How many workers its host shall have."""
        ordered = self._board.catalog.desired.hosts.get(agent.host)
        return self._fleet.wanted(agent.about.facts, ordered)

    def order(self, host: str, count: int | None) -> None:
        """How many workers the host shall have; None: as its agent says. Raises: InvalidInput."""
        agent = self._board.agents.of(host)
        if agent is None:
            known = ", ".join(sorted(a.host for a in self._board.agents)) or "none"
            raise InvalidInput(f"host {host!r} has no agent; hosts with one: {known}")
        hosts = self._board.catalog.desired.hosts
        if count is None:
            hosts.pop(host, None)
        elif problem := self._fleet.check_count(agent.about.facts, count):
            raise InvalidInput(f"host {host!r}: {problem}")
        else:
            hosts[host] = count

    @property
    def coming(self) -> bool:
        return False

    def look(self, steering, now):
        pass

    def note(self, event: str, **facts: object) -> None:
        self.outbox.append(Note(event, facts))

    @staticmethod
    def _is_same(worker: Worker, agent: Agent, name: str, pid: int) -> bool:
        return worker.name == name and worker.about.host == agent.host and pid in (0, worker.about.pid)


__all__ = ["Hosts", "StartWorker", "StopWorker"]
