"""Drives the calls of a `Client` over its socket, from whichever thread waits for an answer.

Knows: threads, the socket, the clock. Must not know: what to send and when (that is `calls`), tensors,
futures.

How it works. One thread at a time *leads*: it holds `_lead`, and with it the socket and the `Calls`. A
thread that asks and waits leads itself if nobody does: it sends, polls and reads its own answer, so that no
other thread has to wake up for it. The pump's own thread leads when nobody waits in that way and something is
open, such as a future; else it is parked. A leader serves everybody: what other threads start meanwhile
comes to it as events with a signal, and leaves in one message. When it has its own answer, it hands over to
the pump's thread if anything is open. PERF: see `headway_worker.exchange`, which does the same.

Invariants: a call's `told` is called once, unless the call is abandoned, and no `piece` of it after that;
when the pump has ended, nothing waits. A KeyboardInterrupt can end a leader at any point: where it may have
hit in the middle of something, everything open is told so, rather than left waiting for what was lost; and
wherever it hits, the lead is left, and the pump's thread looks what is open.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from headway import logs
from headway.calls import Abandon, Action, Call, Calls, Event
from headway.dealers import dial_as_caller
from headway.errors import BrokerUnreachable, HeadwayError, InternalError
from headway.inbox import drain
from headway.keys import Curve
from headway.lent import Lender
from headway.messages import Bye, Reply
from headway.outbox import carry_out
from headway.waiting import poll_of, wait_ms
from headway.wire import encode

_log = logs.get("headway.client")
DRAIN_MAX = 1000
AFTER_DEFECT_S = 0.1

Told = Callable[
    [Any], None
]  # gets a call's outcome: a `Reply`, an answer's body, or an error; must not raise
Model = tuple[str, str] | None  # whose reply it is, a name and a version; None for a question
Took = Callable[[Reply], None]  # gets a piece of a reply; must not raise
_NOBODY: tuple[Told, Model, None] = (lambda outcome: None, None, None)


class Pump:
    """One connection to the broker, for any number of threads. Raises: SettingsError for an address that is
    none."""

    def __init__(self, address: str, lender: Lender, curve: Curve | None = None) -> None:
        self._lender = lender
        self._pid = os.getpid()
        self._calls = Calls()
        self._waiting: dict[int, tuple[Told, Model, Took | None]] = {}
        self._events: deque[Event] = deque()
        self._signalled = False
        self._closing = False
        self._ended = False
        self._midway = False  # a step has taken something and is not through with it
        self._leader = 0
        self._lead = threading.RLock()  # it knows whose it is, at any point
        self._lock = threading.Lock()  # nobody writes to the signal once it is closed
        self._dealer = dial_as_caller(address, curve)
        self._signal = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._poll = poll_of(self._dealer.fileno(), self._signal)
        self.thread = threading.Thread(target=self._run, name="headway-client", daemon=True)
        self.thread.start()

    def start(self, call: Call, model: Model, told: Told, piece: Took | None = None) -> None:
        """Ask; `told` is called from whichever thread leads then, and before it `piece` with each piece of
        the reply, in order. Raises: BrokerUnreachable."""
        self._check_open(call)
        self._waiting[call.id] = (told, model, piece)
        self._tell(call)
        if self._ended:  # meanwhile: nobody else may have seen it
            self._tell_all(BrokerUnreachable, "the client was closed")

    def ask(self, call: Call, model: Model) -> Any:
        """Ask, and wait for the outcome. Raises: BrokerUnreachable, InternalError."""
        self._check_open(call)
        if threading.get_ident() in (self._leader, self.thread.ident):
            raise InternalError("what interrupts a wait, or is told of an answer, cannot wait for one itself")
        try:
            if self._lead.acquire(blocking=False):
                outcome = self._ask_leading(call, model)
                is_busy = self._is_busy()
                self._leave_lead()
                if is_busy:
                    self._wake_thread()
                return outcome
        except BaseException:
            self._leave_lead()  # an interrupt may come before it is known to be ours, or when it was left
            self._wake_thread()
            raise
        return self._ask_behind(call, model)

    def abandon(self, id: int) -> bool:
        """Nobody waits for this call any more. False: it has its outcome already, or is about to."""
        if self._waiting.pop(id, None) is None:
            return False
        if os.getpid() == self._pid:
            self._tell(Abandon(id))
        return True

    def close(self) -> None:
        """Withdraw what is open, whose outcome is BrokerUnreachable then, and leave."""
        if self._closing or os.getpid() != self._pid:
            return
        self._closing = True
        self._wake_thread()
        if threading.get_ident() not in (self.thread.ident, self._leader):  # it may be in a `told`
            self.thread.join()

    def _check_open(self, call: Call) -> None:
        if os.getpid() == self._pid and not self._closing:
            return
        self._lender.release(call.id)
        if self._closing:
            raise BrokerUnreachable("the client was closed")
        raise BrokerUnreachable("this client was opened before a fork; open one in the child")

    def _tell(self, event: Event) -> None:
        self._events.append(event)
        if not self._signalled:  # PERF: one write of 1 µs for many submits, not one each
            self._wake_thread()

    def _wake_thread(self) -> None:
        self._signalled = True
        with self._lock:
            if not self._ended:
                os.eventfd_write(self._signal, 1)

    # ---- leading ----

    def _ask_leading(self, call: Call, model: Model) -> Any:
        outcome: list[Any] = []
        self._leader = threading.get_ident()
        try:
            self._check_open(call)
            self._waiting[call.id] = (outcome.append, model, None)
            now = time.monotonic()
            self._midway = True
            self._do(self._calls.handle(call, now))
            self._do(self._calls.wake(now))
            self._midway = False
            while not outcome:
                if self._closing:
                    raise BrokerUnreachable("the client was closed")
                self._turn()
            return outcome[0]
        except BaseException:
            self.abandon(call.id)
            if self._midway:
                self._fail_all("another request of this client was interrupted")
            raise

    def _leave_lead(self) -> None:
        """Does nothing where it is another's, or was left already."""
        if self._leader == threading.get_ident():
            self._leader = 0
        with suppress(RuntimeError):  # so says a lock that is not ours
            self._lead.release()

    def _ask_behind(self, call: Call, model: Model) -> Any:
        outcome = _Outcome()
        try:
            self.start(call, model, outcome.tell)
            return outcome.wait()
        except BaseException:  # a KeyboardInterrupt withdraws the request
            self.abandon(call.id)
            raise

    def _is_busy(self) -> bool:
        return bool(self._events) or self._calls.next_wake() is not None

    def _run(self) -> None:
        parking = poll_of(self._signal)
        try:
            while not self._closing:
                parking.poll()
                with self._lead:
                    self._lead_while_busy()
        finally:
            with self._lead:
                self._end()

    def _lead_while_busy(self) -> None:
        self._read_signal()
        while self._is_busy() and not self._closing:
            self._turn()

    def _end(self) -> None:
        self._closing = True
        self._do(self._calls.leave())
        with self._lock:
            self._ended = True
            os.close(self._signal)
        self._tell_all(BrokerUnreachable, "the client was closed")
        self._lender.close()
        self._dealer.close()

    # ---- one step ----

    def _turn(self) -> None:
        """A step. A defect in it fails what is open, rather than leave it waiting for ever."""
        try:
            self._step()
        except Exception as error:
            _log.exception("defect in the client")
            self._fail_all(f"a defect in the client: {error!r}")
            time.sleep(AFTER_DEFECT_S)  # or one that comes at every step would fill the log

    def _step(self) -> None:
        at_once = self._events or self._dealer.has_more
        wait = 0 if at_once else wait_ms(self._calls.next_wake(), time.monotonic())
        ready = {fd for fd, _ in self._poll.poll(wait)}
        self._midway = True
        if self._signal in ready:
            self._read_signal()
        now = time.monotonic()
        while self._events:
            self._do(self._calls.handle(self._events.popleft(), now))
        if self._dealer.fileno() in ready or self._dealer.has_more:
            drain(self._dealer, DRAIN_MAX, lambda message: self._do(self._calls.handle(message, now)), _log)
        self._do(self._calls.wake(now))
        self._midway = False

    def _read_signal(self) -> None:
        with suppress(BlockingIOError):  # another leader read it
            os.eventfd_read(self._signal)
        self._signalled = False  # before the deque is read: a later event signals again

    def _do(self, actions: list[Action]) -> None:
        carry_out(actions, self._calls, self._dealer, self._lender, self._settle, self._advance)

    def _settle(self, id: int, outcome: Any) -> None:
        told, model, _ = self._waiting.pop(id, _NOBODY)
        try:
            told(self._lender.outcome(id, outcome, model) if model else outcome)
        except KeyboardInterrupt:
            told(InternalError("the reading of the reply was interrupted"))
            raise

    def _advance(self, id: int, reply: Reply) -> None:
        if piece := self._waiting.get(id, _NOBODY)[2]:
            piece(reply)

    def _fail_all(self, reason: str) -> None:
        self._midway = False
        self._calls = Calls()
        self._dealer.send(encode(Bye()))  # the broker need not run what nobody waits for
        self._lender.close()
        self._tell_all(InternalError, reason)

    def _tell_all(self, error: type[HeadwayError], reason: str) -> None:
        for id in list(self._waiting):
            self._settle(id, error(reason))


class _Outcome:
    """What one thread waits for and another tells. Not a Future: where its Condition is interrupted, it may
    raise a RuntimeError in place of the KeyboardInterrupt."""

    def __init__(self) -> None:
        self._told: list[Any] = []
        self._untold = threading.Lock()
        self._untold.acquire()

    def tell(self, outcome: Any) -> None:
        """The first one counts; a second one comes where the telling of the first was interrupted."""
        self._told.append(outcome)
        if self._untold.locked():
            self._untold.release()

    def wait(self) -> Any:
        self._untold.acquire()
        return self._told[0]
