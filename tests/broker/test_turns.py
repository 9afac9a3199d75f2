"""Whose turn it is: time by shares."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway_broker.turns import Turns

A, B, C = ("a", "1"), ("b", "1"), ("c", "1")
Key = tuple[str, str]


def served(turns: Turns, shares: dict[Key, float], costs: dict[Key, float], count: int) -> list[Key]:
    """Whose turn it is, so many times, when all wait all the time."""
    order = []
    for _ in range(count):
        for key, share in shares.items():
            turns.wait(key, share)
        key = turns.first
        assert key
        turns.take(costs[key])
        order.append(key)
    return order


def test_who_came_first_is_first() -> None:
    turns = Turns()
    assert turns.first is None
    turns.wait(B, 1.0)
    turns.wait(A, 1.0)
    assert turns.first == B
    turns.take(1.0)
    assert (turns.first, B in turns.waiting, len(turns.waiting)) == (A, False, 1)


def test_models_that_always_wait_get_turns_by_what_they_cost() -> None:
    order = served(Turns(), {A: 1.0, B: 1.0}, {A: 4.0, B: 1.0}, 50)
    assert Counter(order) == {A: 10, B: 40}


def test_a_model_that_waited_for_nothing_has_saved_nothing() -> None:
    turns = Turns()
    served(turns, {A: 1.0}, {A: 1.0}, 100)
    assert Counter(served(turns, {A: 1.0, B: 1.0}, {A: 1.0, B: 1.0}, 10))[B] <= 6


def test_a_newcomer_is_before_one_that_just_had_its_turn() -> None:
    turns = Turns()
    served(turns, {A: 1.0}, {A: 5.0}, 3)
    turns.wait(A, 1.0)
    turns.wait(B, 1.0)
    assert turns.first == B


def test_who_says_twice_that_it_waits_waits_once() -> None:
    turns = Turns()
    turns.wait(A, 2.0)
    turns.wait(A, 2.0)
    assert (len(turns.waiting), turns.rivals) == (1, 2.0)
    turns.pass_over()
    assert (turns.first, turns.rivals) == (None, 0.0)


def test_who_is_passed_over_is_charged_nothing() -> None:
    turns = Turns()
    turns.wait(A, 1.0)
    turns.pass_over()
    turns.wait(B, 1.0)
    turns.wait(A, 1.0)
    assert turns.first == B
    assert turns.behind_s(A, 1.0) == 0.0


def test_a_turn_that_cost_more_than_was_expected_is_paid_for() -> None:
    turns, busy = Turns(), Counter[Key]()
    for _ in range(100):
        for key in (A, B):
            turns.wait(key, 1.0)
        key = turns.first
        assert key
        turns.take(1.0)  # what was expected of both
        cost = 3.0 if key == A else 1.0
        turns.correct(key, cost - 1.0, 1.0)
        busy[key] += cost  # type: ignore[assignment]
    assert busy[A] == pytest.approx(busy[B], rel=0.1)


def test_a_correction_for_nobody_known_changes_nothing() -> None:
    turns = Turns()
    turns.correct(A, 5.0, 1.0)
    turns.wait(A, 1.0)
    turns.wait(B, 1.0)
    assert turns.first == A


def test_how_long_others_are_served_before() -> None:
    turns = Turns()
    for key in (A, B):
        turns.wait(key, 1.0)
    turns.take(6.0)
    turns.wait(A, 1.0)
    turns.wait(C, 2.0)
    assert turns.rivals == 4.0
    assert turns.behind_s(A, 1.0) == 6.0 * 3.0, "until A's turn, B and C get as much by their shares"
    assert turns.behind_s(B, 1.0) == 0.0


KEYS = [(name, "1") for name in "abcde"]


@given(
    st.lists(st.tuples(st.floats(0.001, 10.0), st.sampled_from((0.5, 1.0, 2.0, 5.0))), min_size=2, max_size=5)
)
def test_time_is_shared_by_shares_to_within_one_batch_each(models: list[tuple[float, float]]) -> None:
    """The law of start-time fair queueing: no two that always wait are further apart than a batch of each."""
    costs = {key: cost for key, (cost, _) in zip(KEYS, models, strict=False)}
    shares = {key: share for key, (_, share) in zip(KEYS, models, strict=False)}
    turns, busy = Turns(), dict.fromkeys(costs, 0.0)
    for _ in range(200):
        [key] = served(turns, shares, costs, 1)
        busy[key] += costs[key]
        for one in costs:
            for other in costs:
                apart = abs(busy[one] / shares[one] - busy[other] / shares[other])
                assert apart <= (costs[one] / shares[one] + costs[other] / shares[other]) * (1 + 1e-6)


@given(st.lists(st.tuples(st.sampled_from(("wait", "take", "pass")), st.sampled_from(KEYS)), max_size=60))
def test_now_never_goes_back_and_everybody_who_waits_is_found(steps: list[tuple[str, Key]]) -> None:
    turns, waiting = Turns(), set[Key]()
    for step, key in steps:
        before = turns.now
        if step == "wait":
            turns.wait(key, 1.0)
            waiting.add(key)
        elif turns.first:
            waiting.remove(turns.first)
            if step == "take":
                turns.take(1.0)
            else:
                turns.pass_over()
        assert turns.now >= before
        assert (len(turns.waiting), turns.rivals) == (len(waiting), float(len(waiting)))
        assert (turns.first in waiting) == bool(waiting)
