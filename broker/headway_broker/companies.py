"""Whether anybody is left who could still join a batch.

Pure. Knows: what callers say of their companies (`headway.company`), who asked for which version lately. Must
not know: workers, batches, when anything is sent.

A partial batch waits for company. Where each caller that asked for the version lately has said that all who
ask through it wait for an answer already, only a newcomer could join it. So it need not wait, if newcomers
are rare: none came for `queues.DELAYS` times as long as it would wait, so in one wait of about so many there
would be one. A caller counts as long as that, too.

Invariant: what a caller said of its company is forgotten with the next outcome of any request of it.
"""

from __future__ import annotations

from typing import Any

from headway.company import COMPANY
from headway_broker.queues import Queue


class Companies:
    """Those of all callers."""

    def __init__(self) -> None:
        # Who said that theirs is complete, and for how many seconds nobody has joined. Empty mostly.
        self.complete: dict[bytes, float] = {}

    def asked(self, queue: Queue, caller: bytes, options: dict[str, Any], now: float) -> None:
        """A request was put into the queue."""
        if not queue.quiet_s:
            return
        said_ms = options.get(COMPANY)
        if type(said_ms) is int:
            self.complete[caller] = said_ms / 1000
        else:
            self.complete.pop(caller, None)
        queue.callers[caller] = now
        if len(queue.callers) > 1:
            lately = now - queue.quiet_s
            queue.callers = {who: at for who, at in queue.callers.items() if at >= lately}

    def answered(self, caller: bytes) -> None:
        """One of its company may ask again, or has gone."""
        self.complete.pop(caller, None)

    def are_complete(self, queue: Queue) -> bool:
        """Whether only a newcomer could join what waits here, and hardly will."""
        if not self.complete or not queue.quiet_s:
            return False
        return all(self.complete.get(who, 0.0) >= queue.quiet_s for who in queue.callers)
