"""Hosts with an agent: a real scheduler on its bench, with agents played by the test."""

from __future__ import annotations

from typing import Any

import pytest

from headway.errors import InvalidInput, RemoteProtocolError
from headway.messages import (
    AgentJoin,
    AgentReport,
    AgentWorker,
    Alive,
    Heartbeat,
    Join,
    StartWorker,
    StopWorker,
    Welcome,
)
from headway_broker.events import WorkerGone
from tests.broker.bench import Bench, Sent, copy, spec
from tests.broker.test_commands import TOKEN, ordered, refused

DEVICE = {"device": "cpu", "device_id": "cpu", "device_name": "", "places": 4}


def facts(wanted: int = 0, most: int = 4, **more: int) -> dict[str, Any]:
    return {"workers_max": most, "workers_wanted": wanted, "devices": [DEVICE], **more}


def agent(bench: Bench, identity: str = "agent", *workers: AgentWorker, wanted: int = 0) -> None:
    bench.hears(identity, AgentJoin(identity, "h", facts(wanted), list(workers)))


def process(name: str, state: str = "running", reason: str = "", pid: int = 7) -> AgentWorker:
    return AgentWorker(name, pid, "cpu", state, reason)


def says(bench: Bench, worker: AgentWorker) -> None:
    bench.hears("agent", AgentReport(worker))


def worker_joins(bench: Bench, name: str, *copies: Any, pid: int = 7) -> None:
    bench.hears(name, Join(name, "h", pid, "cpu", list(copies)))


def starts(sent: Sent) -> list[str]:
    return [message.name for message in sent.to("agent", StartWorker)]


def stops(sent: Sent) -> list[str]:
    return [message.name for message in sent.to("agent", StopWorker)]


def with_worker(state: str = "ready") -> Bench:
    """A host with an agent that has one worker with a copy."""
    bench = Bench(token=TOKEN)
    agent(bench, wanted=1)
    assert starts(bench.wake()) == ["h-w1"]
    says(bench, process("h-w1"))
    worker_joins(bench, "h-w1", copy(state=state))
    bench.wake()
    return bench


def test_an_agent_is_welcomed_and_told_to_start_what_its_host_shall_have() -> None:
    bench = Bench()
    agent(bench, wanted=2)
    sent = bench.wake()
    assert len(sent.to("agent", Welcome)) == 1
    assert starts(sent) == ["h-w1", "h-w2"]
    assert starts(bench.live(1.0)) == [], "they are on their way"


def test_facts_that_are_none_are_refused() -> None:
    bench = Bench()
    with pytest.raises(RemoteProtocolError, match="workers_max"):
        bench.hears("agent", AgentJoin("agent", "h", facts(most=-1), []))
    assert not len(bench.scheduler.board.agents)


def test_a_second_agent_is_sent_away_when_the_first_has_shown_that_it_lives() -> None:
    bench = Bench()
    agent(bench)
    bench.wake()
    agent(bench, "second")
    sent = bench.wake()
    assert sent.to("agent", Heartbeat) and sent.dismissed == []
    for _ in range(9):
        bench.hears("agent", Alive())
        agent(bench, "second")
        sent = bench.wake(0.5)
    assert sent.dismissed == [("second", "host h has an agent: agent", 1)]


def test_an_agent_that_was_restarted_takes_the_place_of_its_dead_one_at_once() -> None:
    bench = with_worker()
    agent(bench, "again", process("h-w1"), wanted=1)
    assert bench.wake().dismissed == []
    bench.handle(WorkerGone(b"agent", "no route"))
    agent(bench, "again", process("h-w1"), wanted=1)
    sent = bench.wake()
    assert len(sent.to("again", Welcome)) == 1 and not sent.to("again", StartWorker)
    assert b"h-w1" in bench.scheduler.roster.workers


def test_the_end_of_a_process_loses_its_worker_at_once_with_the_reason() -> None:
    bench = with_worker()
    bench.ask(1)
    assert bench.wake().batches
    says(bench, process("h-w1", "ended", "was killed by SIGKILL (out of memory)"))
    sent = bench.wake()
    [lost] = [note.facts for note in sent.notes if note.event == "worker lost"]
    assert lost["reason"] == "its process was killed by SIGKILL (out of memory)" and lost["batches"] == 1
    assert not len(bench.scheduler.roster)
    assert starts(bench.live(1.0)) == ["h-w1"]


def test_an_order_that_was_refused_since_the_worker_is_there_does_not_lose_it() -> None:
    bench = with_worker()
    says(bench, process("h-w1", "ended", "a worker called h-w1 is there already", pid=0))
    says(bench, process("h-w1"))
    assert bench.wake().dismissed == []
    assert b"h-w1" in bench.scheduler.roster.workers


def test_the_end_of_a_process_before_this_one_does_not_lose_it() -> None:
    bench = with_worker()
    says(bench, process("h-w1", "ended", "was killed by SIGKILL", pid=6))
    bench.wake()
    assert b"h-w1" in bench.scheduler.roster.workers


def test_a_worker_with_copies_drains_before_it_is_stopped() -> None:
    bench = with_worker()
    ordered(bench, "workers", host="h", count=2)
    bench.live(1.0, ["h-w1"])
    says(bench, process("h-w2", pid=8))
    worker_joins(bench, "h-w2", pid=8)
    bench.wake()
    ordered(bench, "workers", host="h", count=0)
    bench.hears("agent", Alive())
    sent = bench.live(0.6, ["h-w1", "h-w2", "agent"])
    assert stops(sent) == [] and sent.orders == [], "none is stopped under its requests, nor given anything"
    assert all(worker.draining for worker in bench.scheduler.roster)
    dismissed = bench.live(2.0, ["h-w1", "h-w2", "agent"]).dismissed
    assert {("h-w1", "drained", 1), ("h-w2", "drained", 1)} <= set(dismissed)


def test_a_process_that_does_not_end_when_it_was_sent_away_is_stopped_by_its_agent() -> None:
    bench = with_worker()
    ordered(bench, "workers", host="h", count=0)
    assert stops(bench.live(8.0, ["h-w1", "agent"])) == []
    assert stops(bench.live(6.0, ["agent"])) == ["h-w1"]


def test_a_host_whose_agent_is_gone_is_told_nothing_and_keeps_its_workers() -> None:
    bench = with_worker()
    bench.handle(WorkerGone(b"agent", "no route"))
    sent = bench.live(5.0, ["h-w1"])
    assert starts(sent) == [] and sent.dismissed == []
    assert refused(bench, "workers", host="h", count=2)[1] == "host 'h' has no agent; hosts with one: none"


def test_an_agent_that_is_silent_is_lost_and_asked_to_join_again_when_it_is_back() -> None:
    bench = with_worker()
    sent = bench.live(4.0, ["h-w1"])
    [lost] = [note.facts for note in sent.notes if note.event == "agent lost"]
    assert lost["reason"] == "silent for 3 s"
    bench.hears("agent", Alive())
    assert bench.wake().dismissed == [("agent", "not on the roster: join again", 0)]


def test_a_number_that_does_not_fit_is_refused_and_none_takes_the_order_back() -> None:
    bench = with_worker()
    code, error = refused(bench, "workers", host="h", count=5)
    assert code == InvalidInput.code and "may have 4 workers, not 5" in error
    ordered(bench, "workers", host="h", count=3)
    assert bench.scheduler.catalog.desired.hosts == {"h": 3}
    ordered(bench, "workers", host="h")
    assert bench.scheduler.catalog.desired.hosts == {}


def test_a_version_without_a_place_gets_a_worker_where_nobody_ordered_a_number() -> None:
    bench = Bench(spec(copies=2))
    agent(bench, wanted=1)
    bench.wake()
    says(bench, process("h-w1"))
    worker_joins(bench, "h-w1", copy())
    assert starts(bench.live(1.2, ["h-w1", "agent"])) == ["h-w2"]


def test_a_worker_for_what_is_ordered_is_started_at_once() -> None:
    bench = Bench(spec(copies=0), token=TOKEN)
    bench.hears("agent", AgentJoin("agent", "h", facts(most=3, copies_max=1), []))
    bench.live(0.6, ["agent"])
    ordered(bench, "scale", model="m", min=1)
    assert starts(bench.live(0.15, ["agent"])) == ["h-w1"]


def test_a_version_that_is_held_back_gets_no_worker() -> None:
    bench = Bench()
    agent(bench, wanted=2)
    bench.wake()
    for name in ("h-w1", "h-w2"):
        says(bench, process(name))
        worker_joins(bench, name)
        bench.wake()
        says(bench, process(name, "ended", "was killed by SIGSEGV"))
        bench.wake()
    assert set(starts(bench.live(3.0, ["agent"]))) <= {"h-w1", "h-w2"}, "those that ended, and no more"


def test_with_one_copy_for_each_worker_none_is_started_before_it_is_needed_and_then_one_for_each() -> None:
    bench = Bench(spec("a", copies=0), spec("b", copies=0), token=TOKEN)
    bench.hears("agent", AgentJoin("agent", "h", facts(most=3, copies_max=1), []))
    assert starts(bench.live(3.0, ["agent"])) == []
    for model, count in (("a", 2), ("b", 2)):
        ordered(bench, "scale", model=model, min=count)
    names = starts(bench.live(1.0, ["agent"]))
    assert names == ["h-w1", "h-w2", "h-w3"]
    loads: list[tuple[str, str, str]] = []
    for name in names:
        says(bench, process(name))
        bench.hears(name, Join(name, "h", 7, "cpu", [], {"copies_max": 1}))
        loads += bench.wake().orders
    assert sorted(model for _, _, model in loads) in (["a", "a", "b"], ["a", "b", "b"])
    assert {worker for worker, _, _ in loads} == set(names)
    (short,) = bench.scheduler.report.short.values()
    assert "full (copies_max): every suited worker" in short
