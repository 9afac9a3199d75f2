"""headway_gateway.orders: an order is taken as it is written, or refused with the key that is wrong."""

from __future__ import annotations

import json
from typing import Any

import pytest

from headway.errors import InvalidInput
from headway_gateway.orders import CHECKS, order_of

ALL = tuple(CHECKS)
GOOD: dict[str, Any] = {
    "path": "m/1",
    "url": "http://x/m.zip",
    "name": "m",
    "version": "1",
    "min": 0,
    "max": 65536,
    "weights": {"1": 90, "2": 0.5},
    "workers": None,
    "wait": True,
    "timeout_ms": 1,
}
BAD: dict[str, list[Any]] = {
    "path": ["", 1, None, "x" * 5000, "a\nb", "\ud800"],
    "url": ["", 1, "x" * 5000],
    "name": ["", 1, None, "x" * 129],
    "version": ["", 1, 1.0, "x" * 129],
    "min": [-1, 1.0, True, "1", None, 65537],
    "max": [-1, 0.5, False, [], 65537],
    "weights": [[], {"1": -1}, {"1": "90"}, {"1": True}, {"": 1}, {"1": float("inf")}, None,
                {str(i): 1 for i in range(65)}],
    "workers": [-1, True, "auto", 1.5, 65537],
    "wait": [1, 0, "true", None],
    "timeout_ms": [0, -1, 1.5, True, 86400001],
}  # fmt: skip


def test_what_is_right_comes_out_as_it_is():
    assert order_of(json.dumps(GOOD).encode(), allowed=ALL) == GOOD
    assert order_of(b"  \n", allowed=ALL) == {}


@pytest.mark.parametrize(("key", "value"), [(key, value) for key in BAD for value in BAD[key]])
def test_a_wrong_value_is_refused_with_its_key(key, value):
    with pytest.raises(InvalidInput, match=f"^{key} is "):
        order_of(json.dumps({key: value}).encode(), allowed=ALL)


def test_an_unknown_key_is_refused_and_the_known_ones_are_named():
    with pytest.raises(InvalidInput, match="'mni' is not known here; known are min, max"):
        order_of(b'{"mni": 2}', ("min",), ("max",))


def test_a_needed_key_that_is_missing_is_named():
    with pytest.raises(InvalidInput, match="min is missing"):
        order_of(b"{}", ("min",))


def test_a_time_limit_without_waiting_means_nothing_and_is_refused():
    with pytest.raises(InvalidInput, match="timeout_ms"):
        order_of(b'{"timeout_ms": 5}', allowed=ALL)


@pytest.mark.parametrize("body", [b"[]", b"1", b"null", b"{", b"\xff", b"[" * 5000, b'{"a": 1, "a": 2}'])
def test_a_body_that_is_no_object_is_refused(body):
    with pytest.raises(InvalidInput, match=r"body|key"):
        order_of(body, allowed=ALL)
