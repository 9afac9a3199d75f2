"""Sizes of batches: what a batch is padded to, and what warm-up runs."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.models import ModelSpec
from headway_worker.buckets import bucket_of, buckets_of, powers_of_two, sizes_to_try

SPEC = ModelSpec("m", "1", "/", "python", batch_size_max=6)


@pytest.mark.parametrize(("most", "powers"), [(1, (1,)), (2, (1, 2)), (5, (1, 2, 4, 5)), (8, (1, 2, 4, 8))])
def test_powers_of_two_end_with_the_largest_batch(most, powers):
    assert powers_of_two(most) == powers


def test_what_is_fixed_for_a_size_gets_powers_of_two_on_a_gpu():
    assert buckets_of(SPEC, on_gpu=True) == ()
    for spec in (replace(SPEC, cuda_graphs=True), replace(SPEC, options={"compile": True})):
        assert buckets_of(spec, on_gpu=True) == (1, 2, 4, 6)
        assert buckets_of(spec, on_gpu=False) == ()
    assert buckets_of(replace(SPEC, options={"compile": False}), on_gpu=True) == ()


def test_buckets_that_are_given_hold_everywhere():
    spec = replace(SPEC, batch_buckets=(2, 6), cuda_graphs=True)
    assert buckets_of(spec, on_gpu=True) == buckets_of(spec, on_gpu=False) == (2, 6)


@given(st.integers(1, 100), st.sets(st.integers(1, 64)).map(lambda s: tuple(sorted(s))))
def test_a_batch_gets_the_least_bucket_that_holds_it_or_its_own_size(rows, buckets):
    found = bucket_of(rows, buckets)
    assert found >= rows
    assert (found in buckets) or (found == rows and all(bucket < rows for bucket in buckets))
    assert not [bucket for bucket in buckets if rows <= bucket < found]


def test_warm_up_must_run_buckets_or_the_ends_and_may_run_what_lies_between():
    assert sizes_to_try(SPEC, (2, 6)) == ([2, 6], [])
    assert sizes_to_try(SPEC, ()) == ([1, 6], [4, 2])
    assert sizes_to_try(replace(SPEC, batch_size_max=1), ()) == ([1], [])
