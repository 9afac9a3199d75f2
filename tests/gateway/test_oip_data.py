"""headway_gateway.oip_data: elements of tensors in JSON and in bytes."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from headway.errors import InvalidInput
from headway.tensors import BY_OIP, DTYPES, unpack
from headway.tensors import pack_raw as pack
from headway_gateway.oip_data import from_json, to_json

IN_JSON = [d for d in DTYPES if d.oip not in ("FP16", "BF16", "BYTES")]


def array_of(oip: str, shape: tuple[int, ...], data) -> np.ndarray:
    dtype = BY_OIP[oip]
    packed = pack([("x", dtype, shape, from_json("input 'x'", dtype, shape, data))])
    return unpack(packed)["x"]


@given(st.sampled_from(IN_JSON).flatmap(lambda d: hnp.arrays(d.numpy, hnp.array_shapes(max_dims=3))))
def test_json_data_comes_back_as_it_was(array):
    oip = next(d.oip for d in IN_JSON if d.numpy == array.dtype)
    text = json.dumps(to_json("x", array))
    again = array_of(oip, array.shape, json.loads(text))
    assert again.dtype == array.dtype
    np.testing.assert_array_equal(again, array)
    nested = array_of(oip, array.shape, json.loads(json.dumps(array.tolist())))
    np.testing.assert_array_equal(nested, array)


def test_strings_come_back_as_they_were():
    assert array_of("BYTES", (2, 1), [["ä"], [""]]).tolist() == [["ä".encode()], [b""]]
    strings = np.array([b"a", "ä".encode()], dtype=object)
    assert to_json("x", strings) == ["a", "ä"]


def test_nan_and_infinity_are_numbers_both_ways():
    values = array_of("FP32", (3,), json.loads("[NaN, Infinity, -Infinity]"))
    assert math.isnan(values[0]) and values[1:].tolist() == [math.inf, -math.inf]
    assert json.dumps(to_json("x", values)) == "[NaN, Infinity, -Infinity]"


def test_a_number_beyond_fp32_is_infinity():
    assert array_of("FP32", (1,), [1e300]).tolist() == [math.inf]


REFUSED = [
    ("FP16", (1,), [1.0], "FP16 cannot be sent as JSON"),
    ("BF16", (1,), [1.0], "BF16 cannot be sent as JSON"),
    ("FP32", (2, 3), [1.0] * 5, r"shape \[2, 3\] takes 6 elements, data has 5"),
    ("FP32", (2,), [[1.0], 2.0], "numbers, not list"),
    ("FP32", (2,), [1.0, [2.0]], "numbers, not list"),
    ("FP32", (1,), ["1.0"], "FP32 holds numbers, not str"),
    ("FP32", (1,), [None], "numbers, not NoneType"),
    ("FP32", (1,), [True], "numbers, not bool"),
    ("FP64", (1,), [10**400], "too large"),
    ("INT32", (1,), [1.0], "integers, not float"),
    ("INT32", (1,), [True], "integers, not bool"),
    ("INT8", (2,), [-128, 128], "128 does not fit into INT8"),
    ("UINT8", (1,), [-1], "-1 does not fit into UINT8"),
    ("UINT64", (1,), [1 << 64], "does not fit into UINT64"),
    ("BOOL", (1,), [1], "true and false, not int"),
    ("BYTES", (1,), [1], "strings, not int"),
    ("BYTES", (1,), ["\ud800"], "surrogates"),
    ("FP32", (1,), 1.0, "data must be a list"),
    ("FP32", (1,), {"a": 1}, "data must be a list"),
]


@pytest.mark.parametrize(("oip", "shape", "data", "reason"), REFUSED)
def test_data_that_does_not_fit_is_refused_by_name(oip, shape, data, reason):
    with pytest.raises(InvalidInput, match=rf"^input 'x': .*{reason}"):
        array_of(oip, shape, data)


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.ones(1, np.float16), "FP16 cannot be sent as JSON, ask for binary_data"),
        (np.array([b"\xff"], dtype=object), "not UTF-8, ask for binary_data"),
    ],
)
def test_an_output_that_json_cannot_hold_is_refused_by_name(array, reason):
    with pytest.raises(InvalidInput, match=f"output 'y'.*{reason}"):
        to_json("y", array)
