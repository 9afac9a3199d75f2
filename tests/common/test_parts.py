"""Cutting lists into parts: nothing is lost, nothing is too large."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from headway.messages import REQUESTS_MAX
from headway.parts import PART_BYTES_MAX, parts


@given(st.lists(st.integers(0, 120)), st.integers(0, 100))
def test_parts_keep_every_entry_in_order_and_within_bounds(sizes, most):
    numbered = list(enumerate(sizes))
    made = parts(numbered, lambda entry: entry[1], most)
    assert [entry for part in made for entry in part] == numbered
    assert all(part for part in made)
    assert all(len(part) == 1 or sum(size for _, size in part) <= most for part in made)


@given(st.lists(st.integers(0, 120)), st.integers(0, 100))
def test_no_part_could_have_taken_the_first_entry_of_the_next(sizes, most):
    made = parts(sizes, lambda size: size, most)
    for part, following in pairwise(made):
        assert sum(part) + following[0] > most


def test_entries_without_size_are_cut_by_their_number():
    made = parts(range(REQUESTS_MAX + 1), lambda entry: 0)
    assert [len(part) for part in made] == [REQUESTS_MAX, 1]


def test_nothing_makes_no_parts():
    assert parts([], len) == []


def test_an_entry_over_the_limit_travels_alone():
    assert parts([b"a", bytes(PART_BYTES_MAX + 1), b"b"], len)[1] == [bytes(PART_BYTES_MAX + 1)]
