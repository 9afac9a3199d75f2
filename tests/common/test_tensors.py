"""Packed tensors: `unpack` is the inverse of `pack`, copies nothing, and trusts nobody."""

from __future__ import annotations

import math

import ml_dtypes
import msgpack
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from headway.errors import InvalidInput
from headway.tensors import (
    BY_NAME,
    BY_OIP,
    BYTES,
    DTYPES,
    HEADER_BYTES_MAX,
    NAME_BYTES_MAX,
    RANK_MAX,
    TENSORS_MAX,
    dtype_of,
    pack,
    pack_raw,
    unpack,
    view,
)

FIXED = [d for d in DTYPES if d is not BYTES]
SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)
NAMES = st.text(max_size=20)


@st.composite
def fixed_arrays(draw):
    """An array of any dtype with any bits in it, but for bool, which has only two values."""
    dtype, shape = draw(st.sampled_from(FIXED)), draw(SHAPES)
    size = math.prod(shape) * dtype.numpy.itemsize
    data = draw(st.binary(min_size=size, max_size=size))
    if dtype.name == "bool":
        data = bytes(b & 1 for b in data)
    return np.frombuffer(data, dtype.numpy).reshape(shape)


@st.composite
def byte_arrays(draw):
    shape = draw(SHAPES)
    out = np.empty(math.prod(shape), dtype=object)
    for i in range(len(out)):
        out[i] = draw(st.binary(max_size=6))
    return out.reshape(shape)


TENSORS = st.dictionaries(NAMES, fixed_arrays() | byte_arrays(), max_size=4)


def assert_same(got, want):
    assert list(got) == list(want)
    for name, array in want.items():
        assert got[name].dtype == array.dtype
        assert got[name].shape == array.shape
        if array.dtype == object:
            assert got[name].tolist() == array.tolist()
        else:
            assert got[name].tobytes() == array.tobytes()


def one(array):
    return unpack(pack({"x": array}))["x"]


# ---- the inverse


@settings(max_examples=100)
@given(TENSORS)
def test_what_is_packed_comes_back(tensors):
    assert_same(unpack(pack(tensors)), tensors)


@settings(max_examples=50)
@given(TENSORS)
def test_packing_what_was_unpacked_gives_the_same_bytes(tensors):
    packed = pack(tensors)
    assert pack(unpack(packed)) == packed


@pytest.mark.parametrize("dtype", FIXED, ids=lambda d: d.name)
@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (7,), (4096,), (3, 4096)])
def test_every_dtype_travels_in_every_shape(dtype, shape):
    array = np.arange(math.prod(shape)).reshape(shape).astype(dtype.numpy)
    assert_same({"x": one(array)}, {"x": array})


@pytest.mark.parametrize("size", [1, 5000])
def test_bfloat16_keeps_its_type_and_its_values(size):
    array = np.full(size, 1.5, ml_dtypes.bfloat16)
    back = one(array)
    assert back.dtype == ml_dtypes.bfloat16
    assert (back == array).all()


@pytest.mark.parametrize("code", [">f4", ">f8", ">f2", ">i8", ">u2", ">U3", "<U3"])
@pytest.mark.parametrize("size", [3, 5000])
def test_big_endian_arrays_arrive_with_the_same_values(code, size):
    array = np.arange(size).astype(code)
    back = one(array)
    if "U" in code:
        assert back.tolist() == [s.encode() for s in array.tolist()]
    else:
        assert back.dtype == np.dtype(code).newbyteorder("<")
        assert (back == array).all()


@pytest.mark.parametrize(
    "twist",
    [
        lambda a: a.T,
        lambda a: a[::2],
        lambda a: a[:, ::-1],
        lambda a: np.asfortranarray(a),
        lambda a: np.broadcast_to(a[0], (90, *a[0].shape)),
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "bool", "bfloat16"])
@pytest.mark.parametrize("side", [4, 90])
def test_arrays_that_are_not_contiguous_travel(twist, dtype, side):
    array = twist(np.arange(side * side).reshape(side, side).astype(BY_NAME[dtype].numpy))
    assert (one(array) == array).all()


@pytest.mark.parametrize(
    "array",
    [
        np.array(["ä", ""]),
        np.array([b"a", b"bc"]),
        np.array([b"a\0b", "ü"], dtype=object),
        np.array(b"scalar"),
        np.array([[b"a"], [b"b"]]),
        np.array([], dtype="S1"),
        np.array([], dtype=object).reshape(0, 3),
    ],
)
def test_strings_travel_as_bytes(array):
    flat = [e.encode() if isinstance(e, str) else e for e in array.reshape(-1).tolist()]
    back = one(array)
    assert (back.shape, back.reshape(-1).tolist()) == (array.shape, flat)


# ---- no copies


@pytest.mark.parametrize("dtype", FIXED, ids=lambda d: d.name)
def test_unpacked_arrays_are_views_on_the_packed_bytes(dtype):
    packed = bytearray(pack({"a": np.ones(3, np.uint8), "x": np.ones((100, 100)).astype(dtype.numpy)}))
    array = unpack(packed)["x"]
    assert np.shares_memory(array, np.frombuffer(packed, np.uint8))
    assert array.flags.writeable


def test_views_on_bytes_are_read_only_and_aligned():
    tensors = unpack(
        pack({"a": np.ones(3, np.uint8), "b": np.ones(3), "c": np.ones(1, bool), "d": np.ones(2)})
    )
    assert not any(array.flags.writeable for array in tensors.values())
    starts = {name: array.__array_interface__["data"][0] for name, array in tensors.items()}
    assert {(start - starts["a"]) % 16 for start in starts.values()} == {0}


def test_views_keep_the_bytes_alive():
    array = unpack(memoryview(bytearray(pack({"x": np.arange(10_000)}))))["x"]
    np.arange(10_000)[::-1].copy()
    assert array.sum() == 49_995_000


# ---- what does not travel


@pytest.mark.parametrize("dtype", ["complex64", "datetime64[s]", "V4", "float128", [("a", "i4")], ">c8"])
def test_a_dtype_that_does_not_travel_is_refused_by_the_tensors_name(dtype):
    with pytest.raises(InvalidInput, match=r"tensor 'mine': dtype .* does not travel"):
        pack({"mine": np.zeros(2, dtype)})


@pytest.mark.parametrize("element", [None, 3, 2.5, bytearray(b"x"), {}, [1]])
def test_objects_other_than_strings_are_refused_by_the_tensors_name(element):
    array = np.empty(2, object)
    array[:] = [b"ok", element]
    with pytest.raises(InvalidInput, match=r"tensor 'mine': .*bytes or str"):
        pack({"mine": array})


def test_a_string_that_is_no_unicode_is_refused():
    with pytest.raises(InvalidInput, match="tensor 'mine'"):
        pack({"mine": np.array(["\ud800"], object)})


@pytest.mark.parametrize("name", ["x" * (NAME_BYTES_MAX + 1), "\ud800", 3, b"x", None, ("a",)])
def test_a_name_that_does_not_travel_is_refused(name):
    with pytest.raises(InvalidInput, match="name"):
        pack({name: np.zeros(1)})


def test_more_tensors_dimensions_or_names_than_can_travel_are_refused():
    with pytest.raises(InvalidInput, match=str(TENSORS_MAX)):
        pack({str(i): np.zeros(1) for i in range(TENSORS_MAX + 1)})
    with pytest.raises(InvalidInput, match="17 dimensions"):
        pack({"x": np.zeros((1,) * (RANK_MAX + 1))})
    with pytest.raises(InvalidInput, match=str(HEADER_BYTES_MAX)):
        pack({chr(0x10000 + i) * NAME_BYTES_MAX: np.zeros(1) for i in range(TENSORS_MAX)})


def test_the_most_that_can_travel_travels():
    tensors = {str(i): np.zeros(1, np.uint8) for i in range(TENSORS_MAX)}
    assert len(unpack(pack(tensors))) == TENSORS_MAX
    assert one(np.zeros((1,) * RANK_MAX)).ndim == RANK_MAX
    assert list(unpack(pack({"x" * NAME_BYTES_MAX: np.zeros(1)}))) == ["x" * NAME_BYTES_MAX]


# ---- unpack trusts nobody


def frame(*entries, data=b"", tail=b""):
    """Packed tensors with a header of the test's choice."""
    header = msgpack.packb(list(entries))
    start = len(header).to_bytes(4, "little") + header
    return start + bytes(-len(start) % 16) + data + bytes(-len(data) % 16) + tail


def refused(packed):
    """True if it was refused as it should be; False if it is fine after all."""
    try:
        unpack(packed)
    except InvalidInput:
        return True
    return False


@settings(max_examples=100)
@given(st.binary(max_size=200))
@example(b"\x04\0\0\0\xdd\xff\xff\xff")
@example(b"\x05\0\0\0" + b"\xdd\xff\xff\xff\xff")
def test_arbitrary_bytes_raise_nothing_but_invalid_input(data):
    refused(data)
    refused(len(data).to_bytes(4, "little") + data)


@settings(max_examples=100)
@given(TENSORS, st.data())
def test_mutated_tensors_raise_nothing_but_invalid_input(tensors, data):
    packed = bytearray(pack(tensors))
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(packed) - 1))
        packed[place] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(packed)))
    refused(bytes(packed))
    refused(memoryview(packed)[:cut])


ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-1, 2**64 - 1),
    st.floats(),
    st.text(max_size=3),
    st.binary(max_size=3),
)
DIMENSIONS = st.sampled_from([0, 1, 2, 2**20, 2**39, 2**40 - 1]) | ODD


@settings(max_examples=100)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["a", "b"]) | ODD,
            st.integers(0, 15) | ODD,
            st.lists(DIMENSIONS, max_size=5) | ODD,
            st.integers(0, 40) | ODD,
        ),
        max_size=3,
    ),
    st.binary(max_size=64),
)
def test_headers_that_lie_raise_nothing_but_invalid_input(entries, data):
    refused(frame(*entries, data=data))


@pytest.mark.parametrize(
    "entry",
    [
        ["x", 2, [0, 2**39, 2**39, 2**39], 0],
        ["x", 13, [0, 2**39, 2**39], 0],
        ["x", 13, [2**39], 16],
        ["x", 2, [2**39, 2**39], 16],
        ["x", 2, [True], 1],
        ["x", True, [1], 1],
        ["x", 2, [1], True],
        ["x", 2, [-1], 1],
        ["x", 2, [1.0], 1],
        ["x", 2, [16], -16],
        ["x", 99, [1], 1],
        ["x", 2, [17], 17],
        ["x", 2, [2], 1],
        [b"x", 2, [1], 1],
        ["x", 2, [1]],
        ["x", 2, [1], 1, 1],
        ["x" * 257, 2, [1], 1],
        ["x", 2, [1] * 17, 1],
        "x",
    ],
    ids=repr,
)
def test_an_entry_that_pack_would_not_write_is_refused(entry):
    assert refused(frame(entry, data=bytes(16)))


@pytest.mark.parametrize(
    "packed",
    [
        b"",
        b"\0\0\0",
        b"\0\0\0\0",
        b"\xff\xff\xff\xff",
        frame(["x", 2, [1], 1], ["x", 2, [1], 1], data=bytes(32)),
        frame(*[[str(i), 2, [0], 0] for i in range(TENSORS_MAX + 1)]),
        frame(["x", 2, [16], 16], data=bytes(16), tail=b"more"),
        frame(["x", 13, [2], 8], data=bytes(4) + b"\x01\0\0\0"),
        frame(["x", 13, [1], 8], data=bytes(8)),
        (70_000).to_bytes(4, "little") + bytes(70_000),
    ],
    ids=[
        "empty",
        "short",
        "no header",
        "huge",
        "twins",
        "many",
        "tail",
        "cut string",
        "left over",
        "long header",
    ],
)
def test_bytes_that_pack_would_not_write_are_refused(packed):
    assert refused(packed)


def test_a_header_nested_a_thousand_deep_is_refused():
    for byte in (b"\x91", b"\x81", b"\xdc\xff\xff"):
        header = byte * 5000
        assert refused(len(header).to_bytes(4, "little") + header)


# ---- the table


def test_codes_and_names_are_unique_and_codes_never_change():
    assert [d.code for d in DTYPES] == list(range(1, len(DTYPES) + 1))
    assert len(BY_NAME) == len(BY_OIP) == len(DTYPES)


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: d.name)
def test_the_row_of_an_array_is_that_of_its_dtype(dtype):
    assert dtype_of(np.zeros(1, dtype.numpy)) is dtype


@pytest.mark.parametrize("code", ["q", "l", "Q", "b", "B", "h", "i"])
def test_numpys_other_names_of_a_dtype_travel(code):
    assert (one(np.ones(2, code)) == 1).all()


@given(fixed_arrays())
def test_raw_parts_and_views_agree_with_arrays(array):
    dtype = dtype_of(array)
    raw = array.tobytes()
    assert pack_raw([("x", dtype, array.shape, raw)]) == pack({"x": array})
    assert_same({"x": view("x", dtype, list(array.shape), raw)}, {"x": array})


def test_a_view_of_another_size_says_both_sizes():
    with pytest.raises(InvalidInput, match=r"\[2, 3\] of float32 takes 24 bytes, got 23"):
        view("x", BY_NAME["float32"], [2, 3], bytes(23))
