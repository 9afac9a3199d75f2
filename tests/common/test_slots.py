"""headway.slots: no byte has two owners, and all come back."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.slots import BLOCK_BYTES_MIN, Slots

ARENA = 1 << 18


@given(st.lists(st.one_of(st.integers(0, ARENA), st.just(-1)), max_size=60), st.randoms())
def test_slots_never_overlap_and_all_come_back(steps, random):
    slots, taken = Slots(ARENA), []
    for step in steps:
        if step >= 0:
            slot = slots.take(step)
            taken += [slot] if slot else []
        elif taken:
            slots.free(taken.pop(random.randrange(len(taken))))
        slots.check()
        ends = sorted((slot.offset, slot.offset + slot.length) for slot in taken)
        assert all(end <= start for (_, end), (start, _) in pairwise(ends))
    for slot in taken:
        slots.free(slot)
    slots.check()
    whole = slots.take(ARENA)
    assert whole and whole.offset == 0


def test_a_full_arena_says_so_and_serves_again_when_something_is_freed():
    slots = Slots(4 * BLOCK_BYTES_MIN)
    taken = [slots.take(BLOCK_BYTES_MIN) for _ in range(4)]
    assert slots.take(1) is None
    slots.free(taken[2])
    assert slots.take(1).offset == taken[2].offset


def test_a_slot_larger_than_the_arena_is_refused():
    assert Slots(BLOCK_BYTES_MIN).take(BLOCK_BYTES_MIN + 1) is None


def test_the_block_that_was_freed_last_is_taken_first():
    slots = Slots(8 * BLOCK_BYTES_MIN)
    _, second, _ = (slots.take(BLOCK_BYTES_MIN) for _ in range(3))
    slots.free(second)
    assert slots.take(10).offset == second.offset


def test_a_slot_cannot_be_freed_twice_or_by_an_old_name():
    slots = Slots(BLOCK_BYTES_MIN)
    old = slots.take(5)
    slots.free(old)
    with pytest.raises(ValueError):
        slots.free(old)
    new = slots.take(5)
    assert new.generation > old.generation
    with pytest.raises(ValueError):
        slots.free(old)


@pytest.mark.parametrize("size", [0, 100, BLOCK_BYTES_MIN * 3])
def test_an_arena_is_a_power_of_two(size):
    with pytest.raises(ValueError):
        Slots(size)
