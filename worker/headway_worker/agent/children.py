"""Workers as the agent's own children, which outlive it and are found again by its next start.

Knows: processes, pidfds, records. Must not know: the broker, which workers are wanted.

A worker's end is heard at once, from a pidfd: of a child as of one that an earlier start of the agent left
behind ("adopted"). The exit code of an adopted one goes to whoever inherited it from that start, and is not
known.

How a worker is ended that does not end by itself is `end_stuck`'s: it gets pid and device, runs in a thread
of its own, and may take its time; without one it is SIGKILL. The worker's own children are killed when it is
gone.
"""

from __future__ import annotations

import math
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from headway import logs
from headway.child import Child
from headway.exits import Exit, how_it_ended
from headway_worker.agent import processes
from headway_worker.agent.launch import Launch
from headway_worker.agent.memory import Kills, Memory
from headway_worker.agent.orders import Adopted, Ended, Kill, News, Order, Start, Started, Stop
from headway_worker.agent.processes import Mark
from headway_worker.agent.records import Record, Records

EndStuck = Callable[[int, str], None]
NOT_INHERITED = {"NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC"}  # systemd means the agent by them
WORKER = (sys.executable, "-m", "headway_worker")

_log = logs.get("headway.agent")


@dataclass(frozen=True)
class _Kept:
    """A worker that runs. `pidfd` is readable once it is gone."""

    name: str
    device: str
    pid: int
    pidfd: int
    child: Child | None
    kills: Kills


class Children:
    """`command` starts a worker; the options are appended."""

    def __init__(
        self,
        launch: Launch,
        end_stuck: EndStuck | None = None,
        command: Sequence[str] = WORKER,
        memory: Memory | None = None,
    ) -> None:
        self._launch = launch
        self._end_stuck = end_stuck
        self._command = command
        self._memory = memory or Memory()
        self._records = Records(launch.folder)
        self._boot_id = processes.boot_id()
        self._kept: dict[str, _Kept] = {}
        self._by_pidfd: dict[int, _Kept] = {}
        self._news: list[News] = []
        self._epoll = select.epoll()
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)  # there is news already
        self._epoll.register(self._bell, select.EPOLLIN)

    def open(self) -> list[News]:
        """Adopts what runs; tells what has ended since an earlier start of the agent wrote it down."""
        running = processes.marked(self._launch.run_dir)
        leaders = {p.mark.name: p for p in reversed(running) if p.pid == p.group}  # the oldest is the worker
        news: list[News] = []
        for record in self._records.read():
            found = leaders.pop(record.name, None)
            if record.pid == 0 and found:
                record = _record(found, self._boot_id)
            news.append(self._adopt(record) or self._missed(record))
        news += [said for p in leaders.values() if (said := self._adopt(_record(p, self._boot_id)))]
        if len(running) > len(self._kept):
            processes.kill_rest(self._launch.run_dir, self._kept)
        return news

    def fileno(self) -> int:
        return self._epoll.fileno()

    def next_wake(self) -> float:
        return math.inf

    def look(self, now: float) -> list[News]:
        for descriptor, _ in self._epoll.poll(0):
            if descriptor == self._bell:
                os.eventfd_read(self._bell)
            else:
                self._news.append(self._ended(self._by_pidfd[descriptor]))
        news, self._news = self._news, []
        return news

    def obey(self, order: Order, now: float) -> None:
        match order:
            case Start():
                self._say(self._start(order))
            case Stop(name=name):
                self._signal(name, signal.SIGTERM)
            case Kill(name=name):
                self._kill(name)

    def close(self) -> None:
        for descriptor in (*self._by_pidfd, self._bell):
            os.close(descriptor)
        self._epoll.close()

    # ---- starting ----

    def _start(self, order: Start) -> Started | Ended:
        record = Record(order.name, order.device, order.share, self._boot_id, started_at=time.time())
        mark = Mark(str(self._launch.run_dir), order.name, order.device, order.share)
        ours = {key: value for key, value in os.environ.items() if key not in NOT_INHERITED}
        variables = self._launch.variables(order) | ours | {processes.VARIABLE: mark.text()}
        try:
            self._records.write(record)
            arguments = [*self._command, *self._launch.arguments(order)]
            child = Child(arguments, tied=False, environment=variables)
        except (OSError, ValueError) as error:
            self._records.remove(order.name)
            return Ended(order.name, order.device, f"could not be started: {error}")
        self._keep(order.name, order.device, child.pid, os.pidfd_open(child.pid), child)
        self._note_pid(record, child.pid)
        return Started(order.name, child.pid)

    def _note_pid(self, record: Record, pid: int) -> None:
        """If that fails (a full disk), the worker is still found by its mark."""
        try:
            ticks = processes.start_ticks(pid) or 0
            self._records.write(
                Record(record.name, record.device, record.share, self._boot_id, pid, ticks, record.started_at)
            )
        except OSError as error:
            _log.warning("record not written", worker=record.name, reason=str(error))

    def _keep(self, name: str, device: str, pid: int, pidfd: int, child: Child | None) -> None:
        kept = _Kept(name, device, pid, pidfd, child, self._memory.kills(pid))
        self._kept[name] = self._by_pidfd[pidfd] = kept
        self._epoll.register(pidfd, select.EPOLLIN)

    # ---- finding again ----

    def _adopt(self, record: Record) -> Adopted | None:
        if record.boot_id != self._boot_id or not record.pid:
            return None
        pidfd = processes.open_if_same(record.pid, record.start_ticks)
        if pidfd is None:
            return None
        self._keep(record.name, record.device, record.pid, pidfd, None)
        with suppress(OSError):
            self._records.write(record)
        _log.info("worker adopted", worker=record.name, pid=record.pid, device=record.device)
        return Adopted(record.name, record.pid, record.device, record.share)

    def _missed(self, record: Record) -> Ended:
        self._records.remove(record.name)
        if record.boot_id != self._boot_id:
            return Ended(record.name, record.device, "ended when the machine was started anew")
        if not record.pid:
            return Ended(record.name, record.device, "was not started: the agent ended before it could")
        return Ended(record.name, record.device, "ended while the agent was away")

    # ---- ending ----

    def _signal(self, name: str, number: int) -> None:
        if kept := self._kept.get(name):
            with suppress(ProcessLookupError, PermissionError):
                signal.pidfd_send_signal(kept.pidfd, number)

    def _kill(self, name: str) -> None:
        kept = self._kept.get(name)
        if kept is None:
            return
        _log.warning("worker does not end by itself", worker=name, pid=kept.pid)
        if self._end_stuck is None:
            self._signal(name, signal.SIGKILL)
        else:
            end = threading.Thread(target=self._end_stuck, args=(kept.pid, kept.device), daemon=True)
            end.start()

    def _ended(self, kept: _Kept) -> Ended:
        del self._by_pidfd[kept.pidfd], self._kept[kept.name]
        self._epoll.unregister(kept.pidfd)
        os.close(kept.pidfd)
        code = kept.child.ended() if kept.child else None
        if code is None:
            processes.kill_rest(self._launch.run_dir, self._kept)
        self._records.remove(kept.name)
        how = _how(code)
        may_be = code in (None, -signal.SIGKILL)
        verdict = self._memory.verdict(kept.kills, code is not None) if may_be else ""
        return Ended(
            kept.name, kept.device, f"{how} ({verdict})" if verdict else how, code == Exit.DEVICE_FAULT
        )

    def _say(self, news: News) -> None:
        self._news.append(news)
        os.eventfd_write(self._bell, 1)


def _how(code: int | None) -> str:
    if code is None:
        return "ended; how is not known, because an earlier start of the agent had started it"
    return how_it_ended(code)


def _record(found: processes.Marked, boot_id: str) -> Record:
    mark = found.mark
    return Record(mark.name, mark.device, mark.share, boot_id, found.pid, found.start_ticks)
