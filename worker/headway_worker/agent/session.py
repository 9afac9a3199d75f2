"""The agent's mind, pure: its place on the broker's roster, and the workers of its host.

Speaks the three verbs of the design: `handle(event, now)`, `wake(now)`, `next_wake()`.

Knows: which workers there are, what was ordered, what the host offers. Must not know: processes, sockets,
clocks; it gives orders to a crew (`children` or `units`) and hears from it what happened. Longer than 300
lines because the roster, the workers and the end need each other at every turn.

How it works. The agent joins as a worker does: `AgentJoin` until it is welcomed, `Alive` from then on, and
again after a `Dismiss` or a broker's restart, with the workers it has. The broker orders starts and stops;
an order that cannot be obeyed is answered by a worker that "ended", with the reason. What became of the
workers is reported at once, and what happened while nobody listened is said after the next `Welcome`. The
agent starts nothing on its own: whether an ended worker is replaced is the broker's to decide.

A worker that is told to stop has its drain time and GRACE_S to end, then it is ended. When one ends with
DEVICE_FAULT, all others on its device share its fate (a fatal fault of one client of CUDA MPS breaks all of
them): they are stopped, and the broker orders new ones. Until the last of them is gone new ones would fail
too: they are refused.

The end, on a signal or because the broker has another agent for this host: all workers are stopped, and
waited for.

Invariants: a worker is in `workers` from the order to start it until it has ended; there are never more of
them than there are places; each end is reported once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from headway.errors import RemoteProtocolError
from headway.exits import Exit
from headway.messages import (
    AgentJoin,
    AgentReport,
    AgentWorker,
    Alive,
    Dismiss,
    Heartbeat,
    Message,
    StartWorker,
    StopWorker,
    Welcome,
)
from headway_worker.agent.offer import Offer
from headway_worker.agent.orders import Adopted, Ended, Kill, News, Order, Start, Started, Stop
from headway_worker.session import Send, Unsent

RETRY_S = 0.02
GRACE_S = 5.0  # after the drain time: the worker's own tidying up
FAULT_S = 10.0  # there is nothing to finish on a device that has failed
UNKILLABLE_S = 10.0  # a process in a hung driver's call may ignore SIGKILL for ever
ECHO_S = 0.5  # a wrapper that passes Ctrl-C on makes it arrive twice; people are slower
REASON_CHARS_MAX = 4096


class Drain(NamedTuple):
    """Stop all workers, and end. For the second time: at once."""

    reason: str


class Leaving(NamedTuple):
    """The process shall end."""

    reason: str
    code: Exit


Event = Message | News | Drain | Unsent
Action = Send | Order | Leaving


@dataclass
class Worker:
    """A worker that has a place. `reason`: why it runs anew, or was told to stop."""

    name: str
    device: str
    share: int
    pid: int = 0
    state: str = "running"
    reason: str = ""
    kill_at: float = math.inf

    def said(self, state: str = "", reason: str = "") -> AgentWorker:
        reason = (reason or self.reason)[:REASON_CHARS_MAX]
        return AgentWorker(self.name, self.pid, self.device, state or self.state, reason)


class Session:
    """One agent's side of its connection to the broker."""

    def __init__(
        self, name: str, host: str, offer: Offer, drain_s: float = 30.0, join_s: float = 0.5
    ) -> None:
        self.workers: dict[str, Worker] = {}
        self.joined = False
        self._name = name
        self._host = host
        self._offer = offer
        self._drain_s = drain_s
        self._join_s = join_s
        self._broker = b""
        self._beat_s = join_s
        self._beat_at = -math.inf
        self._blocked_until = -math.inf
        self._outbox: list[Message] = []
        self._unsaid: list[AgentReport] = []  # what happened off the roster
        self._faulty: dict[str, str] = {}  # devices that are being cleared, and who reported the fault
        self._leaving: Leaving | None = None
        self._leaving_since = math.inf
        self._leave_by = math.inf

    def handle(self, event: Event, now: float) -> list[Action]:
        """Note what happened. Raises: RemoteProtocolError for a message that agents do not get."""
        match event:
            case StartWorker():
                return self._start(event)
            case StopWorker(name=name, reason=reason):
                return self._stop_one(name, reason, now)
            case Adopted() | Started() | Ended():
                return self._note(event, now)
            case Welcome() | Heartbeat():
                self._meet(event, now)
            case Dismiss():
                return self._dismissed(event, now)
            case Drain(reason=reason):
                return self._drain(reason, now)
            case Unsent(message=message):
                self._take_back(message, now)
            case _:
                raise RemoteProtocolError(f"an agent gets no {type(event).__name__}")
        return []

    def wake(self, now: float) -> list[Action]:
        """Everything there is to send and to kill; the end, when nothing is left to wait for."""
        actions = self._kill_due(now)
        if now >= self._blocked_until:
            actions += self._send(now)
        if self._leaving and (not self.workers or now >= self._leave_by):
            actions.append(self._leaving)
        return actions

    def _kill_due(self, now: float) -> list[Action]:
        due = [worker for worker in self.workers.values() if now >= worker.kill_at]
        for worker in due:
            worker.kill_at = math.inf
        if due and self._leaving:  # a machine that slept still waits for their end
            self._leave_by = max(self._leave_by, now + UNKILLABLE_S)
        return [Kill(worker.name) for worker in due]

    def next_wake(self) -> float:
        """Call `wake` no later than this; -inf for at once."""
        if self._leaving and not self.workers:
            return -math.inf
        send_at = -math.inf if self._outbox else self._beat_at
        kill_at = min((worker.kill_at for worker in self.workers.values()), default=math.inf)
        return min(max(send_at, self._blocked_until), kill_at, self._leave_by)

    def status(self) -> str:
        """One line for people."""
        state = "stopping" if self._leaving else "joined" if self.joined else "no broker"
        return f"{state}, {len(self.workers)} of {self._offer.workers_max} workers"

    def check(self) -> None:
        """Raise AssertionError if an invariant does not hold."""
        assert all(name == worker.name for name, worker in self.workers.items())
        assert all(worker.state in ("running", "stopping") for worker in self.workers.values())
        assert set(self._faulty) <= {worker.device for worker in self.workers.values()}

    # ---- orders ----

    def _start(self, order: StartWorker) -> list[Action]:
        refusal = self._refusal(order)
        if refusal:
            self._report(AgentWorker(order.name, 0, order.device, "ended", refusal))
            if order.name in self.workers:  # that one did not end: the last word is what is
                self._report(self.workers[order.name].said())
            return []
        share = self._offer.share_of(order)
        self.workers[order.name] = Worker(order.name, order.device, share)
        return [Start(order.name, order.device, share)]

    def _refusal(self, order: StartWorker) -> str:
        if self._leaving:
            return "the agent is stopping"
        refusal = self._offer.refusal(order, list(self.workers.values()))
        if not refusal and order.device in self._faulty:
            return (
                f"{order.device} is being cleared: {self._faulty[order.device]} reported a fatal fault of it"
            )
        return refusal

    def _stop_one(self, name: str, reason: str, now: float) -> list[Action]:
        worker = self.workers.get(name)
        if worker is None:
            self._report(AgentWorker(name, 0, "", "ended", "there is no such worker"))
            return []
        if worker.state == "stopping":
            self._report(worker.said())
            return []
        return [self._stop(worker, reason, now + self._drain_s + GRACE_S)]

    def _stop(self, worker: Worker, reason: str, kill_at: float) -> Stop:
        worker.state, worker.reason, worker.kill_at = "stopping", reason or "was told to stop", kill_at
        self._report(worker.said())
        return Stop(worker.name)

    # ---- what became of the workers ----

    def _note(self, event: News, now: float) -> list[Action]:
        match event:
            case Adopted(name=name, pid=pid, device=device, share=share):
                self.workers[name] = Worker(name, device, share, pid)
            case Started(name=name, pid=pid, reason=reason):
                self._note_start(name, pid, reason)
            case Ended():
                return self._note_end(event, now)
        return []

    def _note_start(self, name: str, pid: int, reason: str) -> None:
        worker = self.workers[name]
        worker.pid = pid
        if worker.state == "running":
            worker.reason = reason
        self._report(worker.said())

    def _note_end(self, event: Ended, now: float) -> list[Action]:
        worker = self.workers.pop(event.name, None) or Worker(event.name, event.device, 0)
        others = [other for other in self.workers.values() if other.device == worker.device]
        if not others:
            self._faulty.pop(worker.device, None)
        if worker.state == "stopping":
            self._report(worker.said("ended", f"{worker.reason}; {event.how}"))
        else:
            self._report(worker.said("ended", event.how))
        return self._clear(worker, others, now) if event.fault else []

    def _clear(self, faulty: Worker, others: list[Worker], now: float) -> list[Action]:
        """Stop what else runs on the device of `faulty`."""
        if others:
            self._faulty.setdefault(faulty.device, faulty.name)  # all of a device's may report it
        reason = f"restarted: {faulty.name} reported a fatal fault of {faulty.device}"
        running = [other for other in others if other.state == "running"]
        for other in others:
            other.kill_at = min(other.kill_at, now + FAULT_S)
        return [self._stop(other, reason, now + FAULT_S) for other in running]

    def _report(self, worker: AgentWorker) -> None:
        report = AgentReport(worker)
        if self.joined:
            self._outbox.append(report)
        else:
            self._unsaid.append(report)

    # ---- the roster ----

    def _meet(self, message: Welcome | Heartbeat, now: float) -> None:
        if isinstance(message, Heartbeat):
            if self.joined and message.broker != self._broker:
                self._off_the_roster()
            return
        self.joined = True
        self._broker = message.broker
        self._beat_s = message.heartbeat_ms / 1000 / 2  # twice as often as it must be
        self._beat_at = now + self._beat_s
        self._outbox += self._unsaid
        self._unsaid.clear()

    def _off_the_roster(self) -> None:
        """Join again. What the broker did not hear is said to the next one."""
        self.joined = False
        self._beat_at = -math.inf
        self._unsaid += [message for message in self._outbox if isinstance(message, AgentReport)]
        self._outbox.clear()

    def _dismissed(self, message: Dismiss, now: float) -> list[Action]:
        self._off_the_roster()
        if not message.final:
            return []
        self._beat_at = math.inf  # silent from now on
        return self._stop_all(Leaving(f"dismissed: {message.reason}", Exit.LOCKED), now)

    def _join(self) -> AgentJoin:
        workers = [worker.said() for worker in self.workers.values()]
        return AgentJoin(self._name, self._host, self._offer.facts(self._leaving is not None), workers)

    def _send(self, now: float) -> list[Action]:
        if now >= self._beat_at:
            self._beat_at = now + (self._beat_s if self.joined else self._join_s)
            self._outbox.append(Alive() if self.joined else self._join())
        messages, self._outbox = self._outbox, []
        return [Send(message) for message in messages]

    def _take_back(self, message: Message, now: float) -> None:
        """No connection: keep reports, forget heartbeats (the next is due soon)."""
        self._blocked_until = now + RETRY_S
        if isinstance(message, AgentReport) and not self.joined:
            self._unsaid.append(message)
        elif self.joined and not isinstance(message, Alive):
            self._outbox.append(message)
        elif isinstance(message, AgentJoin):
            self._beat_at = self._blocked_until  # the connection of a new process takes a moment

    # ---- the end ----

    def _drain(self, reason: str, now: float) -> list[Action]:
        if self._leaving is None:
            return self._stop_all(Leaving(reason, Exit.OK), now)
        if now < self._leaving_since + ECHO_S:
            return []
        return self._kill_all(now)

    def _stop_all(self, leaving: Leaving, now: float) -> list[Action]:
        kill_at = now + self._drain_s + GRACE_S
        self._leaving, self._leaving_since = leaving, now
        self._leave_by = kill_at + UNKILLABLE_S
        if self.joined:  # it offers nothing any more, or what it stops would be ordered anew
            self._outbox.append(self._join())
        running = [worker for worker in self.workers.values() if worker.state == "running"]
        return [self._stop(worker, f"the agent stops: {leaving.reason}", kill_at) for worker in running]

    def _kill_all(self, now: float) -> list[Action]:
        self._leave_by = now + UNKILLABLE_S
        for worker in self.workers.values():
            worker.kill_at = math.inf
        return [Kill(name) for name in self.workers]
