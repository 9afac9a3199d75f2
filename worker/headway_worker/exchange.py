"""The worker's socket and its session, served by whichever of its two threads leads.

Knows: time, threads. Must not know: torch, what to answer, signals, how the process ends.

How it works. While the runner has nothing to do it *leads*: it waits at the socket itself, and obeys what
comes without another thread being woken for it. Before it does something that takes its time it leaves the
lead to the *keeper*, the main thread, which then waits at the socket, puts orders into the runner's queue,
and says that the worker is alive. What the runner reports it sends itself, whoever leads. If it stays away
without a word (in a batch that should have been short), the keeper notices within PARKED_S and leads.

PERF: with the client's own reading of its answers (`headway.pump`), one request at a time takes 0.64 ms where
it took 1.0 to 1.2, through a thread of each side's own.

Session and socket are used under `_lock` only, and whoever waits holds no lock: it polls the socket's file
descriptor, not the socket. Over TCP that signals once: after all that was sent or received the socket is
asked again, until there is nothing (see `dealers`).
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from headway import logs
from headway.dealers import dial
from headway.inbox import drain
from headway.keys import Curve
from headway.messages import Load, Unload
from headway.notify import Notifier
from headway.waiting import poll_of, wait_ms
from headway.wire import encode
from headway_worker.orders import Drop, Order, Report, Run
from headway_worker.session import Action, Event, Leaving, Send, Session, Unsent
from headway_worker.tell import Tell

DRAIN_MAX = 1000
PARKED_S = 0.25  # how often the keeper looks whether the runner is still there

_log = logs.get("headway.worker")


class Takes(Protocol):
    """What the exchange needs of a runner: it takes orders, from any thread."""

    def put(self, order: Order) -> None: ...


class Exchange:
    """`open` it in the main thread; then `keep` there, and `lead` in the runner's."""

    def __init__(
        self,
        session: Session,
        address: str,
        identity: bytes,
        curve: Curve | None = None,
        notifier: Notifier | None = None,
    ) -> None:
        self.exit: Leaving | None = None
        self._session = session
        self._tell = Tell(session, notifier or Notifier())
        self._address = address
        self._curve = curve
        self._identity = identity
        self._lock = threading.Lock()
        self._runner_leads = False
        self._visits = 0  # how often the runner came to the socket; odd while it is there
        self._is_open = False
        self._keeper_until = 0.0  # when the keeper looks again by itself
        self._keeper_call = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._runner_call = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def open(self, runner: Takes) -> None:
        """Raises: SettingsError for an address that is none."""
        self._runner = runner
        self._dealer = dial(self._address, self._identity, self._curve)
        self._is_open = True
        self._at_socket = poll_of(self._dealer.fileno(), self._runner_call)

    def close(self) -> None:
        """Nothing is sent or received any more."""
        with self._lock:
            self._is_open = False
            self._dealer.close()

    # ---- the runner's thread ----

    def lead(self, until: Callable[[], bool], timeout_s: float) -> None:
        """Serve the socket until `until()` or for `timeout_s`: there is nothing else to do."""
        end = time.monotonic() + timeout_s
        with self._lock:
            self._runner_leads = True
            self._visits += 1
        while not until() and (now := time.monotonic()) < end:
            with self._lock:
                wake = min(self._session.next_wake(), end) if self.exit is None else end
            ready = self._at_socket.poll(wait_ms(wake, now))
            if (self._runner_call, select.POLLIN) in ready:
                os.eventfd_read(self._runner_call)
            with self._lock:
                self._serve(time.monotonic())
        self._visits += 1

    def leave(self) -> None:
        """Something comes that takes its time: the keeper has the lead."""
        if self._runner_leads:
            self._runner_leads = False
            os.eventfd_write(self._keeper_call, 1)

    def call_runner(self) -> None:
        """Make `lead` look again whether it is over. From any thread."""
        os.eventfd_write(self._runner_call, 1)

    def report(self, report: Report) -> None:
        """Tell the broker, at once. From any thread."""
        with self._lock:
            now = time.monotonic()
            self._handle(report, now)
            if self._is_open and self.exit is None:
                self._do(self._session.wake(now))
            if self._dealer.has_more:
                self._serve(now)
            is_early = not self._runner_leads and self._session.next_wake() < self._keeper_until
        if is_early:
            os.eventfd_write(self._keeper_call, 1)

    def give_up(self, reason: str) -> None:
        """The runner's thread has ended by a defect: so must the process."""
        self.exit = Leaving(reason, stuck=True)
        os.eventfd_write(self._keeper_call, 1)

    # ---- the main thread ----

    def keep(self, alarm: int, events: Callable[[], list[Event]]) -> Leaving:
        """Keep the worker's place on the roster until it shall leave, and return why. `events` are the
        main thread's own, from signals; the descriptor `alarm` can be read when there is one."""
        parked = poll_of(self._keeper_call, alarm)
        at_socket = poll_of(self._dealer.fileno(), self._keeper_call, alarm)
        parked_s, wait_s = min(PARKED_S, self._tell.wait_s), min(self._tell.wait_s, 3600.0)
        while self.exit is None:
            if self._runner_leads:
                visits = self._visits
                parked.poll(parked_s * 1000)
                self._look_for_runner(visits)
            else:
                self._keeper_until = min(self._next_wake(), time.monotonic() + wait_s)
                at_socket.poll(wait_ms(self._keeper_until, time.monotonic()))
            with suppress(BlockingIOError):
                os.eventfd_read(self._keeper_call)
            self._keep_once(events())
        return self.exit

    def _look_for_runner(self, visits: int) -> None:
        """Take the lead if the runner has been away since it was here for the `visits`th time."""
        with self._lock:
            if self._visits == visits and visits % 2 == 0:
                self._runner_leads = False

    def _keep_once(self, events: list[Event]) -> None:
        with self._lock:
            now = time.monotonic()
            for event in events:
                self._handle(event, now)
            if events or not self._runner_leads:
                self._serve(now)
            self._tell.tell(now)

    # ---- with the lock held ----

    def _serve(self, now: float) -> None:
        """Receive and send everything there is."""
        is_more = self._is_open
        while is_more and self.exit is None:
            count = drain(self._dealer, DRAIN_MAX, lambda message: self._handle(message, now), _log)
            self._do(self._session.wake(now))
            is_more = count == DRAIN_MAX or self._dealer.has_more

    def _handle(self, event: Event, now: float) -> None:
        if actions := self._session.handle(event, now):
            self._do(actions)

    def _do(self, actions: list[Action]) -> None:
        blocked = False  # from then on nothing is sent: messages must not overtake each other
        for action in actions:
            match action:
                case Run() | Load() | Unload() | Drop():
                    self._runner.put(action)
                case Send(message=message):
                    blocked = blocked or not self._dealer.send(encode(message))
                    if blocked:
                        self._session.handle(Unsent(message), time.monotonic())
                case Leaving():
                    self.exit = action
                    os.eventfd_write(self._keeper_call, 1)

    # ---- waiting ----

    def _next_wake(self) -> float:
        with self._lock:
            return self._session.next_wake()
