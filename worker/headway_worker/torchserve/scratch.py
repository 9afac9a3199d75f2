"""Private temporary folders that do not outlive their owner.

Knows: temporary folders, locks. Must not know: archives.

A folder is made by `mkdtemp` (mode 0700, a name nobody guesses) and locked for as long as it is in use; the
kernel lets go of the lock however the process ends. A sweep removes those of this user that nobody holds, so
that a worker that was killed leaves nothing for longer than until the next archive is loaded.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import weakref
from pathlib import Path

PREFIX = "headway-archive-"


class Scratch:
    """A folder of our own, until `close`. `path` is without links."""

    def __init__(self) -> None:
        sweep()
        self.path, lock = _locked()
        # Called at the latest when the process ends as it should.
        self._remove = weakref.finalize(self, _removed, self.path, lock, os.getpid())

    def close(self) -> None:
        """Remove it with all that is in it; may be called twice."""
        self._remove()


def sweep() -> None:
    """Remove the folders whose owners are gone. What cannot be removed stays."""
    for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        try:
            if path.lstat().st_uid != os.geteuid() or path.is_symlink():
                continue
            lock = _lock(path)
        except OSError:  # gone, in use, or no folder
            continue
        shutil.rmtree(path, ignore_errors=True)
        os.close(lock)


def _removed(path: Path, lock: int, owner: int) -> None:
    if os.getpid() == owner:  # and not a child that a handler forked
        shutil.rmtree(path, ignore_errors=True)
        os.close(lock)


def _locked() -> tuple[Path, int]:
    while True:
        path = Path(tempfile.mkdtemp(prefix=PREFIX)).resolve()
        try:
            lock = _lock(path)
        except OSError:  # swept by somebody else in the moment before it was locked
            continue
        if path.is_dir():
            return path, lock
        os.close(lock)


def _lock(path: Path) -> int:
    lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise
    return lock
