"""The agent's session: its place on the roster, and the workers of its host."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.errors import RemoteProtocolError
from headway.exits import Exit
from headway.messages import (
    AgentJoin,
    AgentReport,
    AgentWorker,
    Alive,
    Dismiss,
    Heartbeat,
    Load,
    StartWorker,
    StopWorker,
    Welcome,
)
from headway_worker.agent.offer import Device, Offer
from headway_worker.agent.orders import Adopted, Ended, Kill, Start, Started, Stop
from headway_worker.agent.session import (
    FAULT_S,
    GRACE_S,
    RETRY_S,
    UNKILLABLE_S,
    Drain,
    Leaving,
    Send,
    Session,
    Unsent,
)

GPUS = tuple(Device(f"cuda:{i}", f"GPU-{i}", "", 0, 3) for i in range(2))
OFFER = Offer(GPUS, 5, 2)
WELCOME = Welcome(b"one", 1000)
DRAIN_S = 30.0


class Bench:
    """A session, its broker and its crew played by the test."""

    def __init__(self, joined: bool = True) -> None:
        self.session = Session("agent", "host", OFFER, DRAIN_S, join_s=0.5)
        self.now = 100.0
        if joined:
            self.wake()
            self.handle(WELCOME)

    def handle(self, event: Any) -> list[Any]:
        actions = self.session.handle(event, self.now)
        self.session.check()
        return actions

    def wake(self, after_s: float = 0.0) -> list[Any]:
        self.now += after_s
        actions = self.session.wake(self.now)
        self.session.check()
        return actions

    def sent(self, after_s: float = 0.0) -> list[Any]:
        return [action.message for action in self.wake(after_s) if isinstance(action, Send)]

    def said(self, after_s: float = 0.0) -> list[AgentWorker]:
        return [m.worker for m in self.sent(after_s) if isinstance(m, AgentReport)]

    def run(self, *names: str, device: str = "cuda:0") -> None:
        """Workers that run and are known to."""
        for pid, name in enumerate(names, 1000):
            assert self.handle(StartWorker(name, device, 0, "")) == [Start(name, device, 0)]
            self.handle(Started(name, pid))
        self.sent()


# ---- the roster


def test_it_joins_every_half_second_until_it_is_welcomed() -> None:
    bench = Bench(joined=False)
    assert bench.sent() == [AgentJoin("agent", "host", OFFER.facts(), [])]
    assert bench.session.next_wake() == bench.now + 0.5
    assert bench.sent(0.4) == []
    assert [type(m) for m in bench.sent(0.1)] == [AgentJoin]
    bench.handle(WELCOME)
    assert bench.session.next_wake() == bench.now + 0.5  # half a heartbeat
    assert bench.sent(0.5) == [Alive()]


@pytest.mark.parametrize("news", [Dismiss("unknown", 0), Heartbeat(b"two")])
def test_it_joins_again_with_its_workers(news: Any) -> None:
    bench = Bench()
    bench.run("a", "b")
    bench.handle(StopWorker("b", "fewer"))
    bench.sent()
    assert bench.handle(news) == []
    (join,) = bench.sent()
    assert join.workers == [
        AgentWorker("a", 1000, "cuda:0", "running", ""),
        AgentWorker("b", 1001, "cuda:0", "stopping", "fewer"),
    ]


def test_its_own_brokers_heartbeat_changes_nothing() -> None:
    bench = Bench()
    bench.handle(Heartbeat(b"one"))
    assert bench.sent() == []


def test_an_end_while_nobody_listened_is_said_after_the_next_welcome() -> None:
    bench = Bench()
    bench.run("a")
    bench.handle(Heartbeat(b"two"))
    bench.sent()
    bench.handle(Ended("a", "cuda:0", "was killed by SIGKILL"))
    assert bench.said() == []
    bench.handle(Welcome(b"two", 1000))
    assert bench.said() == [AgentWorker("a", 1000, "cuda:0", "ended", "was killed by SIGKILL")]
    assert bench.said() == []


def test_a_report_that_could_not_be_sent_is_sent_before_later_ones() -> None:
    bench = Bench()
    bench.run("a", "b")
    bench.handle(Ended("a", "cuda:0", "x"))
    (send,) = bench.wake()
    bench.handle(Unsent(send.message))
    bench.handle(Ended("b", "cuda:0", "y"))
    assert bench.wake() == []
    assert bench.session.next_wake() == bench.now + RETRY_S
    assert [worker.name for worker in bench.said(RETRY_S)] == ["a", "b"]


def test_a_report_that_was_not_sent_before_a_dismissal_is_said_to_the_next_broker() -> None:
    bench = Bench()
    bench.run("a")
    bench.handle(Ended("a", "cuda:0", "x"))
    bench.handle(Dismiss("", 0))
    assert [type(m) for m in bench.sent()] == [AgentJoin]
    bench.handle(WELCOME)
    assert [worker.name for worker in bench.said()] == ["a"]


def test_an_unsent_join_is_tried_again_soon_and_an_unsent_heartbeat_forgotten() -> None:
    bench = Bench(joined=False)
    (send,) = bench.wake()
    bench.handle(Unsent(send.message))
    assert [type(m) for m in bench.sent(RETRY_S)] == [AgentJoin]
    bench.handle(WELCOME)
    (send,) = bench.wake(0.5)
    bench.handle(Unsent(send.message))
    assert bench.sent(RETRY_S) == []


def test_a_workers_message_is_refused() -> None:
    with pytest.raises(RemoteProtocolError, match="an agent gets no Load"):
        Bench().handle(Load("m", "1", "/"))


# ---- starting and stopping


def test_a_start_is_ordered_and_reported_with_its_pid() -> None:
    bench = Bench()
    assert bench.handle(StartWorker("a", "cuda:1", 40, "more")) == [Start("a", "cuda:1", 40)]
    assert bench.said() == []
    bench.handle(Started("a", 7))
    assert bench.said() == [AgentWorker("a", 7, "cuda:1", "running", "")]


def test_what_cannot_be_started_has_ended_with_the_reason() -> None:
    bench = Bench()
    assert bench.handle(StartWorker("a", "cuda:9", 0, "")) == []
    assert bench.handle(StartWorker("b", "cuda:0", 0, "")) == [Start("b", "cuda:0", 0)]
    bench.handle(Ended("b", "cuda:0", "could not be started: no such file"))
    said = bench.said()
    assert [(w.name, w.state) for w in said] == [("a", "ended"), ("b", "ended")]
    assert "cuda:9" in said[0].reason
    assert said[1].reason == "could not be started: no such file"


def test_shares_that_were_ordered_count_for_the_next_one() -> None:
    bench = Bench()
    bench.handle(StartWorker("a", "cuda:0", 60, ""))
    assert bench.handle(StartWorker("b", "cuda:0", 41, "")) == []
    assert bench.handle(StartWorker("c", "cuda:0", 40, "")) == [Start("c", "cuda:0", 40)]


def test_a_name_that_is_taken_is_refused_and_the_last_word_is_that_its_owner_runs() -> None:
    bench = Bench()
    bench.run("a")
    assert bench.handle(StartWorker("a", "cuda:1", 0, "")) == []
    refused, truth = bench.said()
    assert (refused.pid, refused.state) == (0, "ended")
    assert refused.reason == "a worker called a is there already"
    assert truth == AgentWorker("a", 1000, "cuda:0", "running", "")


def test_a_stop_is_ordered_once_and_its_end_says_why_it_was_told_to() -> None:
    bench = Bench()
    bench.run("a")
    assert bench.handle(StopWorker("a", "fewer")) == [Stop("a")]
    assert bench.handle(StopWorker("a", "again")) == []
    bench.handle(Ended("a", "cuda:0", "ended with exit code 0 (OK)"))
    assert [(w.state, w.reason) for w in bench.said()] == [
        ("stopping", "fewer"),
        ("stopping", "fewer"),
        ("ended", "fewer; ended with exit code 0 (OK)"),
    ]


def test_a_stop_of_nobody_is_answered() -> None:
    bench = Bench()
    assert bench.handle(StopWorker("ghost", "")) == []
    assert bench.said() == [AgentWorker("ghost", 0, "", "ended", "there is no such worker")]


def test_a_worker_that_does_not_end_is_ended_after_its_drain_time_and_only_once() -> None:
    bench = Bench()
    bench.run("a", "b")
    bench.handle(StopWorker("a", ""))
    bench.wake(DRAIN_S + GRACE_S - 1)
    assert bench.session.next_wake() <= bench.now + 1
    assert Kill("a") in bench.wake(1.0)
    assert Kill("a") not in bench.wake(60.0)


def test_a_worker_is_ended_in_time_though_no_broker_can_be_reached() -> None:
    bench = Bench()
    bench.run("a")
    bench.handle(StopWorker("a", ""))
    bench.now += DRAIN_S + GRACE_S
    bench.handle(Unsent(Alive()))
    assert bench.wake() == [Kill("a")]


def test_adopted_workers_take_places_and_can_be_stopped() -> None:
    bench = Bench(joined=False)
    for i in range(3):
        bench.handle(Adopted(f"w{i}", 50 + i, "cuda:0", 30))
    (join,) = bench.sent()
    assert [(w.name, w.pid, w.state) for w in join.workers] == [
        ("w0", 50, "running"),
        ("w1", 51, "running"),
        ("w2", 52, "running"),
    ]
    bench.handle(WELCOME)
    assert bench.handle(StartWorker("w3", "cuda:0", 0, "")) == []
    assert bench.handle(StopWorker("w1", "")) == [Stop("w1")]


def test_what_ended_while_the_agent_was_away_is_reported() -> None:
    bench = Bench(joined=False)
    bench.handle(Ended("a", "cuda:1", "ended while the agent was away"))
    bench.wake()
    bench.handle(WELCOME)
    assert bench.said() == [AgentWorker("a", 0, "cuda:1", "ended", "ended while the agent was away")]


def test_a_worker_that_systemd_started_again_is_reported_with_its_new_pid() -> None:
    bench = Bench()
    bench.run("a")
    bench.handle(Started("a", 99, "systemd started it again"))
    assert bench.said() == [AgentWorker("a", 99, "cuda:0", "running", "systemd started it again")]


# ---- a fatal fault of a device


def test_a_fatal_fault_stops_all_workers_of_that_device_and_no_other() -> None:
    bench = Bench()
    bench.run("a", "b", "c")
    bench.run("x", device="cuda:1")
    assert bench.handle(Ended("b", "cuda:0", "exit 71", fault=True)) == [Stop("a"), Stop("c")]
    why = "restarted: b reported a fatal fault of cuda:0"
    assert [(w.name, w.state, w.reason) for w in bench.said()] == [
        ("b", "ended", "exit 71"),
        ("a", "stopping", why),
        ("c", "stopping", why),
    ]
    bench.handle(Ended("a", "cuda:0", "exit 0"))
    assert [(w.name, w.state, w.reason) for w in bench.said()] == [("a", "ended", f"{why}; exit 0")]


def test_until_a_faulty_device_is_clear_nothing_is_started_on_it() -> None:
    bench = Bench()
    bench.run("a", "b")
    bench.handle(Ended("a", "cuda:0", "exit 71", fault=True))
    assert bench.handle(StartWorker("c", "cuda:0", 0, "")) == []
    assert bench.said()[-1].reason == "cuda:0 is being cleared: a reported a fatal fault of it"
    assert bench.handle(StartWorker("d", "cuda:1", 0, "")) == [Start("d", "cuda:1", 0)]
    bench.handle(Ended("b", "cuda:0", "exit 0"))
    assert bench.handle(StartWorker("c", "cuda:0", 0, "")) == [Start("c", "cuda:0", 0)]


def test_one_fault_that_all_report_is_one() -> None:
    bench = Bench()
    bench.run("a", "b")
    bench.handle(Ended("a", "cuda:0", "exit 71", fault=True))
    assert bench.handle(Ended("b", "cuda:0", "exit 71", fault=True)) == []
    assert bench.handle(StartWorker("c", "cuda:0", 0, "")) == [Start("c", "cuda:0", 0)]
    bench.handle(Started("c", 9))
    assert bench.handle(StartWorker("d", "cuda:0", 0, "")) == [Start("d", "cuda:0", 0)]


def test_on_a_faulty_device_workers_are_not_given_their_drain_time() -> None:
    bench = Bench()
    bench.run("a", "b", "c")
    bench.handle(StopWorker("c", "fewer"))
    bench.handle(Ended("a", "cuda:0", "exit 71", fault=True))
    assert [action for action in bench.wake(FAULT_S) if isinstance(action, Kill)] == [Kill("b"), Kill("c")]


# ---- the end


def test_drain_stops_all_workers_and_ends_when_they_are_gone() -> None:
    bench = Bench()
    bench.run("a", "b")
    bench.handle(StopWorker("b", "fewer"))
    assert bench.handle(Drain("SIGTERM")) == [Stop("a")]
    assert not any(isinstance(action, Leaving) for action in bench.wake())
    bench.handle(Ended("a", "cuda:0", "x"))
    bench.handle(Ended("b", "cuda:0", "y"))
    assert bench.session.next_wake() == -math.inf
    *sends, leaving = bench.wake()
    assert leaving == Leaving("SIGTERM", Exit.OK)
    assert [send.message.worker.reason for send in sends] == ["the agent stops: SIGTERM; x", "fewer; y"]


def test_an_agent_that_drains_says_first_that_it_offers_nothing_any_more() -> None:
    bench = Bench()
    bench.run("a")
    bench.handle(Drain("SIGTERM"))
    join, report = bench.sent()
    assert join.facts["workers_max"] == join.facts["workers_wanted"] == 0
    assert report.worker.state == "stopping"
    assert bench.handle(StartWorker("b", "cuda:0", 0, "")) == []
    assert bench.said()[0].reason == "the agent is stopping"


def test_without_workers_drain_is_the_end() -> None:
    bench = Bench(joined=False)
    bench.handle(Drain("SIGINT"))
    assert bench.wake()[-1] == Leaving("SIGINT", Exit.OK)


def test_a_second_signal_kills_but_its_echo_does_not() -> None:
    bench = Bench()
    bench.run("a", "b")
    bench.handle(Drain("SIGTERM"))
    bench.now += 0.1
    assert bench.handle(Drain("SIGTERM")) == []
    bench.now += 1.0
    assert bench.handle(Drain("SIGTERM")) == [Kill("a"), Kill("b")]
    assert not any(isinstance(action, Leaving) for action in bench.wake(UNKILLABLE_S - 1))
    assert bench.wake(1.0)[-1] == Leaving("SIGTERM", Exit.OK)  # what cannot be killed is not waited for


def test_what_outlives_its_drain_time_is_killed_and_then_not_waited_for() -> None:
    bench = Bench()
    bench.run("a")
    bench.handle(Drain("SIGTERM"))
    assert Kill("a") in bench.wake(DRAIN_S + GRACE_S)
    assert bench.wake(UNKILLABLE_S)[-1] == Leaving("SIGTERM", Exit.OK)


def test_a_final_dismissal_stops_the_workers_and_ends_in_silence() -> None:
    bench = Bench()
    bench.run("a")
    assert bench.handle(Dismiss("another agent", 1)) == [Stop("a")]
    assert bench.wake(60.0) == [Kill("a")]
    bench.handle(Ended("a", "cuda:0", "x"))
    assert bench.wake() == [Leaving("dismissed: another agent", Exit.LOCKED)]


# ---- everything at once

NAMES = st.sampled_from("abcdefg")
DEVICES = st.sampled_from(["cuda:0", "cuda:1", "cuda:2"])
EVENTS = st.one_of(
    st.builds(StartWorker, NAMES, DEVICES, st.integers(0, 120), st.just("")),
    st.builds(StopWorker, NAMES, st.just("r")),
    st.builds(Ended, NAMES, st.just("?"), st.just("x"), st.booleans()),
    st.just(Dismiss("", 0)),
    st.just(Heartbeat(b"two")),
    st.just(WELCOME),
    st.floats(0.0, 50.0),
)


@given(st.lists(EVENTS, max_size=60))
def test_whatever_happens_places_and_shares_are_kept_and_each_end_is_said_once(events: list[Any]) -> None:
    bench = Bench()
    ends = reports = 0
    for event in events:
        if isinstance(event, float):
            reports += sum(w.state == "ended" and w.pid > 0 for w in bench.said(event))
            continue
        if isinstance(event, Ended) and event.name not in bench.session.workers:
            continue
        ends += isinstance(event, Ended)
        for action in bench.handle(event):
            if isinstance(action, Start):
                bench.handle(Started(action.name, 5))
        workers = bench.session.workers.values()
        assert len(workers) <= OFFER.workers_max
        for device in ("cuda:0", "cuda:1"):
            beside = [worker for worker in workers if worker.device == device]
            assert len(beside) <= 3
            assert sum(worker.share for worker in beside) <= 100
    bench.handle(WELCOME)
    reports += sum(w.state == "ended" and w.pid > 0 for w in bench.said(1.0))
    assert ends == reports
