"""Agents as the broker sees them."""

from __future__ import annotations

from headway.messages import AgentJoin, AgentReport, AgentWorker
from headway_broker.agents import Agents


def worker(name: str, state: str = "running") -> AgentWorker:
    return AgentWorker(name, 7, "cpu", state, "")


def joined(agents: Agents, identity: bytes = b"a", host: str = "h", *workers: AgentWorker) -> None:
    agents.join(identity, AgentJoin("agent", host, {}, list(workers)), 1.0)


def test_an_agent_is_found_by_its_identity_and_by_its_host() -> None:
    agents = Agents()
    joined(agents, b"a", "h")
    joined(agents, b"b", "other")
    assert agents.get(b"a") is agents.of("h") is not None
    assert agents.get(b"c") is None and agents.of("c") is None
    assert agents.identities == [b"a", b"b"] and len(agents) == 2


def test_workers_that_ended_stay_for_their_reason_until_the_agent_joins_again() -> None:
    agents = Agents()
    joined(agents, b"a", "h", worker("w1"), worker("w2"))
    agent = agents.get(b"a")
    assert agent
    agents.report(agent, AgentReport(worker("w1", "ended")))
    assert (set(agent.workers), agent.running) == ({"w1", "w2"}, 1)
    joined(agents, b"a", "h", worker("w2"))
    again = agents.get(b"a")
    assert again and set(again.workers) == {"w2"}


def test_who_was_not_heard_is_silent_and_who_was_removed_is_gone() -> None:
    agents = Agents()
    joined(agents)
    assert agents.silent(0.9) == [] and [a.identity for a in agents.silent(1.1)] == [b"a"]
    assert agents.remove(b"a") and agents.remove(b"a") is None
    assert not list(agents)
