"""headway_broker.waiter: it wakes for what can be read, and not before its time."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest

from headway_broker import waiter as waiting
from headway_broker.waiter import Waiter


@pytest.fixture(params=["few descriptors", "a descriptor that select does not take"])
def waiter(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Waiter:
    if request.param != "few descriptors":
        monkeypatch.setattr(waiting, "_SELECT_MAX", 3)
    return Waiter()


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


@pytest.mark.parametrize("seconds", [None, 0.0, 0.0004, 0.01, 10.0])
def test_what_can_be_read_is_said_at_once_however_long_it_may_wait(waiter, pipe, seconds) -> None:
    waiter.add(pipe[0])
    os.write(pipe[1], b"x")
    assert waiter.wait(seconds) == {pipe[0]}


@pytest.mark.parametrize("seconds", [0.0, 0.0004, 0.0123, 0.0504])
def test_it_does_not_come_back_too_early(waiter, pipe, seconds) -> None:
    waiter.add(pipe[0])
    started = time.monotonic()
    assert waiter.wait(seconds) == set()
    assert time.monotonic() - started >= seconds
