"""What waits of a reply to be taken: in order, and bounded."""

from __future__ import annotations

import asyncio
import threading

import pytest

from headway.errors import QueueFull
from headway.inflow import Inflow, ThreadInflow
from headway.messages import Reply
from headway.pieces import FRAMING_BYTES

LAST = Reply(1, 0, b"last", {})


def piece(i):
    return Reply(1, 0, b"%04d" % i, {"more": 1})


def room(count):
    return count * (FRAMING_BYTES + 4)


def test_a_task_takes_what_came_before_it_and_while_it_waits():
    async def run():
        inflow = Inflow()
        inflow.put(piece(0))
        taken = [await inflow.next()]
        waiting = asyncio.create_task(inflow.next())
        await asyncio.sleep(0)
        inflow.put(piece(1))
        inflow.end(LAST)
        taken += [await waiting, await inflow.next()]
        return taken

    assert asyncio.run(run()) == [piece(0), piece(1), LAST]


def test_a_thread_takes_what_came_before_it_and_while_it_waits():
    inflow, taken = ThreadInflow(), []

    def take():
        while not taken or taken[-1] is not LAST:
            taken.append(inflow.next())

    inflow.put(piece(0))
    taker = threading.Thread(target=take)
    taker.start()
    for i in range(1, 100):
        inflow.put(piece(i))
    inflow.end(LAST)
    taker.join(5)
    assert taken == [*map(piece, range(100)), LAST]


async def next_of(inflow):
    return inflow.next() if isinstance(inflow, ThreadInflow) else await inflow.next()


@pytest.mark.parametrize("kind", [Inflow, ThreadInflow])
def test_too_much_ends_in_an_error_after_what_waits(kind):
    async def run():
        inflow = kind(room(3))
        for i in range(5):
            inflow.put(piece(i))
        inflow.end(LAST)
        taken = [await next_of(inflow) for _ in range(4)]
        inflow.put(piece(9))
        return taken

    *taken, error = asyncio.run(run())
    assert taken == [piece(0), piece(1), piece(2)]
    assert type(error) is QueueFull
    assert f"{room(3)} bytes" in str(error)


@pytest.mark.parametrize("kind", [Inflow, ThreadInflow])
def test_who_keeps_up_may_take_any_number(kind):
    async def run():
        inflow = kind(room(1))
        for i in range(50):
            inflow.put(piece(i))
            assert await next_of(inflow) == piece(i)

    asyncio.run(run())
