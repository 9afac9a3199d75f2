"""Waiting for descriptors, as the loops do that are not asyncio's.

Knows: select. Must not know: what the descriptors are, why anything is waited for.
"""

from __future__ import annotations

import math
import select


def poll_of(*descriptors: int) -> select.poll:
    """What waits until one of them can be read."""
    poll = select.poll()
    for descriptor in descriptors:
        poll.register(descriptor, select.POLLIN)
    return poll


def wait_ms(wake: float | None, now: float) -> int | None:
    """What `next_wake` means for `poll`, in whole milliseconds, rounded up: None waits for an event."""
    if wake is None or wake == math.inf:
        return None
    return math.ceil((wake - now) * 1000) if wake > now else 0
