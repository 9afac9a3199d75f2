"""Cutting a list into parts that fit into messages.

Knows: sizes. Must not know: what is in the list.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from headway.messages import REQUESTS_MAX

PART_BYTES_MAX = 8 << 20  # far below MESSAGE_BYTES_MAX, so that names and framing never matter
T = TypeVar("T")


def parts(entries: Iterable[T], size: Callable[[T], int], most: int = PART_BYTES_MAX) -> list[list[T]]:
    """The entries in order, in lists whose sizes sum to at most `most`, or hold one entry; none holds more
    than a message may list."""
    if isinstance(entries, list) and len(entries) == 1:  # PERF: one at a time
        return [entries]
    made: list[list[T]] = []
    room = -1
    for entry in entries:
        room -= size(entry)
        if room < 0 or len(made[-1]) >= REQUESTS_MAX:
            made.append([])
            room = most - size(entry)
        made[-1].append(entry)
    return made
