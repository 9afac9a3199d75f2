"""The file that says which server runs: `.model_server.pid` in the temporary folder, where TorchServe has it.

Knows: the file, its lock, how a process is asked to end. Must not know: what runs.

The server holds a lock on its file, so that a number which somebody else has by now is not taken for it. A
TorchServe that left its own file there is known by its command line.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from headway import locks

FILE = ".model_server.pid"
STOP_S = 60.0
_LOOK_S = 0.05
_THEIRS = b"org.pytorch.serve.ModelServer"


class PidFile:
    """The one in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        self._lock: int | None = None

    def running(self) -> int | None:
        """The number of the server that runs, if one does."""
        try:
            pid = int(self.path.read_text().split("\n", 1)[0])
        except (OSError, ValueError):
            return None
        return pid if locks.is_held(self.path) or _THEIRS in _command(pid) else None

    @property
    def is_orphan(self) -> bool:
        """A file of a server that is gone."""
        return self.path.exists() and self.running() is None

    def take(self) -> None:
        """Write this process's number, for as long as it lives. Raises: LockHeld, OSError."""
        self._lock = locks.take(self.path)
        os.fchmod(self._lock, 0o644)
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, f"{os.getpid()}".encode(), 0)

    def remove(self) -> None:
        """Nobody runs any more."""
        self.path.unlink(missing_ok=True)

    def end(self, pid: int, wait_s: float = STOP_S) -> bool:
        """Ask the server to end, and wait; whether it did. Raises: ProcessLookupError, PermissionError."""
        os.kill(pid, signal.SIGTERM)
        until = time.monotonic() + wait_s
        while self.path.exists() and self.running() == pid:
            if time.monotonic() >= until:
                return False
            time.sleep(_LOOK_S)
        return True


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
