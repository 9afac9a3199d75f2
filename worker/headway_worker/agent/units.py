"""Workers as units of systemd, `headway-worker@NAME.service`, which the agent starts, stops and watches.

Knows: systemctl, pidfds, a unit's properties. Must not know: the broker, which workers are wanted.

Before a unit is started the agent writes NAME.env for it, with the worker's settings; a unit for which
there is no such file is not the agent's, and left alone. The worker's end is heard from a pidfd of its main
process; how it ended, and whether systemd starts it again, systemd is then asked. Calls of systemctl are
processes whose end is waited for in the same place, so that nothing blocks; only `open` waits for an answer.
"""

from __future__ import annotations

import math
import os
import select
import subprocess
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from headway import logs
from headway.errors import SettingsError
from headway_worker.agent import unit_state
from headway_worker.agent.children import EndStuck
from headway_worker.agent.launch import Launch
from headway_worker.agent.orders import Adopted, Ended, Kill, News, Order, Start, Started, Stop

PREFIX, SUFFIX = "headway-worker@", ".service"
OPEN_TIMEOUT_S = 10.0
ASK_AGAIN_S = 0.2  # while systemd is about to do something
SAID_BYTES_MAX = 1 << 16

_log = logs.get("headway.agent")


@dataclass
class _Unit:
    """A worker's unit. `pid` 0: no main process now; `pidfd` -1 then. `ask_at`: when to ask systemd next."""

    name: str
    device: str
    share: int
    pid: int = 0
    pidfd: int = -1
    ask_at: float = math.inf
    was_up: bool = False
    how: str = ""


@dataclass(frozen=True)
class _Call:
    """A systemctl that runs. `done` gets its exit code and what it printed."""

    process: subprocess.Popen[bytes]
    done: Callable[[int, str], None]


class Units:
    """`systemctl` is the program to call."""

    def __init__(
        self, launch: Launch, end_stuck: EndStuck | None = None, systemctl: str = "systemctl"
    ) -> None:
        self._launch = launch
        self._end_stuck = end_stuck
        self._systemctl = systemctl
        self._units: dict[str, _Unit] = {}
        self._by_pidfd: dict[int, _Unit] = {}
        self._calls: dict[int, _Call] = {}
        self._news: list[News] = []
        self._now = 0.0
        self._epoll = select.epoll()

    def open(self) -> list[News]:
        """Raises: SettingsError when there is no systemd to ask."""
        known = self._show_all()
        for file in sorted(self._launch.folder.glob("*.env")):
            self._find(file, known.get(file.stem, {}))
        news, self._news = self._news, []
        return news

    def fileno(self) -> int:
        return self._epoll.fileno()

    def next_wake(self) -> float:
        return -math.inf if self._news else min((u.ask_at for u in self._units.values()), default=math.inf)

    def look(self, now: float) -> list[News]:
        self._now = now
        for descriptor, _ in self._epoll.poll(0):
            if descriptor in self._calls:
                self._finish(descriptor)
            else:
                self._main_process_ended(self._by_pidfd[descriptor])
        for unit in list(self._units.values()):
            if now >= unit.ask_at:
                self._ask(unit)
        news, self._news = self._news, []
        return news

    def obey(self, order: Order, now: float) -> None:
        self._now = now
        match order:
            case Start():
                self._start(order)
            case Stop(name=name):
                self._call(lambda code, said: self._asked(name), "stop", "--no-block", _unit(name))
            case Kill(name=name):
                self._kill(name)

    def close(self) -> None:
        for call in self._calls.values():
            call.process.wait()  # a stop that systemd has not been told of would be lost
            _close_output(call.process)
        for descriptor in (*self._calls, *self._by_pidfd):
            os.close(descriptor)
        self._epoll.close()

    # ---- orders ----

    def _start(self, order: Start) -> None:
        self._units[order.name] = unit = _Unit(order.name, order.device, order.share)
        try:
            self._write(order)
        except (OSError, ValueError) as error:
            self._gone(unit, f"could not be started: {error}")
            return
        self._call(
            lambda code, said: self._start_asked(unit, code, said), "start", "--no-block", _unit(order.name)
        )

    def _start_asked(self, unit: _Unit, code: int, said: str) -> None:
        if self._units.get(unit.name) is not unit:
            return
        if code:
            self._gone(unit, f"could not be started: {said.strip() or f'systemctl ended with {code}'}")
        else:
            self._ask(unit)

    def _asked(self, name: str) -> None:
        if unit := self._units.get(name):
            self._ask(unit)

    def _kill(self, name: str) -> None:
        unit = self._units.get(name)
        if unit is None:
            return
        _log.warning("worker does not end by itself", worker=name, pid=unit.pid)
        if self._end_stuck is None or not unit.pid:
            self._call(lambda code, said: None, "kill", "--signal=SIGKILL", _unit(name))
        else:
            threading.Thread(target=self._end_stuck, args=(unit.pid, unit.device), daemon=True).start()

    def _write(self, order: Start) -> None:
        said = unit_state.environment_file(self._launch.unit_variables(order))
        self._launch.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        part = self._file(order.name).with_suffix(".part")
        part.write_text(f"# {order.share} {order.device}\n{said}")
        part.replace(self._file(order.name))

    # ---- what became of them ----

    def _ask(self, unit: _Unit) -> None:
        unit.ask_at = math.inf
        self._call(
            lambda code, said: self._told(unit, code, said),
            "show",
            f"--property={unit_state.PROPERTIES}",
            _unit(unit.name),
        )

    def _told(self, unit: _Unit, code: int, said: str) -> None:
        if self._units.get(unit.name) is not unit:
            return
        found = unit_state.parse(said)
        if code or "ActiveState" not in found:
            _log.warning("systemd does not answer", unit=_unit(unit.name), said=said.strip())
            unit.ask_at = self._now + 5 * ASK_AGAIN_S
        elif unit_state.is_over(found):
            self._gone(unit, unit_state.how(found, unit.was_up), unit_state.is_fault(found))
        else:
            self._watch(unit, found)

    def _watch(self, unit: _Unit, found: unit_state.Properties) -> None:
        """The unit is there, or about to be."""
        pid = unit_state.main_pid(found)
        if pid and pid != unit.pid:
            if self._attach(unit, pid):
                reason = f"systemd started it again: it {unit.how}" if unit.was_up else ""
                unit.was_up, unit.how = True, "ended"
                self._news.append(Started(unit.name, pid, reason))
                return
        elif not pid and found.get("ExecMainCode", "0") != "0":
            unit.how = unit_state.how(found)
        if unit.pidfd < 0:
            unit.ask_at = self._now + ASK_AGAIN_S

    def _attach(self, unit: _Unit, pid: int) -> bool:
        try:
            descriptor = os.pidfd_open(pid)
        except OSError:  # gone already: systemd will say
            return False
        self._detach(unit)
        unit.pid, unit.pidfd = pid, descriptor
        self._by_pidfd[descriptor] = unit
        self._epoll.register(descriptor, select.EPOLLIN)
        return True

    def _detach(self, unit: _Unit) -> None:
        if unit.pidfd >= 0:
            del self._by_pidfd[unit.pidfd]
            self._epoll.unregister(unit.pidfd)
            os.close(unit.pidfd)
            unit.pidfd = -1

    def _main_process_ended(self, unit: _Unit) -> None:
        self._detach(unit)
        self._ask(unit)

    def _gone(self, unit: _Unit, how: str, fault: bool = False) -> None:
        self._detach(unit)
        self._units.pop(unit.name, None)
        self._file(unit.name).unlink(missing_ok=True)
        self._news.append(Ended(unit.name, unit.device, how, fault))

    # ---- finding again ----

    def _show_all(self) -> dict[str, unit_state.Properties]:
        """The units that systemd knows, by the worker's name."""
        arguments = [self._systemctl, "show", f"--property={unit_state.PROPERTIES}", f"{PREFIX}*{SUFFIX}"]
        try:
            said = subprocess.run(
                arguments, capture_output=True, text=True, timeout=OPEN_TIMEOUT_S, check=False
            )
        except OSError as error:
            raise SettingsError(f"workers_as: cannot call {self._systemctl}: {error.strerror}") from None
        if said.returncode:
            raise SettingsError(f"workers_as: systemd does not answer: {said.stderr.strip()}")
        found = [unit_state.parse(part) for part in said.stdout.split("\n\n")]
        names = [p.get("Id", "").removeprefix(PREFIX).removesuffix(SUFFIX) for p in found]
        return {name: properties for name, properties in zip(names, found, strict=True) if name}

    def _find(self, file: Path, found: unit_state.Properties) -> None:
        _, share, device = [*file.read_text().partition("\n")[0].split(" ", 2), "", ""][:3]
        unit = _Unit(file.stem, device, int(share) if share.isdecimal() else 0)
        self._units[unit.name] = unit
        if not found or unit_state.is_over(found):
            how = f" ({unit_state.how(found)})" if found.get("ExecMainCode", "0") != "0" else ""
            self._gone(unit, f"ended while the agent was away{how}")
            return
        unit.was_up, unit.how = True, "ended"
        self._news.append(Adopted(unit.name, unit_state.main_pid(found), unit.device, unit.share))
        if not self._attach(unit, unit_state.main_pid(found)):
            unit.ask_at = self._now

    # ---- systemctl ----

    def _call(self, done: Callable[[int, str], None], *arguments: str) -> None:
        try:
            process = subprocess.Popen(
                [self._systemctl, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                process_group=0,  # a Ctrl-C is not for it
            )
        except OSError as error:
            done(127, str(error))
            return
        descriptor = os.pidfd_open(process.pid)
        self._calls[descriptor] = _Call(process, done)
        self._epoll.register(descriptor, select.EPOLLIN)

    def _finish(self, descriptor: int) -> None:
        call = self._calls.pop(descriptor)
        self._epoll.unregister(descriptor)
        os.close(descriptor)
        code = call.process.wait()
        call.done(code, _close_output(call.process))

    def _file(self, name: str) -> Path:
        return self._launch.folder / f"{name}.env"


def _close_output(process: subprocess.Popen[bytes]) -> str:
    """What it printed, as far as a pipe holds it. It has ended: reading does not wait, unless a child of its
    has the other end."""
    assert process.stdout is not None
    os.set_blocking(process.stdout.fileno(), False)
    said = b""
    with suppress(BlockingIOError):
        said = os.read(process.stdout.fileno(), SAID_BYTES_MAX)
    process.stdout.close()
    return said.decode(errors="replace")


def _unit(name: str) -> str:
    return f"{PREFIX}{name}{SUFFIX}"
