"""One child process, which dies with its parent unless it is told not to.

Knows: fork, process groups, Linux's parent-death signal. Must not know: what runs in it, restarts.

Each child leads a process group of its own, so that the terminal's Ctrl-C reaches only the parent, which
stops the children in order; and so that a child's own children (gunicorn's workers) can be found when
their parent is gone. If the parent of a tied child dies in any way, even by SIGKILL, the kernel sends the
child SIGTERM. One that is not tied lives on: the agent's workers, which its next start finds again.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

PR_SET_PDEATHSIG = 1
_prctl = ctypes.CDLL(None, use_errno=True).prctl  # found here: after a fork little may be called


class Child:
    """A process that runs `arguments`. Start a tied one from the thread that lives longest: the kernel takes
    the end of the *thread* that forked for the parent's end. `output`: a descriptor for all that it prints;
    None for the parent's own. Raises: OSError when it cannot be started."""

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        tied: bool = True,
        environment: Mapping[str, str] | None = None,
        output: int | None = None,
    ) -> None:
        self._process = subprocess.Popen(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            process_group=0,
            env=environment,
            preexec_fn=_tie_to(os.getpid()) if tied else None,
        )
        self.pid = self._process.pid

    def ended(self) -> int | None:
        """The exit code, or minus the signal's number; None while it runs. What it left of its process
        group is then killed."""
        if self._process.returncode is None and self._is_dead():
            self.kill()  # before the process is reaped: until then nobody else can get its number
            self._process.wait()
        return self._process.returncode

    def terminate(self) -> None:
        """Ask it to end."""
        if self.ended() is None:
            os.kill(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        """End it and its own children at once."""
        if self._process.returncode is None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)

    def _is_dead(self) -> bool:
        flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
        return os.waitid(os.P_PID, self.pid, flags) is not None


def _tie_to(parent: int) -> Callable[[], None]:
    """What the child does between fork and exec."""

    def tie() -> None:
        _prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it died before the line above
            os._exit(1)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())  # the parent blocks the signals it waits for

    return tie
