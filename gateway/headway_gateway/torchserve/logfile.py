"""A log file that several processes write, as TorchServe names and rotates them.

Knows: files. Must not know: what is written.

Each write is whole lines at the file's end (O_APPEND), so lines of several processes never mix. A file that
is full or of another day is renamed to `NAME.DATE.log` (`NAME.DATE.2.log`, ...), by whoever holds the lock
beside it; the others notice at their next look that the name is another file's. The newest KEPT of the
renamed ones stay. A disk that is full costs lines, never a request: it is said once.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import localtime, strftime

from headway import logs

_log = logs.get("headway.gateway")
BYTES_MAX = 100 << 20
KEPT = 5
LOOK_S = 1.0


class LogFile:
    """`name` without `.log`. `open` makes the file, and its folder."""

    def __init__(self, folder: Path, name: str, bytes_max: int = BYTES_MAX) -> None:
        self._folder = folder
        self._name = name
        self._bytes_max = bytes_max
        self._path = folder / f"{name}.log"
        self._fd = -1
        self._day = ""
        self._look_at = 0.0
        self._is_told = False

    def open(self, now: float) -> None:
        """`now`: seconds since 1970, as in `write`."""
        with self._said():
            self._folder.mkdir(parents=True, exist_ok=True)
            self._look(now)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1

    def write(self, lines: str, now: float) -> None:
        """Whole lines."""
        with self._said():
            if self._fd < 0 or now >= self._look_at:
                self._look(now)
            os.write(self._fd, lines.encode(errors="replace"))

    @contextmanager
    def _said(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if not self._is_told:
                self._is_told = True
                _log.error("cannot write a log file (told once)", file=self._path, why=error.strerror)

    def _look(self, now: float) -> None:
        """Have the right file open."""
        self._look_at = now + LOOK_S
        if self._fd < 0 or not self._is_current():
            self._reopen(now)
        size = os.fstat(self._fd).st_size
        if not size:
            self._day = _day(now)
        elif size >= self._bytes_max or self._day != _day(now):
            self._rotate(now)

    def _is_current(self) -> bool:
        try:
            return os.path.samestat(self._path.stat(), os.fstat(self._fd))
        except FileNotFoundError:
            return False

    def _reopen(self, now: float) -> None:
        fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self.close()
        self._fd = fd
        found = os.fstat(fd)
        self._day = _day(found.st_mtime if found.st_size else now)

    def _rotate(self, now: float) -> None:
        lock = os.open(self._folder / f".{self._name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if self._is_current():
                self._path.rename(self._free_name())
                self._remove_old()
            self._reopen(now)
        except BlockingIOError:  # somebody else is at it
            return
        finally:
            os.close(lock)

    def _free_name(self) -> Path:
        names = [self._folder / f"{self._name}.{self._day}.log"]
        while names[-1].exists():
            names.append(self._folder / f"{self._name}.{self._day}.{len(names) + 1}.log")
        return names[-1]

    def _remove_old(self) -> None:
        old = sorted(self._folder.glob(f"{self._name}.*.log"), key=lambda path: path.stat().st_mtime_ns)
        for path in old[:-KEPT]:
            with suppress(FileNotFoundError):
                path.unlink()


def _day(at: float) -> str:
    return strftime("%Y-%m-%d", localtime(at))


class Stamp:
    """What every line begins with: the time, in the host's zone. PERF: made once in a second."""

    def __init__(self) -> None:
        self._second = -1
        self._text = ""

    def at(self, now: float) -> str:
        second = int(now)
        if second != self._second:
            self._second, self._text = second, strftime("%Y-%m-%dT%H:%M:%S", localtime(second))
        return f"{self._text},{int((now - second) * 1000):03d} - "
