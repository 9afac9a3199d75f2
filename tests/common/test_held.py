"""headway.held: slots come back when the broker says so, or after their quarantine."""

from __future__ import annotations

import math

import pytest

from headway.held import ASK_S, Held


@pytest.fixture
def held():
    return Held(orphan_s=100.0)


def test_nothing_is_held_at_first(held):
    assert not held
    assert (held.asks(0.0), held.due(0.0), held.next_wake()) == ([], [], math.inf)


def test_what_waits_comes_back_once(held):
    held.wait(1, 0.0, ask=False)
    held.wait(2, 0.0, ask=False)
    assert held.release([2, 2, 9]) == [2]
    assert held.release([1]) == [1]
    assert not held


def test_what_the_broker_does_not_know_of_is_asked_for_at_once(held):
    held.wait(1, 0.0, ask=True)
    assert held.hurry
    assert held.asks(0.0) == [1]
    assert not held.hurry


def test_all_that_waits_is_asked_for_again_and_again(held):
    held.wait(1, 0.0, ask=True)
    held.wait(2, 0.0, ask=False)
    held.asks(0.0)
    assert held.next_wake() == ASK_S
    assert held.asks(ASK_S) == [1, 2]
    assert held.asks(ASK_S) == []
    assert held.asks(2 * ASK_S) == [1, 2]


def test_what_came_back_meanwhile_is_not_asked_for(held):
    held.wait(1, 0.0, ask=True)
    held.release([1])
    assert held.asks(0.0) == []


def test_after_a_quarantine_slots_come_back_by_themselves(held):
    held.quarantine(1, 0.0)
    held.quarantine(2, 1.0)
    assert held.next_wake() == 100.0
    assert held.due(99.0) == []
    assert held.due(100.5) == [1]
    assert held.due(101.0) == [2]


def test_a_new_brokers_word_is_not_enough_for_what_the_old_one_was_sent(held):
    held.wait(1, 0.0, ask=True)
    held.new_broker(5.0)
    assert held.release([1]) == []
    assert held.asks(50.0) == []
    assert held.due(105.0) == [1]


def test_there_is_no_hurry_for_what_was_released_before_it_was_asked_for():
    held = Held(orphan_s=120.0)
    held.wait(1, 0.0, ask=True)
    assert held.hurry
    assert held.release([1]) == [1]
    assert not held.hurry and not held.asks(0.0)
