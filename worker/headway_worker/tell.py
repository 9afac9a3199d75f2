"""What a worker says of itself to systemd. Pure, but for the notifier that it is given.

Knows: the session, how long a batch may take. Must not know: sockets, clocks, threads.

The keeper calls `tell` at each of its turns, so a hung keeper says nothing; and it feeds the watchdog only
while the batch at hand is within its lease and LEASE_MARGIN_S, so neither does a worker whose runner hangs.
The broker acts first: at the lease's end it dismisses the worker, which then ends by itself (`Exit.STUCK`).
The margin is for a broker that is gone, or slow.
"""

from __future__ import annotations

import math

from headway.notify import Notifier
from headway_worker.session import Session

LEASE_MARGIN_S = 10.0
STATUS_S = 1.0
EXTEND_S = 30.0  # a worker that waits for its broker is starting for as long as that takes


class Tell:
    """One worker's word to systemd, if there is one. `wait_s` is how long its loop may wait at most."""

    def __init__(self, session: Session, notifier: Notifier) -> None:
        self._session = session
        self._notifier = notifier
        self.wait_s = notifier.wait_s or math.inf
        self._status_at = -math.inf if notifier.is_heard else math.inf
        self._is_ready = False
        self._is_stopping = False

    def tell(self, now: float) -> None:
        """Say what there is to say. PERF: not under systemd, two comparisons."""
        if now < self._session.leases.until + LEASE_MARGIN_S:
            self._notifier.watchdog(now)
        if now >= self._status_at:
            self._status_at = now + STATUS_S
            self._say_status()

    def _say_status(self) -> None:
        session = self._session
        if session.draining and not self._is_stopping:
            self._is_stopping = True
            self._notifier.stopping()
        if session.joined and not self._is_ready:
            self._is_ready = True
            self._notifier.ready(self._status())
        elif not self._is_ready:
            self._notifier.extend(EXTEND_S)
        self._notifier.status(self._status())

    def _status(self) -> str:
        session = self._session
        states = [copy.state for copy in session.copies.values()]
        loading = f", {states.count('loading')} loading" if "loading" in states else ""
        busy = "draining" if session.draining else "busy" if session.open else "idle"
        text = f"{states.count('ready')} models ready{loading}, {busy}"
        return text if session.joined else f"waits for the broker; {text}"
