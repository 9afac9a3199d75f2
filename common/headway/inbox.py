"""Reading what has arrived at a DEALER: the same for both clients and for a worker.

Knows: that a message which is none costs its sender that message and nothing else. Must not know: what
messages mean.
"""

from __future__ import annotations

from collections.abc import Callable

from headway.dealers import Dealer
from headway.errors import RemoteProtocolError
from headway.logs import Log
from headway.messages import Message
from headway.wire import decode


def drain(dealer: Dealer, most: int, hear: Callable[[Message], None], log: Log) -> int:
    """Give everything that has arrived to `hear`, at most `most` messages; returns how many there were.

    What is no message, or one that `hear` refuses with a RemoteProtocolError, is logged and dropped.
    """
    for count in range(most):
        frame = dealer.receive()
        if frame is None:
            return count
        try:
            hear(decode(frame))
        except RemoteProtocolError as error:
            log.warning("message refused", reason=str(error))
    return most
