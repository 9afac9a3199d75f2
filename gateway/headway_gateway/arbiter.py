"""gunicorn's arbiter, which also speaks to systemd, and lets old processes go when the new ones serve.

Knows: gunicorn's arbiter and what its loop calls. Must not know: uvicorn, the app, settings.

A process has begun to serve when it has said so for the first time (`Worker.callback_notify`, after its
client is open and it accepts connections): until then the file that it touches to say so bears the time of
the day at which it was made, which is far above the monotonic clock. Ready is the gateway when one serves.

gunicorn's own reload ends the old processes at once, while the new ones still import: the address is silent
for a second. Here they serve on until all new ones do.
"""

from __future__ import annotations

import time
from typing import Any

from gunicorn.arbiter import Arbiter

from headway.notify import Notifier


class NotifyingArbiter(Arbiter):
    """One gateway's parent process. It feeds the watchdog while one of its processes serves."""

    WORKERS: dict[int, Any]

    def __init__(self, app: Any, notifier: Notifier, address: str) -> None:
        super().__init__(app)
        self._notifier = notifier
        self._served_at = address
        self._was_ready = False

    def murder_workers(self) -> None:
        """Called at each turn of gunicorn's loop, once a second or more often."""
        super().murder_workers()
        serving = sum(map(self._serves, self.WORKERS.values()))
        if serving:
            self._notifier.watchdog()
        status = f"processes that serve {self._served_at}: {serving}"
        if serving and not self._was_ready:
            self._was_ready = True
            self._notifier.ready(status)
        self._notifier.status(status)

    def manage_workers(self) -> None:
        """Called at each turn, after `murder_workers`: there may be too few processes, or too many."""
        if len(self.WORKERS) <= self.num_workers or all(map(_has_served, self.WORKERS.values())):
            super().manage_workers()

    def reload(self) -> None:
        """New processes; `manage_workers` ends the old ones. Settings are not read again."""
        for _ in range(self.num_workers):
            self.spawn_worker()

    def stop(self, graceful: bool = True) -> None:
        """Called once, when it was told to end."""
        self._notifier.stopping()
        super().stop(graceful)

    def _serves(self, worker: Any) -> bool:
        return _has_served(worker) and time.monotonic() - worker.tmp.last_update() <= self.timeout


def _has_served(worker: Any) -> bool:
    try:
        return bool(worker.tmp.last_update() <= time.monotonic())
    except (OSError, ValueError):  # it has ended, and its file is closed
        return False
