"""How processes end, in numbers and words."""

from __future__ import annotations

from headway.exits import FINAL, Exit, how_it_ended


def test_an_end_is_said_with_the_codes_name() -> None:
    assert how_it_ended(71) == "ended with exit code 71 (DEVICE_FAULT)"
    assert how_it_ended(3) == "ended with exit code 3"
    assert how_it_ended(-9) == "was killed by SIGKILL"


def test_codes_after_which_the_same_start_helps_are_not_final() -> None:
    assert not {Exit.DEVICE_FAULT, Exit.STUCK, Exit.TEMPORARY} & FINAL
    assert {Exit.CONFIG, Exit.LOCKED, Exit.USAGE} == FINAL
