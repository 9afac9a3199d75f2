"""Keeps a few processes running, and stops them in order.

    with Supervisor([[broker], [worker0, worker1], [gateway]], say=print) as supervisor:
        code = supervisor.run()

Knows: children, signals, the clock. Must not know: what the processes are.

How it works. The signals that matter (SIGCHLD, SIGINT, SIGTERM, SIGHUP) are blocked for the whole process
and taken one at a time by `sigtimedwait`, which is also what sleeps until the next restart is due. So no
line of this file is ever interrupted, and nothing is polled. Threads must be started
inside the `with`, so that they block the signals too.

Ranks are started in order and stopped in the opposite order, each given its time to end before the next
is told: the gateway finishes what it has while workers and broker are still there. After that time, or
at a second Ctrl-C, what is left is killed.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType

from headway.child import Child
from headway.cli.restarts import Again, Backoff, GiveUp, Restarts
from headway.exits import Exit

WAKING = {signal.SIGCHLD, signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
STOPPING = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
ECHO_S = 0.5  # a wrapper that passes Ctrl-C on makes it arrive twice; people are slower
UNKILLABLE_S = 5.0  # a process in a hung driver's call may ignore SIGKILL for ever


@dataclass(frozen=True)
class Command:
    """A process to keep running. `stop_s`: how long it may take to end when it is told to. `output`: the
    descriptor that it prints to; None for the supervisor's own."""

    name: str
    arguments: Sequence[str]
    stop_s: float = 3.0
    output: int | None = None


class _Kept:
    """A command, its process while there is one, and when the next is due while there is none."""

    def __init__(self, command: Command, backoff: Backoff | None) -> None:
        self.command = command
        self.restarts = Restarts(command.name, backoff)
        self.child: Child | None = None
        self.due: float | None = None

    def start(self) -> None:
        self.due = None
        self.child = Child(self.command.arguments, output=self.command.output)
        self.restarts.started(time.monotonic())

    def look(self, now: float) -> Again | GiveUp | None:
        """What to do about its end, if it ended; reports each end once."""
        code = self.child.ended() if self.child else None
        if code is None:
            return None
        self.child = None
        verdict = self.restarts.ended(code, now)
        if isinstance(verdict, Again):
            self.due = now + verdict.wait_s
        return verdict

    @property
    def lives(self) -> bool:
        return self.child is not None and self.child.ended() is None

    def terminate(self) -> None:
        if self.child:
            self.child.terminate()

    def kill(self) -> None:
        if self.child:
            self.child.kill()


class Supervisor:
    """`with` blocks the signals, for `run` and for whatever is to be tidied up after it."""

    def __init__(
        self,
        ranks: Sequence[Sequence[Command]],
        say: Callable[[str], None],
        backoff: Backoff | None = None,
        on_stop: Callable[[], None] = lambda: None,
    ) -> None:
        self._ranks = [[_Kept(command, backoff) for command in rank] for rank in ranks]
        self._say = say
        self._on_stop = on_stop

    def __enter__(self) -> Supervisor:
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, WAKING)
        self._awaited = WAKING - {s for s in [signal.SIGHUP] if signal.getsignal(s) is signal.SIG_IGN}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while signal.sigtimedwait(WAKING, 0):  # a third Ctrl-C has nothing left to interrupt
            pass
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)

    def run(self) -> Exit:
        """Runs everything until a signal or a child's verdict ends it. Returns what to exit with.

        However it ends, no child is left.
        """
        try:
            for kept in self._all():
                kept.start()
            code = self._keep()
            self._stop()
        finally:
            self._kill()
        return code

    def _keep(self) -> Exit:
        while True:
            received = self._wait(self._next_due())
            if received in STOPPING:
                self._say("stopping (Ctrl-C again: at once)")
                return Exit.OK
            for kept in self._all():
                verdict = kept.look(time.monotonic())
                if verdict:
                    self._say(verdict.reason)
                if isinstance(verdict, GiveUp):
                    return verdict.code
            self._start_due()

    def _start_due(self) -> None:
        now = time.monotonic()
        for kept in self._all():
            if kept.due is not None and kept.due <= now:
                kept.start()

    def _stop(self) -> None:
        """Tell each rank to end, last first. What does not end in its time is killed."""
        self._on_stop()
        self._hurry_from = time.monotonic() + ECHO_S
        for rank in reversed(self._ranks):
            for kept in rank:
                kept.terminate()
            if not self._wait_for_end_of(rank):
                return

    def _wait_for_end_of(self, rank: list[_Kept]) -> bool:
        """False: told to stop at once."""
        until = time.monotonic() + max((kept.command.stop_s for kept in rank), default=0.0)
        while any(kept.lives for kept in rank):
            if time.monotonic() >= until:
                self._give_up_on(rank)
                return True
            if self._wait(until) in STOPPING and time.monotonic() >= self._hurry_from:
                self._say("killing what is left")
                return False
        return True

    def _give_up_on(self, rank: list[_Kept]) -> None:
        for kept in rank:
            if kept.lives:
                self._say(f"{kept.command.name} did not stop within {kept.command.stop_s:g} s: killing it")
                kept.kill()

    def _kill(self) -> None:
        for kept in self._all():
            kept.kill()
        until = time.monotonic() + UNKILLABLE_S
        while any(kept.lives for kept in self._all()) and time.monotonic() < until:
            self._wait(until)
        for kept in self._all():
            if kept.lives:
                self._say(f"{kept.command.name} does not end even by SIGKILL")

    def _wait(self, until: float | None) -> int | None:
        """The signal that came before `until`, if one did."""
        if until is None:
            return signal.sigwaitinfo(self._awaited).si_signo
        received = signal.sigtimedwait(self._awaited, max(until - time.monotonic(), 0.0))
        return received.si_signo if received else None

    def _next_due(self) -> float | None:
        return min((kept.due for kept in self._all() if kept.due is not None), default=None)

    def _all(self) -> Iterator[_Kept]:
        return (kept for rank in self._ranks for kept in rank)
