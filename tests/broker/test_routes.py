"""Which version a request without one goes to."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from headway_broker.routes import Route, point_of

weights = st.dictionaries(st.sampled_from(["1", "2", "3", "4"]), st.integers(0, 100), min_size=1).filter(
    lambda w: any(w.values())
)


def test_one_version_gets_everything() -> None:
    route = Route({"2": 7.0})
    assert [route.choose(), route.choose("key")] == ["2", "2"]
    assert route.shares == {"2": 1.0}


def test_versions_take_turns_as_evenly_as_their_weights_allow() -> None:
    route = Route({"1": 9, "2": 1})
    seen = [route.choose() for _ in range(100)]
    assert Counter(seen) == {"1": 90, "2": 10}
    firsts = [i for i, version in enumerate(seen) if version == "2"]
    assert all(later - earlier == 10 for earlier, later in pairwise(firsts))


@given(weights)
def test_after_a_whole_round_every_version_had_its_part(given_weights: dict[str, int]) -> None:
    route = Route(given_weights)
    total = sum(given_weights.values())
    seen = Counter(route.choose() for _ in range(total * 3))
    for version, weight in given_weights.items():
        assert abs(seen[version] - 3 * weight) <= 1


@given(weights, st.text(min_size=1, max_size=20))
def test_a_key_always_gets_the_same_version_and_never_one_without_weight(
    given_weights: dict[str, int], key: str
) -> None:
    chosen = {Route(given_weights).choose(key) for _ in range(3)}
    assert len(chosen) == 1
    assert given_weights[chosen.pop()] > 0


def test_when_a_share_grows_only_those_move_whose_part_changes_hands() -> None:
    before, after = Route({"1": 90, "2": 10}), Route({"1": 80, "2": 20})
    keys = [f"user {i}" for i in range(2000)]
    moved = [key for key in keys if before.choose(key) != after.choose(key)]
    assert all(after.choose(key) == "2" for key in moved)
    assert 130 < len(moved) < 270


def test_the_point_of_a_key_does_not_depend_on_the_process() -> None:
    assert point_of("alice") == 0.3043658763184171
