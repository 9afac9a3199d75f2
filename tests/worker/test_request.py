"""What a preprocess sees of a request."""

from __future__ import annotations

import numpy as np
import pytest

from headway.body import Body
from headway.errors import InvalidInput
from headway.steps import Step
from headway_worker.request import ModelRequest


def test_a_body_is_bytes_with_its_type_and_is_its_own_only_part() -> None:
    request = ModelRequest(content=Body(memoryview(b'{"a": "\xc3\xb6"}'), "application/json"))
    assert request.body == b'{"a": "\xc3\xb6"}'
    assert type(request.body) is bytes
    assert request.content_type == "application/json"
    assert request.parts == {"body": request.body}
    assert request.json() == {"a": "ö"}
    assert request.text() == '{"a": "ö"}'


def test_of_several_parts_the_first_is_the_body() -> None:
    parts = {"image": Body(b"png", "image/png"), "top": Body(b"5", "text/plain")}
    request = ModelRequest(content=Body(b"png", "image/png", parts))
    assert (request.body, request.content_type) == (b"png", "image/png")
    assert request.parts == {"image": b"png", "top": b"5"}


def test_what_is_not_json_is_the_callers_fault() -> None:
    with pytest.raises(InvalidInput, match="the body is not JSON"):
        ModelRequest(content=Body(b"{")).json()


def test_a_tensor_request_has_tensors_and_no_body() -> None:
    request = ModelRequest(rows=2, tensors={"x": np.zeros((2, 3))})
    assert (request.body, request.content_type, request.parts) == (b"", "", {})
    assert request.width == 2
    assert ModelRequest().width == 1


def test_a_request_says_which_sequence_it_is_of():
    assert ModelRequest().step is None
    assert ModelRequest({"sequence": "a", "sequence_end": "true"}).step == Step("a", ends=True)
