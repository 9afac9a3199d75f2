"""A real supervisor over real children, seen from outside."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

SUPERVISOR = """
import json, sys
from headway.cli.restarts import Backoff
from headway.cli.supervisor import Command, Supervisor

ranks = [[Command(**command) for command in rank] for rank in json.loads(sys.argv[1])]
with Supervisor(ranks, lambda line: print(line, flush=True), Backoff(0.05, 0.1, 30)) as supervisor:
    code = supervisor.run()
sys.exit(code)
"""

# Notes what happens to it in the file `events`. argv: folder, name, seconds to stop, exit code, own child?
CHILD = """
import os, signal, sys, time

folder, name, wait_s, code, forks = sys.argv[1], sys.argv[2], *map(float, sys.argv[3:])

def note(event, of=name):
    fd = os.open(folder + "/events", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(fd, f"{of} {event} {os.getpid()} {os.getpgid(0)}\\n".encode())

def stop(*_):
    note("told")
    time.sleep(wait_s)
    note("stopped")
    os._exit(0)

signal.signal(signal.SIGTERM, stop)
if forks and not os.fork():
    note("started", name + "-child")
    signal.pause()
note("started")
if code:
    sys.exit(int(code))
while True:
    signal.pause()
"""


class Family:
    """A supervisor and its children."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lines: queue.Queue[str] = queue.Queue()
        self.said: list[str] = []

    def command(
        self, name: str, wait_s: float = 0, code: int = 0, forks: bool = False, stop_s: float = 10
    ) -> dict[str, object]:
        own = [str(self._folder), name, str(wait_s), str(code), str(int(forks))]
        return {"name": name, "arguments": [sys.executable, "-ISc", CHILD, *own], "stop_s": stop_s}

    def start(self, *ranks: list[dict[str, object]]) -> Family:
        self.process = subprocess.Popen(
            [sys.executable, "-c", SUPERVISOR, json.dumps(ranks)], stdout=subprocess.PIPE, text=True
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        return self

    def _read(self) -> None:
        assert self.process.stdout
        with self.process.stdout as lines:
            for line in lines:
                self._lines.put(line.strip())

    def hear(self, text: str) -> str:
        """The next line with `text` in it that the supervisor says."""
        while text not in (line := self._lines.get(timeout=20)):
            self.said.append(line)
        self.said.append(line)
        return line

    def events(self, event: str) -> list[tuple[str, int, int]]:
        """What happened so far: (name, process, process group), in order."""
        path = self._folder / "events"
        lines = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
        return [(name, int(pid), int(group)) for name, what, pid, group in lines if what == event]

    def started(self, count: int) -> list[tuple[str, int, int]]:
        """Wait until so many processes started."""
        until(lambda: len(self.events("started")) >= count)
        return self.events("started")

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def end(self) -> int:
        code = self.process.wait(20)
        self._reader.join()
        return code

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for _, pid, _ in self.events("started"):
            if alive(pid):
                os.kill(pid, signal.SIGKILL)
        self._reader.join()

    def nothing_is_left(self) -> bool:
        return not any(alive(pid) for _, pid, _ in self.events("started"))


def alive(pid: int) -> bool:
    """Runs, and is not just waiting to be reaped by somebody."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def until(true: Callable[[], bool], timeout_s: float = 20) -> None:
    give_up = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < give_up
        time.sleep(0.01)


@pytest.fixture
def family(tmp_path: Path) -> Iterator[Family]:
    family = Family(tmp_path)
    yield family
    family.close()


def test_a_killed_child_is_started_again_with_a_named_reason(family: Family) -> None:
    family.start([family.command("w1")])
    [(_, pid, _)] = family.started(1)
    os.kill(pid, signal.SIGKILL)
    assert family.hear("w1") == "w1 was killed by SIGKILL; starting it again in 0.05 s"
    assert len({pid for _, pid, _ in family.started(2)}) == 2


def test_a_child_that_keeps_failing_is_started_ever_more_slowly(family: Family) -> None:
    family.start([family.command("w1", code=70)])
    assert family.hear("w1") == "w1 ended with exit code 70 (STUCK); starting it again in 0.05 s"
    assert family.hear("w1").endswith("in 0.1 s")
    assert family.hear("w1").endswith("in 0.1 s")


@pytest.mark.parametrize(("code", "name"), [(78, "CONFIG"), (73, "LOCKED"), (2, "USAGE")])
def test_an_exit_code_that_no_restart_can_help_stops_everything(family: Family, code: int, name: str) -> None:
    family.start([family.command("broker", code=code)], [family.command("w0"), family.command("w1")])
    assert family.hear("broker") == f"broker ended with exit code {code} ({name})"
    assert family.end() == code
    assert family.nothing_is_left()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_the_ranks_one_after_the_other_last_first(family: Family, number: int) -> None:
    w0, w1 = family.command("w0", wait_s=0.1), family.command("w1", wait_s=0.1)
    family.start([family.command("broker")], [w0, w1], [family.command("gateway", wait_s=0.2)])
    family.started(4)
    family.signal(number)
    assert family.end() == 0
    assert family.nothing_is_left()
    lines = (family._folder / "events").read_text().splitlines()
    order = [" ".join(line.split()[:2]) for line in lines if "started" not in line]
    assert order[:2] == ["gateway told", "gateway stopped"]
    assert set(order[2:4]) == {"w0 told", "w1 told"}
    assert set(order[4:6]) == {"w0 stopped", "w1 stopped"}
    assert order[6:] == ["broker told", "broker stopped"]


def test_a_child_that_does_not_stop_in_its_time_is_killed_by_name(family: Family) -> None:
    family.start([family.command("broker")], [family.command("w0", wait_s=60, stop_s=0.2)])
    family.started(2)
    family.signal(signal.SIGTERM)
    assert family.hear("w0") == "w0 did not stop within 0.2 s: killing it"
    assert family.end() == 0
    assert family.nothing_is_left()
    assert [name for name, *_ in family.events("stopped")] == ["broker"]


def test_a_second_ctrl_c_kills_at_once(family: Family) -> None:
    family.start([family.command("w0", wait_s=60, stop_s=60)])
    family.started(1)
    family.signal(signal.SIGINT)
    family.hear("stopping")
    time.sleep(0.6)
    family.signal(signal.SIGINT)
    family.hear("killing what is left")
    assert family.end() == 0
    assert family.nothing_is_left()


def test_a_ctrl_c_that_arrives_twice_at_once_is_one(family: Family) -> None:
    family.start([family.command("w0", wait_s=0.2)])
    family.started(1)
    family.signal(signal.SIGINT)
    family.hear("stopping")
    family.signal(signal.SIGINT)
    assert family.end() == 0
    assert family.events("stopped")


def test_children_end_when_the_supervisor_is_killed(family: Family) -> None:
    family.start([family.command("broker")], [family.command("w0"), family.command("w1")])
    family.started(3)
    family.signal(signal.SIGKILL)
    until(family.nothing_is_left)
    assert sorted(name for name, *_ in family.events("stopped")) == ["broker", "w0", "w1"]


def test_the_terminals_ctrl_c_reaches_only_the_supervisor(family: Family) -> None:
    family.start([family.command("w0")])
    [(_, pid, group)] = family.started(1)
    assert group == pid


def test_what_a_killed_child_leaves_behind_is_killed(family: Family) -> None:
    family.start([family.command("gateway", forks=True)])
    pids = {name: pid for name, pid, _ in family.started(2)}
    os.kill(pids["gateway"], signal.SIGKILL)
    until(lambda: not alive(pids["gateway-child"]))
