"""The agent's process: its socket, its clock, its signals, its end. One thread, which waits in one place.

Knows: time, signals. Must not know: what to order, how workers are run.

Everything it waits for is a file descriptor: the socket's, that of the signals, and the crew's, which is
readable when something became of a worker. The socket's may signal once: after all that was sent or received
the socket is asked again, until there is nothing (see `dealers`).
"""

from __future__ import annotations

import math
import os
import signal
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from types import FrameType

from headway import logs
from headway.dealers import Dealer
from headway.exits import Exit
from headway.inbox import drain
from headway.messages import AgentReport
from headway.notify import Notifier
from headway.waiting import poll_of, wait_ms
from headway.wire import encode
from headway_worker.agent.orders import Crew, Kill, Start, Stop
from headway_worker.agent.session import Action, Drain, Event, Leaving, Session
from headway_worker.session import Send, Unsent

DRAIN_MAX = 1000
NAPS_S = 3600.0
STATUS_S = 1.0
EXTEND_S = 30.0  # one that waits for its broker is starting for as long as that takes
Dial = Callable[[], Dealer]

_log = logs.get("headway.agent")


class Loop:
    """One agent process: make it, then `run`."""

    def __init__(self, session: Session, crew: Crew, dial: Dial, notifier: Notifier | None = None) -> None:
        self._session = session
        self._crew = crew
        self._dial = dial
        self._notifier = notifier or Notifier()
        self._signals: deque[Drain] = deque()
        self._exit: Leaving | None = None
        self._is_ready = False
        self._status_at = 0.0 if self._notifier.is_heard else math.inf
        self._wait_s = self._notifier.wait_s or NAPS_S

    def run(self) -> Exit:
        """Serve until told to leave; returns the exit code.

        Raises: SettingsError for an address that is none.
        """
        self._open()
        try:
            for news in self._crew.open():
                self._handle(news, time.monotonic())
            while self._exit is None:
                self._poll.poll(self._wait_ms())
                now = time.monotonic()
                self._turn(now)
                self._tell(now)
            self._notifier.stopping()
        finally:
            self._close()
        _log.info("agent leaves", reason=self._exit.reason, code=self._exit.code.name)
        return self._exit.code

    def _tell(self, now: float) -> None:
        """What there is to say to systemd: ready is an agent that a broker has welcomed."""
        self._notifier.watchdog(now)
        if now < self._status_at:
            return
        self._status_at = now + STATUS_S
        if self._is_ready:
            self._notifier.status(self._session.status())
        elif self._session.joined:
            self._is_ready = True
            self._notifier.ready(self._session.status())
        else:
            self._notifier.extend(EXTEND_S)

    def _open(self) -> None:
        self._dealer = self._dial()
        self._wakeup, self._alarm = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(self._alarm)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        self._poll = poll_of(self._dealer.fileno(), self._wakeup, self._crew.fileno())

    def _close(self) -> None:
        """The workers, if there are any left, live on."""
        self._crew.close()
        self._dealer.close()
        signal.set_wakeup_fd(-1)
        os.close(self._wakeup)
        os.close(self._alarm)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._signals.append(Drain(signal.Signals(number).name))

    def _turn(self, now: float) -> None:
        with suppress(BlockingIOError):
            os.read(self._wakeup, 64)
        while self._signals:
            self._handle(self._signals.popleft(), now)
        is_more = True
        while is_more and self._exit is None:
            for news in self._crew.look(now):
                self._handle(news, now)
            count = drain(self._dealer, DRAIN_MAX, lambda message: self._handle(message, now), _log)
            actions = self._session.wake(now)
            self._do(actions, now)
            is_more = bool(actions) or count > 0

    def _handle(self, event: Event, now: float) -> None:
        self._do(self._session.handle(event, now), now)

    def _do(self, actions: list[Action], now: float) -> None:
        blocked = False  # from then on nothing is sent: messages must not overtake each other
        for action in actions:
            match action:
                case Send(message=message):
                    blocked = blocked or not self._dealer.send(encode(message))
                    if blocked:
                        self._session.handle(Unsent(message), now)
                    elif isinstance(message, AgentReport):
                        _log.info("worker", **message.worker._asdict())
                case Start() | Stop() | Kill():
                    self._crew.obey(action, now)
                case Leaving():
                    self._exit = action

    def _wait_ms(self) -> int | None:
        now = time.monotonic()
        return wait_ms(min(self._session.next_wake(), self._crew.next_wake(), now + self._wait_s), now)
