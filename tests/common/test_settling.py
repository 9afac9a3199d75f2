"""headway.settling: what is there is looked at once, and is freed all the same."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from headway.settling import YOUNG_MAX, settle, settle_to_serve


class Node:
    other: Node | None = None


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    thresholds = gc.get_threshold()
    yield
    gc.set_threshold(*thresholds)
    gc.unfreeze()


def cycle() -> weakref.ref[Node]:
    node = Node()
    node.other = Node()
    node.other.other = node
    return weakref.ref(node)


def test_garbage_of_before_goes_and_what_is_used_is_not_looked_at_again() -> None:
    gone, kept = cycle(), [Node()]
    settle()
    assert gone() is None
    assert gc.get_freeze_count() > 0
    assert not any(found is kept[0] for found in gc.get_objects())
    ref = weakref.ref(kept[0])
    kept.clear()
    assert ref() is None, "nothing refers to it"


def test_a_cycle_that_became_garbage_since_goes_with_the_next_time() -> None:
    node = Node()
    node.other = node
    settle()
    ref = weakref.ref(node)
    del node
    gc.collect()
    assert ref() is not None
    settle()
    assert ref() is None


def test_who_serves_looks_at_what_is_new_more_rarely() -> None:
    settle_to_serve()
    assert gc.get_threshold()[0] == YOUNG_MAX
