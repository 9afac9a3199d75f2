"""Workers as systemd's units, with a stand-in for systemctl that starts real processes."""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from headway.errors import SettingsError
from headway.messages import StartWorker
from headway.settings import AgentSettings
from headway_worker.agent import processes
from headway_worker.agent.launch import Launch
from headway_worker.agent.orders import Adopted, Ended, Kill, News, Start, Started, Stop
from headway_worker.agent.units import Units
from tests.worker.agent_host import hosting

pytestmark = pytest.mark.system

STANDIN = Path(__file__).with_name("systemctl.py")
WORKER = """#!{python} -SE
import os, signal
if os.environ["HEADWAY_WORKER_NAME"].startswith("stubborn"):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
else:
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
signal.signal(signal.SIGUSR1, lambda *_: os._exit(71))
open(f"{folder}/ready-{{os.getpid()}}", "w").write(os.environ["HEADWAY_WORKER_DEVICE"])
while True:
    signal.pause()
"""

AGENT = """
from functools import partial
from headway_worker.agent import __main__ as door
from headway_worker.agent.units import Units
from tests.worker.agent_host import hosting
door.Units = partial(Units, systemctl={systemctl!r})
door.main()
"""


class Systemd:
    """The stand-in and an agent's side of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.run_dir = folder / "run"
        (folder / "worker").write_text(WORKER.format(python=sys.executable, folder=folder))
        (folder / "worker").chmod(0o755)
        self.systemctl = folder / "systemctl"
        self.systemctl.write_text(f"#!{sys.executable} -SE\n{STANDIN.read_text()}")
        self.systemctl.chmod(0o755)
        self.open()

    def open(self, **how: Any) -> list[News]:
        launch = Launch(AgentSettings(run_dir=self.run_dir, threads=2))
        self.units = Units(launch, systemctl=str(self.systemctl), **how)
        return self.units.open()

    def again(self, **how: Any) -> list[News]:
        """What the agent's next start finds."""
        self.units.close()
        return self.open(**how)

    def hear(self, kind: type[Any], timeout_s: float = 15.0) -> Any:
        until = time.monotonic() + timeout_s
        while True:
            now = time.monotonic()
            assert now < until
            wait_s = max(0.0, min(self.units.next_wake(), until) - now)
            select.select([self.units], [], [], wait_s)
            if news := self.units.look(time.monotonic()):
                assert len(news) == 1 and isinstance(news[0], kind), news
                return news[0]

    def obey(self, order: Any) -> None:
        self.units.obey(order, time.monotonic())

    def start(self, name: str, device: str = "cpu", share: int = 0) -> int:
        self.obey(Start(name, device, share))
        return self.wait_until_ready(self.hear(Started).pid)

    def wait_until_ready(self, pid: int) -> int:
        until = time.monotonic() + 10
        while not (self.folder / f"ready-{pid}").exists():
            assert time.monotonic() < until
            time.sleep(0.01)
        return pid

    def close(self) -> None:
        """However the test went, nothing is left."""
        self.units.close()
        for file in self.folder.glob("restarts-*"):
            file.unlink()
        until = time.monotonic() + 10
        while any(self._end(file) for file in self.folder.glob("*.service.json")):
            assert time.monotonic() < until
            time.sleep(0.05)

    def _end(self, file: Path) -> bool:
        """Ends the unit's worker; whether there was still something to end."""
        state = json.loads(file.read_text())
        if pid := int(state["MainPID"]):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return pid > 0 or state["Job"] != "0" or state["ActiveState"] == "activating"


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[Systemd]:
    systemd = Systemd(tmp_path)
    yield systemd
    systemd.close()


def test_a_unit_is_started_with_its_settings_and_stopped(systemd: Systemd) -> None:
    pid = systemd.start("w1", "cuda:1", 40)
    assert (systemd.folder / f"ready-{pid}").read_text() == "cuda:1"
    said = (systemd.run_dir / "agent/w1.env").read_text()
    for line in ('HEADWAY_WORKER_THREADS="2"', 'HEADWAY_WORKER_CUDA_MPS_SHARE="40"'):
        assert line in said
    systemd.obey(Stop("w1"))
    assert systemd.hear(Ended) == Ended("w1", "cuda:1", "ended well, as systemd says")
    assert list((systemd.run_dir / "agent").iterdir()) == []
    calls = (systemd.folder / "calls").read_text()
    assert "start --no-block headway-worker@w1.service" in calls
    assert "stop --no-block headway-worker@w1.service" in calls


@pytest.mark.parametrize("slow", [False, True])
@pytest.mark.parametrize(
    ("number", "how", "fault"),
    [
        (signal.SIGKILL, "was killed by SIGKILL", False),
        (signal.SIGUSR1, "ended with exit code 71 (DEVICE_FAULT)", True),
    ],
)
def test_how_a_unit_ended_is_said_soon(
    systemd: Systemd, slow: bool, number: int, how: str, fault: bool
) -> None:
    pid = systemd.start("w1")
    if slow:  # systemd has not seen yet what our pidfd says
        (systemd.folder / "slow").touch()
    began = time.monotonic()
    os.kill(pid, number)
    assert systemd.hear(Ended) == Ended("w1", "cpu", how, fault)
    assert time.monotonic() - began < 1.5


def test_a_start_that_systemd_refuses_is_an_end_with_its_words(systemd: Systemd) -> None:
    (systemd.folder / "refuses").write_text("Unit headway-worker@w1.service not found.")
    systemd.obey(Start("w1", "cpu", 0))
    assert systemd.hear(Ended).how == "could not be started: Unit headway-worker@w1.service not found."
    assert list((systemd.run_dir / "agent").iterdir()) == []


def test_without_systemctl_a_start_is_an_end(systemd: Systemd) -> None:
    systemd.systemctl.unlink()
    systemd.obey(Start("w1", "cpu", 0))
    assert "could not be started: " in systemd.hear(Ended).how


def test_a_unit_that_systemd_starts_again_goes_on_with_its_new_pid(systemd: Systemd) -> None:
    (systemd.folder / "restarts-w1").touch()
    pid = systemd.start("w1")
    os.kill(pid, signal.SIGKILL)
    said = systemd.hear(Started)
    assert said.pid != pid
    assert said.reason == "systemd started it again: it was killed by SIGKILL"
    systemd.wait_until_ready(said.pid)
    systemd.obey(Stop("w1"))
    assert systemd.hear(Ended).how == "ended well, as systemd says"


def test_a_unit_that_does_not_stop_is_killed(systemd: Systemd) -> None:
    systemd.start("stubborn")
    systemd.obey(Stop("stubborn"))
    systemd.obey(Kill("stubborn"))
    assert systemd.hear(Ended).how == "was killed by SIGKILL"


def test_another_way_to_end_a_stuck_unit_gets_its_pid(systemd: Systemd) -> None:
    asked = []

    def gently(pid: int, device: str) -> None:
        asked.append((pid, device))
        os.kill(pid, signal.SIGKILL)

    systemd.again(end_stuck=gently)
    pid = systemd.start("stubborn")
    systemd.obey(Kill("stubborn"))
    systemd.hear(Ended)
    assert asked == [(pid, "cpu")]


def test_the_agents_next_start_finds_its_units_and_no_others(systemd: Systemd) -> None:
    first, second, third = (systemd.start(name) for name in ("w1", "w2", "w3"))
    systemd.units.close()
    os.kill(second, signal.SIGKILL)
    until = time.monotonic() + 10
    while '"failed"' not in (systemd.folder / "headway-worker@w2.service.json").read_text():
        assert time.monotonic() < until
        time.sleep(0.02)
    (systemd.run_dir / "agent/w3.env").unlink()  # not ours, then
    assert systemd.open() == [
        Adopted("w1", first, "cpu", 0),
        Ended("w2", "cpu", "ended while the agent was away (was killed by SIGKILL)"),
    ]
    os.kill(first, signal.SIGKILL)
    assert systemd.hear(Ended).how == "was killed by SIGKILL"
    assert processes.start_ticks(third)


def test_without_a_systemd_to_ask_the_agent_does_not_start(systemd: Systemd) -> None:
    systemd.systemctl.write_text("#!/bin/sh\necho 'not booted with systemd' >&2\nexit 1\n")
    with pytest.raises(SettingsError, match="workers_as: systemd does not answer: not booted with systemd"):
        systemd.again()
    systemd.systemctl.unlink()
    with pytest.raises(SettingsError, match=r"workers_as: cannot call .*: No such file"):
        systemd.open()


def test_an_agent_over_units_is_one_like_any_other(tmp_path: Path) -> None:
    with hosting() as host, ExitStack() as callbacks:
        (host.run_dir / "run").symlink_to(host.run_dir)  # where the stand-in looks
        systemd = Systemd(host.run_dir)
        options = ("--workers-as=units", "--devices=cpu", "--places=3")
        callbacks.callback(systemd.close)
        host.start_agent(*options, code=AGENT.format(systemctl=str(systemd.systemctl)))
        for name in ("w1", "w2"):
            host.order(StartWorker(name, "cpu", 0, ""))
        pids = [systemd.wait_until_ready(host.report(name, "running").pid) for name in ("w1", "w2")]
        host.end_agent(signal.SIGKILL)
        host.start_agent(*options, code=AGENT.format(systemctl=str(systemd.systemctl)))
        assert [w.pid for w in host.joins[-1].workers] == pids
        os.kill(pids[0], signal.SIGKILL)
        assert host.report("w1", "ended").reason == "was killed by SIGKILL"
        assert host.end_agent() == 0
        assert processes.start_ticks(pids[1]) is None


def test_nothing_waits_for_systemctl(systemd: Systemd) -> None:
    slow, go = systemd.folder / "slow-systemctl", systemd.folder / "go"
    slow.write_text(f'#!/bin/sh\nuntil [ -e "{go}" ]; do sleep 0.05; done\nexec "{systemd.systemctl}" "$@"\n')
    slow.chmod(0o755)
    systemd.units._systemctl = str(slow)
    systemd.obey(Start("w1", "cpu", 0))
    assert systemd.units.look(time.monotonic()) == []
    go.touch()
    systemd.wait_until_ready(systemd.hear(Started).pid)


def test_values_with_a_meaning_to_systemd_are_kept_as_they_are(systemd: Systemd) -> None:
    launch = Launch(AgentSettings(run_dir=systemd.run_dir, state_dir=Path('/a "b" $c \\d')))
    systemd.units.close()
    systemd.units = Units(launch, systemctl=str(systemd.systemctl))
    systemd.start("w1")
    assert 'STATE_DIR="/a \\"b\\" \\$c \\\\d"\n' in (systemd.run_dir / "agent/w1.env").read_text()
    launch = Launch(AgentSettings(run_dir=systemd.run_dir, state_dir=Path("/a\nb")))
    systemd.units.close()
    systemd.units = Units(launch, systemctl=str(systemd.systemctl))
    systemd.obey(Start("w2", "cpu", 0))
    assert "HEADWAY_WORKER_STATE_DIR has a value" in systemd.hear(Ended).how
