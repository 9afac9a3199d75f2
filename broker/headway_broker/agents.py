"""The hosts' agents as the broker sees them: what each offers, and the worker processes it has.

Pure. Knows: agents and what they reported. Must not know: whom to start or stop (that is `fleet`), copies.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from headway.messages import AgentJoin, AgentReport, AgentWorker


@dataclass(slots=True, eq=False)
class Agent:
    """An agent that joined at `joined`. `workers` by name; those that ended stay for their reason."""

    identity: bytes
    about: AgentJoin
    joined: float
    heard: float
    workers: dict[str, AgentWorker] = field(default_factory=dict)

    @property
    def host(self) -> str:
        return self.about.host

    @property
    def running(self) -> int:
        return sum(worker.state != "ended" for worker in self.workers.values())


class Agents:
    """All agents, one for a host."""

    def __init__(self) -> None:
        self._agents: dict[bytes, Agent] = {}

    def __iter__(self) -> Iterator[Agent]:
        return iter(self._agents.values())

    def __len__(self) -> int:
        return len(self._agents)

    @property
    def identities(self) -> list[bytes]:
        return list(self._agents)

    def get(self, identity: bytes) -> Agent | None:
        return self._agents.get(identity)

    def of(self, host: str) -> Agent | None:
        """The agent of a host."""
        return next((agent for agent in self if agent.host == host), None)

    def join(self, identity: bytes, about: AgentJoin, now: float) -> Agent:
        """It is there, with the workers that it says."""
        agent = self._agents[identity] = Agent(identity, about, now, now)
        agent.workers = {worker.name: worker for worker in about.workers}
        return agent

    def report(self, agent: Agent, report: AgentReport) -> None:
        """One of its workers changed."""
        agent.workers[report.worker.name] = report.worker

    def remove(self, identity: bytes) -> Agent | None:
        """It is gone; its workers may live."""
        return self._agents.pop(identity, None)

    def silent(self, before: float) -> list[Agent]:
        """Those not heard since."""
        return [agent for agent in self if agent.heard < before]
