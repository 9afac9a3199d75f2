"""The orders as they are kept."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.errors import SettingsError
from headway_broker.desired import Desired, ModelOrders, read_desired

names = st.text("ab12.", min_size=1, max_size=4)
counts = st.integers(0, 100)
shares = st.dictionaries(names, st.floats(0.5, 100), max_size=3)
orders = st.builds(
    ModelOrders,
    default=names,
    weights=shares,
    copies=st.dictionaries(names, st.tuples(counts, counts), max_size=3),
    unregistered=st.sets(names, max_size=3),
    serving=shares,
)


@given(st.builds(Desired, models=st.dictionaries(names, orders), hosts=st.dictionaries(names, counts)))
def test_what_is_kept_is_read_back(desired: Desired) -> None:
    assert read_desired(json.loads(json.dumps(desired.document()))) == desired


def test_a_model_without_orders_is_not_kept() -> None:
    desired = Desired()
    desired.of("m")
    assert desired.document() == {"format": 1, "models": {}, "hosts": {}}


MODEL = {"default": "", "weights": {}, "copies": {}, "unregistered": [], "serving": {}}


@pytest.mark.parametrize(
    "document",
    [
        None,
        [],
        {},
        {"format": 2, "models": {}, "hosts": {}},
        {"format": 1, "models": {}},
        {"format": 1, "models": {"m": {}}, "hosts": {}},
        {"format": 1, "models": [], "hosts": {}},
        {"format": 1, "models": {}, "hosts": {"h": -1}},
        {"format": 1, "models": {}, "hosts": {"h": "many"}},
        {"format": 1, "models": {"m": {**MODEL, "weights": {"1": "x"}}}, "hosts": {}},
        {"format": 1, "models": {"m": {**MODEL, "weights": {"1": -1}}}, "hosts": {}},
        {"format": 1, "models": {"m": {**MODEL, "serving": {"1": 0}}}, "hosts": {}},
        {"format": 1, "models": {"m": {**MODEL, "copies": {"1": [1]}}}, "hosts": {}},
        {"format": 1, "models": {"m": {**MODEL, "copies": {"1": [1, True]}}}, "hosts": {}},
    ],
)
def test_a_document_that_is_wrong_is_refused(document: Any) -> None:
    with pytest.raises(SettingsError):
        read_desired(document)
