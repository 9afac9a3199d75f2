"""Who rides in a running batch."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from headway_worker.running import Running


def test_those_who_come_ride_as_long_as_there_is_room_and_then_wait() -> None:
    running: Running[str] = Running(2)
    for number, rider in enumerate("abc"):
        running.join(number, rider)
    assert running.riders == {0: "a", 1: "b"}
    assert (len(running), running.oldest) == (3, 0)


def test_who_leaves_makes_room_for_the_one_that_waits_longest() -> None:
    running: Running[str] = Running(2)
    for number, rider in enumerate("abcd"):
        running.join(number, rider)
    assert running.leave(0) == "a"
    assert list(running.riders.values()) == ["b", "c"], "in the order in which they came"
    assert running.leave(3) == "d", "one that waits may go, too"
    assert running.leave(3) is None
    assert len(running) == 2


def test_one_that_must_be_alone_waits_for_all_and_all_wait_for_it() -> None:
    running: Running[str] = Running(3)
    running.join(0, "a")
    running.join(1, "alone", alone=True)
    running.join(2, "b")
    assert list(running.riders) == [0]
    running.leave(0)
    assert list(running.riders) == [1]
    running.leave(1)
    assert list(running.riders) == [2]


@given(st.integers(1, 4), st.lists(st.integers(0, 9)))
def test_whoever_comes_and_goes_who_must_be_alone_is(size: int, moves: list[int]) -> None:
    running: Running[int] = Running(size)
    inside: list[int] = []
    for number in moves:
        if number in inside:
            inside.remove(number)
            assert running.leave(number) == number
        else:
            running.join(number, number, alone=number > 6)
            inside.append(number)
        running.check()
        riding = list(running.riders)
        assert riding == inside[: len(riding)] and bool(riding) == bool(inside)


@given(st.integers(1, 4), st.lists(st.integers(0, 9)))
def test_whoever_comes_and_goes_nobody_waits_while_there_is_room(size: int, moves: list[int]) -> None:
    running: Running[int] = Running(size)
    inside: dict[int, int] = {}
    for number in moves:
        if number in inside:
            assert running.leave(number) == inside.pop(number)
        else:
            running.join(number, number)
            inside[number] = number
        running.check()
        assert len(running) == len(inside)
        assert list(running.riders) == list(inside)[:size]
