"""Copies that were ordered to go, and are not gone yet."""

from __future__ import annotations

from headway_worker.unloads import Unloads

KEY = ("m", "1")


def test_what_nobody_ordered_to_go_is_noted_and_said() -> None:
    unloads = Unloads()
    unloads.load(KEY)
    assert KEY not in unloads and unloads.note(KEY, "ready") == (True, True)


def test_until_it_is_gone_a_copy_is_not_there_for_the_next_broker() -> None:
    unloads = Unloads()
    unloads.unload(KEY)
    assert KEY in unloads
    assert unloads.note(KEY, "gone") == (True, True)
    assert KEY not in unloads


def test_what_is_reported_of_the_old_copy_is_not_taken_for_the_new_one() -> None:
    unloads = Unloads()
    unloads.unload(KEY)
    unloads.load(KEY)
    assert KEY not in unloads
    assert unloads.note(KEY, "ready") == (False, True)
    assert unloads.note(KEY, "gone") == (False, True)
    assert unloads.note(KEY, "loading") == (True, True)


def test_a_broker_that_did_not_order_it_hears_nothing_of_it() -> None:
    unloads = Unloads()
    unloads.unload(KEY)
    unloads.off_the_roster()
    unloads.load(KEY)
    unloads.unload(KEY)
    assert [unloads.note(KEY, state) for state in ("ready", "gone", "ready")] == [
        (True, False),
        (True, False),
        (True, True),
    ]
    assert KEY in unloads
