"""A command's arguments."""

from __future__ import annotations

import math
from typing import Any

import pytest

from headway.errors import InvalidInput
from headway_broker.arguments import Arguments


def of(**given: Any) -> Arguments:
    return Arguments("fly", given)


def test_what_is_there_is_taken_and_what_is_left_is_refused() -> None:
    given = of(model="m", min=2, wait=1, weights={"1": 1, "2": 0.5}, wings=2)
    assert given.text("model") == "m"
    assert given.count("min") == 2
    assert given.flag("wait") is True
    assert given.weights("weights") == {"1": 1.0, "2": 0.5}
    with pytest.raises(InvalidInput, match="fly: 'wings' is not known"):
        given.done()


def test_what_may_be_missing_has_a_default() -> None:
    given = of()
    assert (given.text("version", ""), given.count("max", None), given.count("n", 7)) == ("", None, 7)
    assert given.flag("wait") is False
    given.done()


@pytest.mark.parametrize("value", [None, 7, b"m", ["m"], {}])
def test_a_text_is_a_text(value: Any) -> None:
    with pytest.raises(InvalidInput, match="fly: model must be text"):
        of(model=value).text("model")


@pytest.mark.parametrize("value", [-1, 1 << 17, True, 1.0, "1", [], math.nan])
def test_a_count_is_a_whole_number_within_its_bounds(value: Any) -> None:
    with pytest.raises(InvalidInput, match="fly: min must be a whole number from 0 to 65536"):
        of(min=value).count("min")


@pytest.mark.parametrize("value", [2, "yes", None, [], {}])
def test_a_flag_is_0_or_1(value: Any) -> None:
    with pytest.raises(InvalidInput, match="fly: wait must be 0 or 1"):
        of(wait=value).flag("wait")


@pytest.mark.parametrize(
    "weights",
    [None, [], "1", {1: 1}, {"": 1}, {"1": -1}, {"1": True}, {"1": "1"}, {"1": math.nan}, {"1": 1e9}],
)
def test_weights_are_a_map_from_versions_to_numbers(weights: Any) -> None:
    with pytest.raises(InvalidInput, match="fly: weights"):
        of(weights=weights).weights("weights")


@pytest.mark.parametrize("take", [Arguments.text, Arguments.count, Arguments.weights])
def test_what_must_be_there_is_missed_by_name(take: Any) -> None:
    with pytest.raises(InvalidInput, match=r"fly: model (is missing|must be a map)"):
        take(of(), "model")
