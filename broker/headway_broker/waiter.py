"""Waiting for one of several descriptors, to the microsecond.

Knows: select. Must not know: what the descriptors are.

PERF: epoll and poll count in whole milliseconds and round up: a batch that waits 1 ms for company left after
1.3 (median, one request at a time). `select` counts in microseconds, and of so few descriptors it costs no
more than they do: 10 us with cold caches, where an epoll of them took 12, and both after one another 17. The
kernel's own slack, 50 us for a thread that has not said otherwise, is taken away too.
"""

from __future__ import annotations

import ctypes
import math
import select

_SELECT_MAX = 1024  # no descriptor from there on
_PR_SET_TIMERSLACK = 29  # linux/prctl.h


class Waiter:
    """Of the thread that makes it, and for a handful of descriptors."""

    def __init__(self) -> None:
        self._descriptors: list[int] = []
        self._poll = select.poll()  # where there is a descriptor that `select` does not take
        self._counts_finely = True
        # Of the calling thread. Where that is not allowed, it is as late as before.
        ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)

    def add(self, fd: int) -> None:
        self._descriptors.append(fd)
        self._poll.register(fd, select.POLLIN)
        self._counts_finely = self._counts_finely and fd < _SELECT_MAX

    def wait(self, seconds: float | None) -> set[int]:
        """The descriptors that can be read, after at most so long; None: however long it takes."""
        if self._counts_finely:
            return set(select.select(self._descriptors, (), (), seconds)[0])
        return {fd for fd, _ in self._poll.poll(None if seconds is None else math.ceil(seconds * 1000))}
