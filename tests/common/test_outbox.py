"""headway.outbox: what becomes of messages that the dealer does not take. (It has the real clock.)"""

from __future__ import annotations

import math
import time
from typing import Any

import pytest

from headway.calls import Call, Calls, CallTimes
from headway.lent import Lender
from headway.messages import Heartbeat, Message, Ping, Query, Requests
from headway.outbox import carry_out
from headway.wire import decode

ADDRESS = "ipc:///nowhere/a.sock"


class Refusing:
    """A dealer that takes messages, and refuses the one after the next `takes`."""

    def __init__(self, takes: int) -> None:
        self.taken: list[Message] = []
        self.takes = takes

    def send(self, frame: bytes) -> bool:
        self.takes -= 1
        if self.takes == -1:
            return False
        self.taken.append(decode(frame))
        return True


def carried_out(calls: Calls, dealer: Any, now: float, told: Any = lambda id, outcome: None) -> list[Message]:
    """What the dealer took of what there was to be done now."""
    before = len(dealer.taken)
    carry_out(calls.wake(now), calls, dealer, Lender(ADDRESS, 0), told, lambda id, reply: None)
    return dealer.taken[before:]  # type: ignore[no-any-return]


def busy(now: float) -> Calls:
    """Calls with two messages to send, and a Ping."""
    calls = Calls()
    calls.handle(Heartbeat(b"one"), now)
    for id in (1, 2, 3):
        calls.handle(Call(id, math.inf, query="stats" if id == 3 else ""), now)
    return calls


@pytest.mark.parametrize("taken", [[], [Requests], [Requests, Query]])
def test_after_a_message_that_was_refused_nothing_is_sent_of_what_came_with_it(taken) -> None:
    now = time.monotonic()
    calls, dealer = busy(now), Refusing(len(taken))
    assert [type(message) for message in carried_out(calls, dealer, now)] == taken
    later = calls.next_wake()
    assert later is not None
    assert carried_out(calls, dealer, later) == [Ping()]
    calls.handle(Heartbeat(b"one"), later)
    sent = [type(message) for message in carried_out(calls, dealer, later)]
    assert sent == [kind for kind in (Requests, Query) if kind not in taken]


def test_nor_where_one_who_is_told_of_an_outcome_asks_more_and_that_is_refused() -> None:
    now = time.monotonic()
    calls, dealer = busy(now), Refusing(100)
    calls.handle(Call(4, now + 0.001), now)
    carried_out(calls, dealer, now)
    late = now + 0.001 + CallTimes().grace_s
    calls.handle(Heartbeat(b"one"), late)

    def ask_more(id: int, outcome: Any) -> None:
        calls.handle(Call(5, math.inf), late)
        carried_out(calls, dealer, late)

    dealer.takes = 0
    assert carried_out(calls, dealer, late, ask_more) == [], "not even that number 4 is cancelled"
