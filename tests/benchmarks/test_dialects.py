"""The bytes that the load sends, and what it takes for a right answer."""

from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks.dialects import DIALECTS, http_request, split_answer
from benchmarks.inputs import EXAMPLES


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("model", EXAMPLES)
def test_a_request_ends_with_the_tensor_and_states_its_length(dialect: str, model: str) -> None:
    example = EXAMPLES[model]
    head, _, body = http_request(dialect, "host:1", example).partition(b"\r\n\r\n")
    assert body.endswith(example.x.tobytes())
    assert f"Content-Length: {len(body)}\r\n".encode() in head + b"\r\n"


def test_an_oip_request_says_how_long_its_json_is() -> None:
    example = EXAMPLES["tiny"]
    head, _, body = http_request("oip", "host:1", example).partition(b"\r\n\r\n")
    length = int(head.partition(b"Inference-Header-Content-Length: ")[2].partition(b"\r\n")[0])
    (tensor,) = json.loads(body[:length])["inputs"]
    assert tensor["shape"] == [1, 16] and len(body) == length + 64


def test_an_answer_is_whole_when_its_body_is() -> None:
    whole = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc"
    assert [split_answer(whole[:i]) for i in (5, len(whole) - 1)] == [None, None]
    assert split_answer(whole) == (True, b"abc")
    assert split_answer(whole.replace(b"200 OK", b"503 No")) == (False, b"abc")


def test_a_wrong_number_is_no_right_answer() -> None:
    tiny, payload, resnet50 = EXAMPLES.values()
    assert tiny.is_right(b"header" + (tiny.x * 2).tobytes())
    assert not tiny.is_right((tiny.x * 3).tobytes())
    assert payload.is_right(payload.x.ravel()[:1000].tobytes()) and not payload.is_right(bytes(4000))
    assert resnet50.is_right(np.zeros(1000, np.float32).tobytes()) and not resnet50.is_right(bytes(3999))
