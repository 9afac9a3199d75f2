"""A request's place in a sequence, as it travels."""

from __future__ import annotations

from typing import Any

import pytest

from headway.errors import InvalidInput
from headway.steps import SEQUENCE_CHARS_MAX, Step, step_of


@pytest.mark.parametrize(
    "step", [Step("a"), Step("a", starts=True), Step("\u00e9", ends=True), Step("b", True, True)]
)
def test_a_step_travels_in_the_options(step: Step) -> None:
    assert step_of({"headers": {}, **step.options}) == step


def test_a_request_without_a_sequence_has_no_step() -> None:
    assert step_of({"sequence_start": "true"}) is None


@pytest.mark.parametrize("name", ["", 7, b"a", "x" * (SEQUENCE_CHARS_MAX + 1), ["a"]])
def test_a_name_that_cannot_be_is_refused_at_both_ends(name: Any) -> None:
    with pytest.raises(InvalidInput, match="1 to 256 characters"):
        Step(name).options  # noqa: B018
    with pytest.raises(InvalidInput, match="1 to 256 characters"):
        step_of({"sequence": name})


def test_only_true_is_true() -> None:
    said = {"sequence": "a", "sequence_start": True, "sequence_end": "True"}
    assert step_of(said) == Step("a"), "the wire has one word for it"
