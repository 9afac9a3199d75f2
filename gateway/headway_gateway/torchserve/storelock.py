"""One at a time: who changes which versions are registered holds the store's lock, in whichever process.

It is held from the look whether a version is there until the broker knows of it, or does no longer; never
while a model loads. A process that dies lets go of it; what it left is then known for what it is: a version
in the store that nobody is at work on and that the broker does not know.

Knows: files. Must not know: what is changed.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from headway.torchserve.registration import HIDDEN

FILE = ".torchserve.lock"
LOOK_S = 0.02


@asynccontextmanager
async def held(store: Path) -> AsyncIterator[None]:
    """Waits for it. Hidden folders that a dead process left are gone then."""
    lock = os.open(store / FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        while not _taken(lock):
            await asyncio.sleep(LOOK_S)
        await asyncio.to_thread(_sweep, store)
        yield
    finally:
        os.close(lock)


def _taken(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _sweep(store: Path) -> None:
    for folder in store.glob(f"{HIDDEN}*"):
        try:
            is_old = time.time() - folder.stat().st_mtime > 60.0  # a start may be at work without the lock
        except OSError:
            continue
        if is_old:
            shutil.rmtree(folder, ignore_errors=True)
