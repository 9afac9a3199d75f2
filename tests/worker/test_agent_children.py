"""Workers as children of the agent: they outlive it, are found again, and are never left to themselves."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from headway.messages import StartWorker
from headway.settings import AgentSettings
from headway_worker.agent import children, processes
from headway_worker.agent.children import Children
from headway_worker.agent.launch import Launch
from headway_worker.agent.memory import Memory
from headway_worker.agent.orders import Adopted, Ended, Kill, News, Start, Started, Stop
from headway_worker.agent.processes import Mark
from headway_worker.agent.records import Record, Records
from tests.worker.agent_host import STANDIN, Host, hosting

pytestmark = pytest.mark.system

COMMAND = [sys.executable, "-S", "-E", "-c", STANDIN]


@pytest.fixture
def host() -> Iterator[Host]:
    with hosting() as host:
        yield host


class Crew:
    """`Children` without an agent around them. `again` is what an agent's next start would make."""

    def __init__(self, run_dir: Path, **how: Any) -> None:
        self.run_dir = run_dir
        self.how = {"command": COMMAND, **how}
        self.open()

    def again(self) -> list[News]:
        self.children.close()
        return self.open()

    def open(self) -> list[News]:
        self.children = Children(Launch(AgentSettings(run_dir=self.run_dir)), **self.how)
        return self.children.open()

    def hear(self, kind: type[Any]) -> Any:
        """The next news, which is of that kind."""
        assert select.select([self.children], [], [], 10.0)[0]
        (news,) = self.children.look(0.0)
        assert isinstance(news, kind), news
        return news

    def start(self, name: str) -> int:
        self.children.obey(Start(name, "cpu", 0), 0.0)
        pid: int = self.hear(Started).pid
        until = time.monotonic() + 10
        while not (self.run_dir / f"ready-{name}-{pid}").exists():
            assert time.monotonic() < until
            time.sleep(0.01)
        return pid


@pytest.fixture
def crew(tmp_path: Path) -> Iterator[Crew]:
    crew = Crew(tmp_path)
    yield crew
    for process in processes.marked(tmp_path):
        os.kill(process.pid, signal.SIGKILL)
    crew.children.close()


# ---- an agent that is killed


def test_workers_of_a_killed_agent_live_on_and_the_next_one_has_them_again(host: Host) -> None:
    host.start_agent("--places=3")
    pids = host.start("w1", "w2")
    assert host.end_agent(signal.SIGKILL) == -signal.SIGKILL
    assert set(host.processes()) == set(pids)
    host.start_agent("--places=3")
    assert [(w.name, w.pid, w.state) for w in host.joins[-1].workers] == [
        ("w1", pids[0], "running"),
        ("w2", pids[1], "running"),
    ]
    assert host.stop("w1").reason.startswith("the test is done with it; ended; how is not known")
    assert host.processes() == [pids[1]]
    os.kill(pids[1], signal.SIGKILL)
    assert host.report("w2", "ended").reason.startswith("ended; how is not known")


def test_what_ended_while_the_agent_was_away_is_reported_by_the_next_one(host: Host) -> None:
    host.start_agent("--places=3")
    pid, parent = host.start("w1", "parent")
    child = host.child_of("parent")
    host.end_agent(signal.SIGKILL)
    os.kill(pid, signal.SIGKILL)
    os.kill(parent, signal.SIGKILL)
    host.wait_for(lambda: set(host.processes()) == {child})
    host.start_agent("--places=3")
    assert host.joins[-1].workers == []
    assert host.report("w1", "ended").reason == "ended while the agent was away"
    assert host.report("parent", "ended").reason == "ended while the agent was away"
    host.wait_for(lambda: not host.processes())  # what the worker had started is gone with it
    host.start("w1")


def test_an_adopted_worker_takes_its_children_with_it(host: Host) -> None:
    host.start_agent("--places=3")
    host.start("parent")
    host.child_of("parent")
    host.end_agent(signal.SIGKILL)
    host.start_agent("--places=3")
    host.stop("parent")
    host.wait_for(lambda: not host.processes())


def test_workers_of_another_run_directory_are_none_of_its_business(host: Host) -> None:
    with hosting() as other:
        other.start_agent("--places=3")
        other.start("w1")
        host.start_agent("--places=3")
        assert host.joins[-1].workers == []


@pytest.mark.parametrize("after_ms", [0, 4, 8, 16, 32])
def test_an_agent_that_dies_in_the_middle_of_a_scale_up_leaves_nobody_unknown(
    host: Host, after_ms: int
) -> None:
    names = [f"w{i}" for i in range(12)]
    host.start_agent("--places=12")
    for name in names:
        host.order(StartWorker(name, "cpu", 0, "more"))
    time.sleep(after_ms / 1000)
    host.end_agent(signal.SIGKILL)
    host.start_agent("--places=12")
    adopted = {w.name: w.pid for w in host.joins[-1].workers}
    assert sorted(adopted.values()) == sorted(host.processes())
    for name in set(names) - set(adopted):
        host.order(StartWorker(name, "cpu", 0, "again"))
    host.wait_for(lambda: len(host.processes()) == 12)
    assert host.end_agent() == 0


# ---- a crash between the record and the process


def test_before_a_worker_is_started_it_is_written_down(crew: Crew, monkeypatch: pytest.MonkeyPatch) -> None:
    def dies(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(children, "Child", dies)
    with pytest.raises(KeyboardInterrupt):
        crew.children.obey(Start("w1", "cpu", 0), 0.0)
    assert [(r.name, r.pid) for r in Records(crew.run_dir / "agent").read()] == [("w1", 0)]


def test_a_worker_whose_pid_was_not_written_down_is_found_by_its_environment(crew: Crew) -> None:
    pid = crew.start("w1")
    Records(crew.run_dir / "agent").write(Record("w1", "cpu", 0, processes.boot_id()))  # as before its start
    assert crew.again() == [Adopted("w1", pid, "cpu", 0)]
    assert json.loads((crew.run_dir / "agent/w1.json").read_text())["pid"] == pid


@pytest.mark.parametrize("damage", ["", "{", '{"name": 7}', '{"pid": "x"}', "[]"])
def test_a_worker_whose_record_is_damaged_is_found_by_its_environment(crew: Crew, damage: str) -> None:
    pid = crew.start("w1")
    (crew.run_dir / "agent/w1.json").write_text(damage)
    assert crew.again() == [Adopted("w1", pid, "cpu", 0)]


def test_of_a_family_the_worker_is_found_and_not_its_child(crew: Crew) -> None:
    pid = crew.start("parent")
    (crew.run_dir / "agent/parent.json").unlink()
    assert crew.again() == [Adopted("parent", pid, "cpu", 0)]


def test_a_child_of_a_worker_that_is_gone_is_ended_and_not_taken_for_it(crew: Crew) -> None:
    pid = crew.start("parent")
    file = crew.run_dir / "child-of-parent"
    until = time.monotonic() + 10
    while not (file.exists() and file.read_text()):
        assert time.monotonic() < until
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    (crew.run_dir / "agent/parent.json").unlink()
    assert crew.again() == []
    while processes.start_ticks(int(file.read_text())):
        assert time.monotonic() < until
        time.sleep(0.01)


def test_a_start_that_never_happened_has_ended(crew: Crew) -> None:
    Records(crew.run_dir / "agent").write(Record("w1", "cpu", 0, processes.boot_id()))
    assert crew.again() == [Ended("w1", "cpu", "was not started: the agent ended before it could")]
    assert crew.again() == []


def test_a_record_of_an_earlier_boot_or_of_somebody_elses_pid_adopts_nobody(crew: Crew) -> None:
    ticks = processes.start_ticks(os.getpid()) or 0
    records = Records(crew.run_dir / "agent")
    records.write(Record("w1", "cpu", 0, "another boot", os.getpid(), ticks))
    records.write(Record("w2", "cpu", 0, processes.boot_id(), os.getpid(), ticks - 1))
    assert crew.again() == [
        Ended("w1", "cpu", "ended when the machine was started anew"),
        Ended("w2", "cpu", "ended while the agent was away"),
    ]


# ---- starting and ending


def test_a_worker_inherits_the_environment_but_not_what_systemd_tells_the_agent(
    crew: Crew, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/x")
    monkeypatch.setenv("WATCHDOG_USEC", "1")
    monkeypatch.setenv("SOMETHING_ELSE", "kept")
    said = Path(f"/proc/{crew.start('w1')}/environ").read_bytes().split(b"\0")
    assert b"SOMETHING_ELSE=kept" in said
    assert b"CUDA_DEVICE_ORDER=PCI_BUS_ID" in said
    assert not [line for line in said if line.startswith((b"NOTIFY_SOCKET", b"WATCHDOG"))]


def test_many_workers_come_and_go_and_leave_no_descriptor(crew: Crew) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for i in range(10):
        os.kill(crew.start(f"w{i}"), signal.SIGKILL)
        crew.hear(Ended)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_command_that_is_not_there_is_an_end_with_the_reason(tmp_path: Path) -> None:
    crew = Crew(tmp_path, command=[str(tmp_path / "nothing")])
    crew.children.obey(Start("w1", "cpu", 0), 0.0)
    assert "could not be started: " in crew.hear(Ended).how
    assert list((tmp_path / "agent").iterdir()) == []
    crew.children.close()


@pytest.mark.parametrize(
    ("name", "number", "how", "fault"),
    [
        ("w1", signal.SIGTERM, "ended with exit code 0 (OK)", False),
        ("w1", signal.SIGKILL, "was killed by SIGKILL", False),
        ("w1", signal.SIGSEGV, "was killed by SIGSEGV", False),
        ("w1", signal.SIGUSR1, "ended with exit code 71 (DEVICE_FAULT)", True),
    ],
)
def test_how_a_worker_ended_is_said(crew: Crew, name: str, number: int, how: str, fault: bool) -> None:
    os.kill(crew.start(name), number)
    assert crew.hear(Ended) == Ended(name, "cpu", how, fault)
    assert list((crew.run_dir / "agent").iterdir()) == []


def test_one_that_ends_at_once_is_heard_of(crew: Crew) -> None:
    crew.children.obey(Start("brief", "cpu", 0), 0.0)
    crew.hear(Started)
    assert crew.hear(Ended).how == "ended with exit code 3"


def test_a_worker_without_ears_is_killed_with_its_family(crew: Crew) -> None:
    crew.start("stubborn")
    crew.children.obey(Stop("stubborn"), 0.0)
    assert crew.children.look(0.0) == []
    crew.children.obey(Kill("stubborn"), 0.0)
    assert crew.hear(Ended).how == "was killed by SIGKILL"


def test_another_way_to_end_a_stuck_worker_may_take_its_time(tmp_path: Path) -> None:
    asked = []
    goes_on = threading.Event()

    def gently(pid: int, device: str) -> None:
        asked.append((pid, device))
        goes_on.wait()
        os.kill(pid, signal.SIGKILL)

    crew = Crew(tmp_path, end_stuck=gently)
    pid = crew.start("stubborn")
    crew.children.obey(Kill("stubborn"), 0.0)
    goes_on.set()  # only now, when the loop goes on
    assert crew.hear(Ended).how == "was killed by SIGKILL"
    assert asked == [(pid, "cpu")]
    crew.children.close()


def test_a_worker_that_memory_ran_out_for_says_so(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    vmstat = tmp_path / "proc/vmstat"
    vmstat.write_text("nr_free_pages 1\noom_kill 3\n")
    crew = Crew(tmp_path, memory=Memory(tmp_path))
    first, second = crew.start("w1"), crew.start("w2")
    os.kill(first, signal.SIGKILL)
    assert crew.hear(Ended).how == "was killed by SIGKILL"
    vmstat.write_text("nr_free_pages 1\noom_kill 4\n")
    os.kill(second, signal.SIGKILL)
    assert crew.hear(Ended).how.startswith("was killed by SIGKILL (out of memory, probably: ")
    crew.children.close()


def test_a_process_that_only_looks_like_one_of_ours_is_left_alone(crew: Crew) -> None:
    mark = Mark("/somewhere/else", "w1", "cpu", 0).text()
    for text in (mark, "{", "[1, 2]", "7"):
        environment = {**os.environ, processes.VARIABLE: text}
        other = subprocess.Popen(["sleep", "60"], env=environment, process_group=0)
        assert crew.again() == []
        other.kill()
        other.wait()
