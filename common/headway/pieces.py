"""Replies in pieces: what a request says that wants one, and what a reply says that is one.

Knows: the keys of options and meta, see PROTOCOL.md section 4. Must not know: who has open requests, sockets.

A caller that can take a reply in pieces says so (`STREAM`). What a model sends before it is through then
comes as replies of their own (`MORE`), in order, and the last one is the outcome as ever. Pieces of an
attempt that was given up mean nothing: all that is said of a request that was sent again says so (`ATTEMPT`).
"""

from __future__ import annotations

from typing import Any

from headway.messages import BATCH_ROWS_MAX, Reply

STREAM, TRUE = "stream", "true"  # of a request
MORE = "more"  # of a reply: 1, it is not the last. (An error is always the last.)
ATTEMPT = (
    "attempt"  # of a reply with code 0 to a request with STREAM: which attempt of its it answers, if not 0
)

NOBODY = BATCH_ROWS_MAX  # the place of a piece that says only that its batch goes on

# What may wait for one caller that takes its pieces more slowly than they come, at the broker or with itself.
WAITING_BYTES_MAX = 1 << 26
FRAMING_BYTES = 256  # what a piece takes beside its content, about


def takes_pieces(options: dict[str, Any]) -> bool:
    """Whether a request's options say so."""
    return options.get(STREAM) == TRUE


def size_of(reply: Reply) -> int:
    """About what it takes of memory while it waits."""
    return FRAMING_BYTES + len(reply.content)
