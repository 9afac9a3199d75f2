"""Doing what the `Calls` say: the same for both clients.

Knows: what each action means. Must not know: threads, event loops, who waits for an outcome.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from headway.calls import Action, Advance, Calls, Release, Send, Settle, Unsent
from headway.dealers import Dealer
from headway.lent import Lender
from headway.messages import Reply
from headway.wire import encode


def carry_out(
    actions: list[Action],
    calls: Calls,
    dealer: Dealer,
    lender: Lender,
    settle: Callable[[int, Any], None],
    advance: Callable[[int, Reply], None],
) -> None:
    """Settle, hand on pieces, release and send, in order. What the dealer does not take goes back to
    `calls`, and so does what was to be sent after it: the next thing that the dealer takes may go to another
    broker. (It may be refused to who is told of an outcome here, and asks something at once.)"""
    refused = calls.refused
    for action in actions:
        match action:
            case Settle(id=id, outcome=outcome):
                settle(id, outcome)
            case Release(id=id):
                lender.release(id)
            case Send(message=message):
                if calls.refused != refused or not dealer.send(encode(message)):
                    calls.handle(Unsent(message), time.monotonic())
            case Advance(id=id, reply=reply):
                advance(id, reply)
