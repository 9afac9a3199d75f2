"""The agent as a process: its socket, its signals, its end. Workers are stand-ins, the broker is the test."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import pytest

from headway.exits import Exit
from headway.messages import Dismiss, Load, StartWorker, StopWorker
from headway_worker.agent import processes
from tests.ear import Ear
from tests.worker.agent_host import AGENT, STANDIN, Host, hosting

pytestmark = pytest.mark.system


@pytest.fixture
def host() -> Iterator[Host]:
    with hosting() as host:
        yield host


def test_it_joins_with_what_the_host_offers(host: Host) -> None:
    host.start_agent("--name=rack7", "--devices=cpu", "--places=3", "--workers-wanted=2")
    join = host.joins[-1]
    assert (join.name, join.host, join.workers) == ("rack7", os.uname().nodename, [])
    assert (join.facts["workers_max"], join.facts["workers_wanted"]) == (3, 2)
    assert [d["device_id"] for d in join.facts["devices"]] == ["cpu"]


def test_systemd_hears_when_it_has_a_broker_and_that_it_lives_and_that_it_stops(host: Host) -> None:
    ear = Ear(host.run_dir / "notify")
    host.environment = ear.environment(watchdog_s=1.0)
    host.stop_broker()
    host.spawn("-c", AGENT.format(standin=STANDIN), "--places=2")
    assert "READY" not in ear.wait_for("EXTEND_TIMEOUT_USEC"), "nobody has welcomed it"
    host.start_broker()
    host.wait_for(lambda: host.joins)
    said = ear.wait_for("READY=1")
    assert "joined, 0 of 2 workers" in said
    ear.wait_for("WATCHDOG=1", count=3)
    host.start("w1")
    ear.wait_for("joined, 1 of 2 workers")
    assert host.end_agent() == 0
    ear.wait_for("STOPPING=1")
    ear.close()


def test_it_starts_and_stops_workers(host: Host) -> None:
    host.start_agent("--places=2", "--threads=3", "--share=0", "--log-level=warning")
    (pid,) = host.start("w1")
    assert os.getpgid(pid) == pid
    said = (host.run_dir / "options-w1").read_text()
    for option in ("'device': 'cpu'", "'threads': '3'", "'log-level': 'warning'", "'name': 'w1'"):
        assert option in said
    assert "share" not in said
    assert host.stop("w1").reason == "the test is done with it; ended with exit code 0 (OK)"
    assert host.processes() == []


def test_a_killed_worker_is_reported_within_a_second_with_the_reason(host: Host) -> None:
    host.start_agent("--places=2")
    pid, _ = host.start("w1", "w2")
    killed = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    assert host.report("w1", "ended").reason == "was killed by SIGKILL"
    assert time.monotonic() - killed < 1.0
    assert host.reports[-1].pid == pid


def test_what_cannot_be_is_refused_with_the_reason_and_the_rest_goes_on(host: Host) -> None:
    host.start_agent("--devices=cpu", "--places=1")
    host.order(StartWorker("w1", "cuda:0", 0, ""))
    assert "is not offered by this host" in host.report("w1", "ended").reason
    host.order(StartWorker("../w1", "cpu", 0, ""))
    assert "is no worker's name" in host.report("../w1", "ended").reason
    host.order(StartWorker("w1", "cpu", 101, ""))
    host.order(Load("m", "1", "/"))  # not for agents
    host.start("w2")
    host.order(StartWorker("w3", "cpu", 0, ""))
    assert host.report("w3", "ended").reason == "this host has 1 workers and may have 1"


def test_a_flood_of_orders_is_answered_without_waiting_for_the_next_heartbeat(host: Host) -> None:
    host.heartbeat_ms = 120_000
    host.start_agent("--devices=cpu", "--log-level=warning")
    for _ in range(5000):
        host.order(StopWorker("nobody", ""))
    host.wait_for(lambda: len(host.reports) == 5000)


def test_when_the_broker_starts_anew_the_workers_live_on_and_it_joins_with_them(host: Host) -> None:
    host.start_agent("--places=2")
    pid, other = host.start("w1", "w2")
    host.stop_broker()
    os.kill(other, signal.SIGKILL)
    host.start_broker()
    before = len(host.joins)
    host.wait_for(lambda: len(host.joins) > before)
    assert [(w.name, w.pid) for w in host.joins[-1].workers] == [("w1", pid)]
    assert host.report("w2", "ended").reason == "was killed by SIGKILL"


def test_sigterm_stops_all_workers_and_then_the_agent(host: Host) -> None:
    host.start_agent("--places=3")
    host.start("w1", "w2", "parent")
    child = host.child_of("parent")
    assert host.end_agent(signal.SIGTERM) == Exit.OK
    host.hear()
    assert host.joins[-1].facts["workers_max"] == 0
    ended = {w.name for w in host.reports if w.state == "ended"}
    assert ended == {"w1", "w2", "parent"}
    host.wait_for(lambda: processes.start_ticks(child) is None)


def test_a_second_sigterm_ends_what_does_not_stop(host: Host) -> None:
    agent = host.start_agent("--places=2")
    host.start("stubborn")
    agent.send_signal(signal.SIGTERM)
    host.report("stubborn", "stopping")
    time.sleep(0.6)  # longer than an echo of the first
    assert host.end_agent(signal.SIGTERM) == Exit.OK
    assert host.processes() == []


def test_a_worker_that_does_not_stop_in_its_time_is_killed(host: Host) -> None:
    host.start_agent("--places=2", "--drain-s=0", code=_with("session.GRACE_S = 0.3"))
    host.start("stubborn")
    assert host.stop("stubborn").reason == "the test is done with it; was killed by SIGKILL"


def test_a_final_dismissal_ends_the_agent_and_its_workers(host: Host) -> None:
    agent = host.start_agent("--places=2")
    host.start("w1")
    host.order(Dismiss("another agent serves this host", 1))
    assert agent.wait(10) == Exit.LOCKED
    assert host.processes() == []


def test_a_second_agent_in_the_same_run_directory_ends(host: Host) -> None:
    host.start_agent("--places=2")
    second = host.spawn("-m", "headway_worker.agent")
    assert second.wait(20) == Exit.LOCKED
    host.agents.remove(second)
    host.start("w1")


def test_a_fatal_fault_has_the_devices_other_workers_stopped(host: Host) -> None:
    host.start_agent("--devices=cuda:0,cuda:1", "--places=2")
    pid, _ = host.start("w1", "w2", device="cuda:0")
    host.start("w3", device="cuda:1")
    os.kill(pid, signal.SIGUSR1)
    assert host.report("w1", "ended").reason == "ended with exit code 71 (DEVICE_FAULT)"
    why = "restarted: w1 reported a fatal fault of cuda:0"
    assert host.report("w2", "ended").reason == f"{why}; ended with exit code 0 (OK)"
    assert host.report("w3", "running")


def test_bad_settings_end_with_config(host: Host) -> None:
    for options in (["--share=60", "--places=2"], ["--devices=gpu7"], ["--workers-as=pods"], ["--share=101"]):
        assert host.spawn("-m", "headway_worker.agent", *options).wait(20) == Exit.CONFIG


def _with(line: str) -> str:
    return AGENT.format(standin=STANDIN).replace(
        "door.main()", f"from headway_worker.agent import session\n{line}\ndoor.main()"
    )
