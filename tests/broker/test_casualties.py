"""Versions whose load takes workers with it."""

from __future__ import annotations

from headway_broker.casualties import RETRY_MOST_S, RETRY_S, Casualties

KEY = ("m", "1")


def test_one_loss_is_chance_and_the_second_holds_the_version_back() -> None:
    casualties = Casualties()
    assert not casualties.lost(KEY, "w1", "its process was killed by SIGSEGV", 100.0)
    assert not casualties.held(100.0) and not casualties.is_suspect(KEY)
    words = "a worker was lost while it loaded it (w1: its process was killed by SIGSEGV)"
    assert casualties.told() == {KEY: words}
    assert casualties.lost(KEY, "w2", "its process was killed by SIGKILL", 110.0)
    assert casualties.held(110.0) == {
        KEY: "it is not loaded for now: 2 workers were lost while they loaded it "
        "(the last, w2: its process was killed by SIGKILL)"
    }
    assert not casualties.held(110.0 + RETRY_S) and casualties.is_suspect(KEY)


def test_each_further_loss_holds_it_back_twice_as_long_up_to_a_most() -> None:
    casualties = Casualties()
    waits = []
    for _ in range(14):
        casualties.lost(KEY, "w", "gone", 0.0)
        waits.append(next((at for at in range(0, 2000, 30) if not casualties.held(float(at))), None))
    assert waits[:5] == [0, RETRY_S, 2 * RETRY_S, 4 * RETRY_S, 8 * RETRY_S]
    assert set(waits[5:]) == {RETRY_MOST_S}


def test_what_became_ready_or_was_mended_is_forgotten() -> None:
    casualties = Casualties()
    casualties.lost(KEY, "w1", "gone", 0.0)
    assert casualties.forget(KEY) and not casualties.forget(KEY)
    assert not casualties.lost(KEY, "w2", "gone", 1.0), "it counts from the beginning"


def test_versions_are_held_back_one_by_one() -> None:
    casualties = Casualties()
    casualties.lost(KEY, "w1", "gone", 0.0)
    assert not casualties.lost(("m", "2"), "w2", "gone", 0.0)
