"""headway.waiting: nobody wakes too early, and none sleeps for too long."""

from __future__ import annotations

import math
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway import waiting


@pytest.mark.parametrize(
    ("wake", "now", "wait_ms"),
    [
        (None, 5, None),
        (math.inf, 5, None),
        (-math.inf, 5, 0),
        (5, 5, 0),
        (4, 5, 0),
        (5.0001, 5, 1),
        (6, 5, 1000),
    ],
)
def test_waiting_is_rounded_up_to_milliseconds(wake, now, wait_ms):
    assert waiting.wait_ms(wake, now) == wait_ms


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6))
def test_nobody_wakes_too_early_and_none_sleeps_for_too_long(wake, now):
    wait_ms = waiting.wait_ms(wake, now)
    assert wait_ms >= 0
    assert now + wait_ms / 1000 >= wake - 1e-6
    assert now + wait_ms / 1000 <= max(wake, now) + 0.001 + 1e-6


def test_it_waits_for_all_of_them():
    pipes = [os.pipe() for _ in range(2)]
    poll = waiting.poll_of(*(reads for reads, _ in pipes))
    assert poll.poll(0) == []
    for reads, writes in pipes:
        os.write(writes, b"x")
        assert reads in dict(poll.poll(0))
    for end in (end for pipe in pipes for end in pipe):
        os.close(end)
