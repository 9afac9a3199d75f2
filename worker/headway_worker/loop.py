"""The worker's loop: its socket, its clock, and the session that they feed.

Knows: ZeroMQ, time, signals, the runner's thread. Must not know: torch, what to answer.

Two threads: this loop keeps talking while the runner's thread is busy with the device for seconds. The
runner's reports come back through a deque and an eventfd.
"""

from __future__ import annotations

import os
import secrets
import signal
import threading
import time
from collections import deque
from types import FrameType
from typing import Protocol

import zmq

from headway import link, logs
from headway.exits import Exit
from headway.inbox import drain
from headway.messages import Load, Unload
from headway.wire import encode
from headway_worker.orders import Order, Report, Run
from headway_worker.session import Action, Drain, Event, Leaving, Send, Session, Unsent

DRAIN_MAX = 1000
JOIN_RUNNER_S = 5.0

_log = logs.get("headway.worker")


class Runs(Protocol):
    """What the loop needs of a runner: takes orders, obeys them in `run` in a thread of its own."""

    def put(self, order: Order) -> None: ...
    def run(self) -> None: ...
    def stop(self) -> None: ...


class Loop:
    """One worker process. Make it, give it its runner, then `run`."""

    def __init__(self, session: Session, address: str, name: str) -> None:
        self._session = session
        self._address = address
        self._identity = f"{name[:100]}.".encode() + secrets.token_bytes(8)
        self._reports: deque[Event] = deque()
        self._signal = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._exit: Leaving | None = None

    def report(self, report: Report) -> None:
        """From the runner's thread: hand a report to the loop."""
        self._reports.append(report)
        os.eventfd_write(self._signal, 1)

    def run(self, runner: Runs) -> Exit:
        """Serve until told to leave; returns the exit code. Does not return if the runner is stuck."""
        self._runner = runner
        thread = threading.Thread(target=runner.run, name="headway-runner", daemon=True)
        thread.start()
        wakeup, alarm = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(alarm)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = link.dealer(context, self._address, self._identity)
        poller = zmq.Poller()
        for source in (self._socket, self._signal, wakeup):
            poller.register(source, zmq.POLLIN)
        while self._exit is None:
            self._turn(poller, wakeup)
        return self._end(self._exit, context, thread)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._reports.append(Drain(signal.Signals(number).name))

    def _turn(self, poller: zmq.Poller, wakeup: int) -> None:
        ready = dict(poller.poll(link.wait_ms(self._session.next_wake(), time.monotonic())))
        if self._signal in ready:
            os.eventfd_read(self._signal)
        if wakeup in ready:
            os.read(wakeup, 64)
        now = time.monotonic()
        if self._socket in ready:
            drain(self._socket, DRAIN_MAX, lambda message: self._do(self._session.handle(message, now)), _log)
        while self._reports:
            self._do(self._session.handle(self._reports.popleft(), now))
        self._do(self._session.wake(now))

    def _do(self, actions: list[Action]) -> None:
        blocked = False  # from then on nothing is sent: messages must not overtake each other
        for action in actions:
            match action:
                case Run() | Load() | Unload():
                    self._runner.put(action)
                case Send(message=message):
                    blocked = blocked or not link.send(self._socket, encode(message))
                    if blocked:
                        self._session.handle(Unsent(message), time.monotonic())
                case Leaving():
                    self._exit = action

    def _end(
        self, leaving: Leaving, context: zmq.Context[zmq.Socket[bytes]], thread: threading.Thread
    ) -> Exit:
        code = Exit.STUCK if leaving.stuck else Exit.OK
        _log.info("worker leaves", reason=leaving.reason, code=code.name)
        self._socket.close()
        context.term()
        if leaving.stuck:
            os._exit(code)  # the runner's thread is inside a model and cannot be waited for
        self._runner.stop()
        thread.join(JOIN_RUNNER_S)
        return code
