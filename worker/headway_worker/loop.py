"""The worker's process: its two threads, its signals, its end.

Knows: signals, threads, exit codes, the agent's leash. Must not know: torch, ZeroMQ, what to answer.

The main thread keeps the worker's place on the broker's roster while the runner's thread is busy with the
device for seconds; while it is not, the runner talks to the broker itself (see `exchange`).
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Protocol

from headway import logs
from headway.exits import Exit
from headway_worker.exchange import Exchange
from headway_worker.faults import DeviceFault
from headway_worker.leash import Leash
from headway_worker.orders import Order
from headway_worker.session import Drain, Event, Leaving

JOIN_RUNNER_S = 5.0

_log = logs.get("headway.worker")


class Runs(Protocol):
    """What the loop needs of a runner: takes orders, obeys them in `run` in a thread of its own."""

    def put(self, order: Order) -> None: ...
    def run(self) -> None: ...
    def stop(self) -> None: ...


class Loop:
    """One worker process. Make it, give it its runner, then `run`."""

    def __init__(
        self,
        exchange: Exchange,
        leave_stuck: Callable[[], Exit] = lambda: Exit.STUCK,
        leash: Leash | None = None,
    ) -> None:
        """`leave_stuck`: what is to be done before the process ends while the runner is stuck on its device;
        returns what to exit with."""
        self.exchange = exchange
        self._leave_stuck = leave_stuck
        self._leash = leash
        self._signals: deque[Event] = deque()
        self._defect: BaseException | None = None

    def run(self, runner: Runs) -> Exit:
        """Serve until told to leave; returns the exit code. Does not return if the runner is stuck, or its
        device broken.

        Raises: whatever the runner's thread ended with, which would be a defect of ours.
        """
        self._wakeup, alarm = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(alarm)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        self.exchange.open(runner)
        thread = threading.Thread(target=self._run, args=[runner], name="headway-runner", daemon=True)
        thread.start()
        leaving = self.exchange.keep(self._wakeup, self._events)
        return self._end(leaving, runner, thread)

    def _run(self, runner: Runs) -> None:
        try:
            runner.run()
        except DeviceFault as fault:
            self._defect = fault
            _log.exception("the device is broken, the worker ends", reason=str(fault), code="DEVICE_FAULT")
            self.exchange.give_up("the device is broken")
        except BaseException as error:
            self._defect = error
            self.exchange.give_up("a defect in the worker")

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._signals.append(Drain(signal.Signals(number).name))

    def _events(self) -> list[Event]:
        with suppress(BlockingIOError):
            os.read(self._wakeup, 64)
        events = list(self._signals)
        for _ in events:
            self._signals.popleft()
        if self._leash and self._leash.is_cut(time.monotonic()):  # asked at every beat of the session
            self._leash = None
            events.append(Drain("the agent that started it is gone"))
        return events

    def _end(self, leaving: Leaving, runner: Runs, thread: threading.Thread) -> Exit:
        if self._defect:
            self.exchange.close()
            if isinstance(self._defect, DeviceFault):
                os._exit(Exit.DEVICE_FAULT)  # what CUDA does at a regular exit may hang on a broken device
            raise self._defect
        code = self._leave_stuck() if leaving.stuck else Exit.OK
        _log.info("worker leaves", reason=leaving.reason, code=code.name)
        if leaving.stuck:
            self.exchange.close()
            os._exit(code)  # the runner's thread is inside a model and cannot be waited for
        runner.stop()
        self.exchange.call_runner()
        thread.join(JOIN_RUNNER_S)
        self.exchange.close()
        return code
