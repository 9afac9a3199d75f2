"""The host agent with real workers; the broker is played by the test."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from headway.exits import Exit
from headway.messages import StartWorker
from headway_worker.agent import processes
from tests.worker.agent_host import Host, hosting

pytestmark = pytest.mark.system

JOIN_S = 60.0  # importing torch takes seconds on a busy machine


@pytest.fixture
def host() -> Iterator[Host]:
    with hosting() as host:
        yield host


def start_agent(host: Host, *options: str) -> None:
    before = len(host.joins)
    host.spawn("-m", "headway_worker.agent", "--devices=cpu", "--places=2", "--threads=1", *options)
    host.wait_for(lambda: len(host.joins) > before)


def start_worker(host: Host, name: str) -> int:
    """A worker that has joined the broker by itself."""
    host.order(StartWorker(name, "cpu", 0, "the test wants it"))
    pid = host.report(name, "running").pid
    host.wait_for(lambda: name in host.workers.values(), JOIN_S)
    return pid


def test_a_real_worker_is_started_adopted_and_stopped(host: Host) -> None:
    start_agent(host)
    pid = start_worker(host, "w1")
    assert host.end_agent(signal.SIGKILL) == -signal.SIGKILL
    start_agent(host)
    assert [(w.name, w.pid) for w in host.joins[-1].workers] == [("w1", pid)]
    assert host.stop("w1").pid == pid
    other = start_worker(host, "w2")
    began = time.monotonic()
    os.kill(other, signal.SIGKILL)
    assert host.report("w2", "ended").reason == "was killed by SIGKILL"
    assert time.monotonic() - began < 1.0


def test_a_worker_whose_agent_stays_away_ends_by_itself(host: Host) -> None:
    start_agent(host, "--orphan-s=1")
    pid = start_worker(host, "w1")
    time.sleep(1.5)
    assert processes.start_ticks(pid)  # as long as the agent lives, so does the worker
    host.end_agent(signal.SIGKILL)
    began = time.monotonic()
    host.wait_for(lambda: not host.processes())
    assert 0.5 < time.monotonic() - began < 5.0


def test_sigterm_ends_agent_and_workers(host: Host) -> None:
    start_agent(host)
    start_worker(host, "w1")
    assert host.end_agent(signal.SIGTERM) == Exit.OK
    assert host.report("w1", "ended").reason.endswith("ended with exit code 0 (OK)")
    assert not host.processes()


def test_the_agent_runs_without_torch(host: Host) -> None:
    start_agent(host)
    assert "torch" not in Path(f"/proc/{host.agents[-1].pid}/maps").read_text()
