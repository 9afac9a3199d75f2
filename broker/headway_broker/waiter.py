"""Waiting for one of several descriptors, to the microsecond.

Knows: select. Must not know: what the descriptors are.

PERF: epoll and ZeroMQ's poll count in whole milliseconds and round up: a batch that waits 1 ms for company
left after 1.3 (median, one request at a time). `select` counts in microseconds; it is asked about the epoll's
one descriptor, and only for short waits. The kernel's own slack, 50 us for a thread that has not said
otherwise, is taken away too.
"""

from __future__ import annotations

import ctypes
import select

SHORT_S = 0.05
_SELECT_MAX = 1024  # no descriptor from there on
_PR_SET_TIMERSLACK = 29  # linux/prctl.h


class Waiter:
    """`close` it in the end."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._counts_finely = self._epoll.fileno() < _SELECT_MAX
        # Of the calling thread. Where that is not allowed, it is as late as before.
        ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)

    def add(self, fd: int) -> None:
        self._epoll.register(fd, select.EPOLLIN)

    def wait(self, seconds: float | None) -> set[int]:
        """The descriptors that can be read, after at most so long; None: however long it takes."""
        if seconds is not None and 0 < seconds < SHORT_S and self._counts_finely:
            select.select([self._epoll], [], [], seconds)
            seconds = 0
        return {fd for fd, _ in self._epoll.poll(seconds)}

    def close(self) -> None:
        self._epoll.close()
