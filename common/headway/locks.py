"""A lock file that says whether its owner lives: the kernel lets go of it however the owner ends.

Knows: `flock`. Must not know: who owns what.

The file itself stays where it is: removing it would let two owners hold "the" lock, each on its own file.
"""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

TRIES = 10
AGAIN_S = 0.02  # somebody who only looks holds the lock for microseconds


class LockHeld(Exception):
    """Somebody else owns it."""


def take(path: Path) -> int:
    """Own the lock until the descriptor is closed, at the latest with the process. Children do not get it.

    Raises: LockHeld; OSError when the file cannot be made.
    """
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    for _ in range(TRIES):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return lock
        except BlockingIOError:
            time.sleep(AGAIN_S)
    os.close(lock)
    raise LockHeld(f"{path} is locked by a process that runs")


def is_held(path: Path) -> bool:
    """Whether a process owns the lock now. Raises: OSError when that cannot be told."""
    try:
        lock = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        return False
    finally:
        os.close(lock)
