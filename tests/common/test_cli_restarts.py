"""The back-off, without a process or a sleep."""

from __future__ import annotations

import signal

import pytest

from headway.cli.restarts import Again, GiveUp, Restarts, how_it_ended
from headway.exits import FINAL, Exit


def waits(restarts: Restarts, lives_s: list[float], code: int = 1) -> list[float]:
    """The wait before each restart of a process that lived so long each time."""
    now, found = 0.0, []
    for life_s in lives_s:
        restarts.started(now)
        now += life_s
        verdict = restarts.ended(code, now)
        assert isinstance(verdict, Again)
        found.append(verdict.wait_s)
        now += verdict.wait_s
    return found


def test_the_wait_doubles_up_to_its_limit() -> None:
    assert waits(Restarts("w0"), [0.1] * 8) == [0.25, 0.5, 1, 2, 4, 8, 10, 10]


def test_a_long_life_starts_the_waits_anew() -> None:
    assert waits(Restarts("w0"), [1, 1, 29, 30, 1]) == [0.25, 0.5, 1, 0.25, 0.5]


def test_a_process_that_was_told_to_end_by_somebody_else_is_started_again() -> None:
    assert isinstance(Restarts("w0").ended(0, 1.0), Again)


@pytest.mark.parametrize("code", sorted(FINAL))
def test_a_final_exit_code_is_not_tried_again(code: Exit) -> None:
    verdict = Restarts("broker").ended(code, 1.0)
    assert verdict == GiveUp(code, f"broker ended with exit code {code.value} ({code.name})")


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (-signal.SIGKILL, "was killed by SIGKILL"),
        (-signal.SIGSEGV, "was killed by SIGSEGV"),
        (-signal.SIGRTMIN - 1, "was killed by signal 35"),
        (70, "ended with exit code 70 (STUCK)"),
        (0, "ended with exit code 0 (OK)"),
        (3, "ended with exit code 3"),
    ],
)
def test_an_end_has_a_name(code: int, words: str) -> None:
    assert how_it_ended(code) == words
