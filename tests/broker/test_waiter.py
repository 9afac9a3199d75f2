"""headway_broker.waiter: it wakes for what can be read, and not before its time."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest

from headway_broker.waiter import SHORT_S, Waiter


@pytest.fixture
def waiter() -> Iterator[Waiter]:
    made = Waiter()
    yield made
    made.close()


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


@pytest.mark.parametrize("seconds", [None, 0.0, 0.0004, 0.01, SHORT_S, 10.0])
def test_what_can_be_read_is_said_at_once_however_long_it_may_wait(waiter, pipe, seconds) -> None:
    waiter.add(pipe[0])
    os.write(pipe[1], b"x")
    assert waiter.wait(seconds) == {pipe[0]}


@pytest.mark.parametrize("seconds", [0.0, 0.0004, 0.0123, SHORT_S, SHORT_S + 0.0004])
def test_it_does_not_come_back_too_early(waiter, pipe, seconds) -> None:
    waiter.add(pipe[0])
    started = time.monotonic()
    assert waiter.wait(seconds) == set()
    assert time.monotonic() - started >= seconds
