"""Bodies: what goes in as bytes comes out as the same bytes, with its type."""

from __future__ import annotations

import array

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.body import BODY, Body, is_body, pack_body, unpack_body
from headway.errors import InvalidInput
from headway.tensors import TENSORS_MAX, pack

TYPES = st.text(max_size=30)
BODIES = st.builds(Body, st.binary(max_size=100), TYPES)


def travelled(body: Body) -> Body:
    packed, options = pack_body(body)
    assert is_body(options)
    return unpack_body(packed, options)


@given(BODIES)
def test_a_body_comes_back_with_its_bytes_and_its_type(body):
    back = travelled(body)
    assert (bytes(back.data), back.content_type, back.parts) == (body.data, body.content_type, None)


@given(st.dictionaries(st.text(max_size=20), BODIES, min_size=1, max_size=5).filter(lambda d: [*d] != [BODY]))
def test_parts_come_back_by_name_and_in_order_and_the_first_is_the_body(named):
    back = travelled(Body(b"not sent", parts=named))
    assert [(n, bytes(p.data), p.content_type) for n, p in back.parts.items()] == [
        (n, p.data, p.content_type) for n, p in named.items()
    ]
    first = next(iter(named.values()))
    assert (bytes(back.data), back.content_type) == (first.data, first.content_type)


@pytest.mark.parametrize("data", [b"", bytearray(), memoryview(b"")])
def test_an_empty_body_travels(data):
    assert bytes(travelled(Body(data)).data) == b""


def test_the_data_of_a_received_body_is_a_view():
    packed, options = pack_body(Body(b"x" * 100))
    body = unpack_body(packed, options)
    assert np.shares_memory(np.frombuffer(body.data, np.uint8), np.frombuffer(packed, np.uint8))


@pytest.mark.parametrize(
    "view",
    [
        memoryview(array.array("f", [1.0, 2.0, 3.0])),
        memoryview(np.arange(6, dtype=np.float32).reshape(2, 3)),
        memoryview(bytes(range(20)))[::2],
    ],
    ids=["floats", "two dimensions", "every second byte"],
)
def test_a_memoryview_of_any_form_travels_as_its_bytes(view):
    assert bytes(travelled(Body(view)).data) == view.tobytes()


def test_json_and_text_are_read_from_any_buffer():
    assert Body(memoryview(b'{"a": [1]}')).json() == {"a": [1]}
    assert Body(bytearray("ä".encode())).text() == "ä"


@pytest.mark.parametrize("data", [b"", b"{", b"\xff", b"[" * 100_000, b"1" * 5000])
def test_what_is_not_json_is_invalid_input(data):
    with pytest.raises(InvalidInput, match="not JSON"):
        Body(data).json()


def test_what_is_not_utf_8_is_invalid_input():
    with pytest.raises(InvalidInput, match="not UTF-8"):
        Body(b"\xff").text()


@pytest.mark.parametrize(
    ("tensors", "options"),
    [
        ({}, {"form": BODY, "types": {BODY: "text/plain"}}),
        ({}, {"form": BODY}),
        ({BODY: np.zeros(3, np.uint8)}, {"form": BODY}),
        ({BODY: np.zeros(3, np.uint8)}, {"form": BODY, "types": ["text/plain"]}),
        ({BODY: np.zeros(3, np.int8)}, {"form": BODY, "types": {}}),
        ({BODY: np.zeros((1, 3), np.uint8)}, {"form": BODY, "types": {}}),
        ({BODY: np.array(3, np.uint8)}, {"form": BODY, "types": {}}),
    ],
)
def test_tensors_that_are_no_body_are_invalid_input(tensors, options):
    with pytest.raises(InvalidInput):
        unpack_body(pack(tensors), options)


def test_a_form_without_parts_travels_as_that():
    assert travelled(Body(b"", "", {})) == Body(b"", "", {})


def test_a_part_without_a_type_has_an_empty_one():
    assert unpack_body(pack({BODY: np.zeros(1, np.uint8)}), {"form": BODY, "types": {}}).content_type == ""


@pytest.mark.parametrize("options", [{}, {"form": "tensors"}, {"form": None}])
def test_a_request_with_tensors_is_no_body(options):
    assert not is_body(options)


def test_more_parts_than_can_travel_are_invalid_input():
    with pytest.raises(InvalidInput, match=str(TENSORS_MAX)):
        pack_body(Body(b"", parts={str(i): Body(b"") for i in range(TENSORS_MAX + 1)}))
