"""headway_gateway.oip_codec: whole inference bodies."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from headway.errors import InvalidInput
from headway.steps import Step
from headway.tensors import pack, pack_raw, unpack, unpack_raw
from headway_gateway.oip_codec import InferRequest, decode, encode

X = {"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}


def binary(name: str, size: int, **more: Any) -> dict[str, Any]:
    shape = {"name": name, "shape": [1, 2], "datatype": "FP32"}
    return {**shape, "parameters": {"binary_data_size": size}, **more}


def read(asked: Any, tail: bytes = b"") -> InferRequest:
    text = json.dumps(asked).encode()
    return decode(text + tail, len(text) if tail else None)


def unpacked(request):
    return unpack(pack_raw(request.parts))


def test_a_request_is_packed_with_its_rows():
    request = read({"inputs": [X, {"name": "y", "shape": [1], "datatype": "BYTES", "data": ["ä"]}]})
    arrays = unpacked(request)
    assert arrays["x"].tolist() == [[1.0, 2.0]] and arrays["y"].tolist() == ["ä".encode()]
    assert (request.rows, request.id, request.outputs, request.binary) == (1, "", {}, False)


def test_binary_tensors_follow_the_json_in_the_order_of_the_inputs():
    a, b = np.array([[1, 2]], "<f4"), np.array([[3, 4]], "<f4")
    arrays = unpacked(read({"inputs": [binary("a", 8), X, binary("b", 8)]}, a.tobytes() + b.tobytes()))
    assert [arrays[n].tolist() for n in "axb"] == [[[1, 2]], [[1, 2]], [[3, 4]]]


def test_half_precision_travels_as_binary_data():
    for oip in ("FP16", "BF16"):
        assert read({"inputs": [binary("x", 4, datatype=oip)]}, b"\0\0\0\0").rows == 1


def test_an_empty_dimension_behind_the_batch_is_legal():
    assert unpacked(read({"inputs": [{**X, "shape": [3, 0], "data": []}]}))["x"].shape == (3, 0)
    empty = decode(json.dumps({"inputs": [binary("x", 0, shape=[3, 0])]}).encode(), None)
    assert empty.rows == 3


def refused(asked: Any, tail: bytes = b"") -> str:
    with pytest.raises(InvalidInput) as caught:
        read(asked, tail)
    return str(caught.value)


def test_a_wrong_binary_size_is_refused_with_both_sizes():
    assert refused({"inputs": [binary("x", 4)]}, bytes(4)) == (
        "tensor 'x': shape [1, 2] of float32 takes 8 bytes, got 4"
    )
    assert "input 'x': binary_data_size is 8, and 7 bytes follow" in refused(
        {"inputs": [binary("x", 8)]}, bytes(7)
    )


def test_bytes_left_over_are_refused():
    assert "1 bytes are left over" in refused({"inputs": [binary("x", 8)]}, bytes(9))
    assert "8 bytes are left over" in refused({"inputs": [X]}, bytes(8))


@pytest.mark.parametrize("size", [-1, 8.0, "8", True, 1 << 60])
def test_a_binary_size_that_is_none_is_refused(size):
    assert "input 'x': binary_data_size" in refused({"inputs": [binary("x", size)]}, bytes(8))


def test_binary_strings_are_checked_for_their_lengths():
    entry = binary("s", 5, shape=[1], datatype="BYTES")
    assert unpacked(read({"inputs": [entry]}, b"\x01\0\0\0a"))["s"].tolist() == [b"a"]
    assert "tensor 's'" in refused({"inputs": [entry]}, b"\x09\0\0\0a")


@pytest.mark.parametrize(
    "text", [b"", b"{", b"[1]", b'"x"', b"\xff", b"{'a': 1}", b"[" * 100_000, b'{"inputs": ' + b"9" * 5000]
)
def test_what_is_not_a_json_object_is_refused(text):
    with pytest.raises(InvalidInput, match=r"not JSON|must be a JSON object"):
        decode(text, None)


def input_with(**more: Any) -> dict[str, Any]:
    return {"inputs": [{**X, **more}]}


BAD_INPUTS = [
    ({}, "inputs must be a list of 1 to 256"),
    ({"inputs": []}, "inputs must be a list"),
    ({"inputs": [X] * 257}, "inputs must be a list"),
    ({"inputs": [1]}, r"inputs[0] must be an object with a name"),
    (input_with(name=""), "inputs[0] must be an object with a name"),
    (input_with(name=None), "inputs[0] must be"),
    ({"inputs": [X, X]}, "two inputs have one name"),
    (input_with(datatype="FLOAT"), "input 'x': datatype 'FLOAT' is not one of BOOL,"),
    (input_with(datatype=["FP32"]), "input 'x': datatype"),
    (input_with(shape=None), "input 'x': shape must be a list"),
    (input_with(shape=[]), "input 'x': shape must be a list of 1 to 16 sizes"),
    (input_with(shape=[1] * 17), "input 'x': shape"),
    (input_with(shape=[1, -1]), "input 'x': shape [1, -1] must hold sizes from 0 on"),
    (input_with(shape=[1, 2.0]), "input 'x': shape"),
    (input_with(shape=[True, 2]), "input 'x': shape"),
    (input_with(shape=[1, 1 << 50]), "input 'x': shape"),
    (input_with(shape=[0, 2], data=[]), "input 'x': a batch size is from 1"),
    (input_with(shape=[70_000, 0], data=[]), "input 'x': a batch size is from 1 to 65536, not 70000"),
    (input_with(data=[1, "a"]), "input 'x': data of FP32 holds numbers"),
    (input_with(parameters={"binary_data_size": 8}), "input 'x': exactly one of data"),
    ({"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32"}]}, "input 'x': exactly one of data"),
    (input_with(parameters=[]), "input 'x': parameters must be an object"),
    (input_with(parameters={"shared_memory_region": "r"}), "'shared_memory_region' is not supported"),
    ({"inputs": [X, {**X, "name": "y", "shape": [2, 1]}]}, "must be one batch size, not {'x': 1, 'y': 2}"),
    ({"inputs": [X], "id": 5}, "id must be a string"),
    ({"inputs": [X], "parameters": 5}, "parameters must be an object"),
    ({"inputs": [X], "parameters": {"a": None}}, "parameter 'a' must be true, false"),
    ({"inputs": [X], "parameters": {"a": 1 << 64}}, "parameter 'a' does not fit into 64 bits"),
    ({"inputs": [X], "parameters": {"triton_x": 1}}, "'triton_x' is not supported"),
    ({"inputs": [X], "parameters": {"sequence_id": 1.5}}, "sequence_id must be a string or a number"),
    ({"inputs": [X], "parameters": {"sequence_id": 1, "sequence_end": "x"}}, "sequence_end must be true or"),
    ({"inputs": [X], "parameters": {"shared_memory_offset": 1}}, "'shared_memory_offset' is not supported"),
    ({"inputs": [X], "parameters": {"timeout": -1}}, "timeout must be microseconds"),
    ({"inputs": [X], "parameters": {"timeout": True}}, "timeout must be microseconds"),
    ({"inputs": [X], "parameters": {"binary_data_output": 1}}, "binary_data_output must be true or false"),
    ({"inputs": [X], "outputs": {}}, "outputs must be a list"),
    ({"inputs": [X], "outputs": [{}]}, "outputs[0] must be an object with a name"),
    ({"inputs": [X], "outputs": [{"name": "y"}] * 2}, "output 'y' is asked for twice"),
    ({"inputs": [X], "outputs": [{"name": "y", "parameters": {"binary_data": "yes"}}]}, "output 'y': binary"),
    (
        {"inputs": [X], "outputs": [{"name": "y", "parameters": {"classification": 3}}]},
        "output 'y': parameter 'classification' is not supported",
    ),
]


@pytest.mark.parametrize(("asked", "reason"), BAD_INPUTS)
def test_a_wrong_request_is_refused_by_name(asked, reason):
    assert reason in refused(asked)


def test_parameters_without_a_meaning_here_go_to_the_model():
    said = {"top": 3, "mode": "fast", "priority": 1, "timeout": 1500, "binary_data_output": True}
    request = read({"inputs": [X], "parameters": {**said, "headers": {"a": "b"}}})
    assert request.parameters == {"top": 3, "mode": "fast"}
    assert (request.timeout_s, request.binary) == (0.0015, True)
    assert read({"inputs": [X], "parameters": {"timeout": 0}}).timeout_s is None


@pytest.mark.parametrize(
    ("said", "step"),
    [
        ({"sequence_id": "a"}, Step("a")),
        ({"sequence_id": 7, "sequence_start": True, "sequence_end": True}, Step("7", True, True)),
        ({"sequence_id": 0, "sequence_start": True}, None),
        ({"sequence_id": ""}, None),
        ({}, None),
    ],
)
def test_a_request_may_be_a_step_of_a_sequence(said, step):
    request = read({"inputs": [X], "parameters": said})
    assert (request.step, request.parameters) == (step, {})


# ---- replies ----

FULL, IDS = np.array([[1.5, 2.5]], np.float32), np.array([7], np.int64)
TENSORS = {"full": FULL, "ids": IDS}


def reply(request: InferRequest, tensors=TENSORS) -> tuple[dict[str, Any], bytes, int | None]:
    body, json_bytes = encode(request, "m", "3", unpack_raw(pack(tensors)))
    end = len(body) if json_bytes is None else json_bytes
    return json.loads(body[:end]), body[end:], json_bytes


def test_a_reply_is_json_unless_asked_otherwise():
    head, tail, json_bytes = reply(InferRequest(1, b""))
    assert head == {
        "model_name": "m",
        "model_version": "3",
        "outputs": [
            {"name": "full", "datatype": "FP32", "shape": [1, 2], "data": [1.5, 2.5]},
            {"name": "ids", "datatype": "INT64", "shape": [1], "data": [7]},
        ],
    }
    assert (tail, json_bytes) == (b"", None)


def test_an_id_comes_back_first():
    assert list(reply(InferRequest(1, b"", id="abc"))[0]) == ["id", "model_name", "model_version", "outputs"]


def test_binary_outputs_follow_in_the_order_of_the_outputs():
    head, tail, _ = reply(InferRequest(1, b"", binary=True))
    assert tail == FULL.tobytes() + IDS.tobytes()
    assert [out["parameters"] for out in head["outputs"]] == [{"binary_data_size": 8}] * 2
    assert not any("data" in out for out in head["outputs"])


def test_an_output_says_for_itself_how_it_travels():
    head, tail, _ = reply(InferRequest(1, b"", outputs={"ids": False, "full": None}, binary=True))
    assert [out["name"] for out in head["outputs"]] == ["full", "ids"]  # the model's order
    assert tail == FULL.tobytes() and head["outputs"][1]["data"] == [7]


def test_only_the_outputs_asked_for_are_in_the_reply():
    head, tail, _ = reply(InferRequest(1, b"", outputs={"ids": True}))
    assert [out["name"] for out in head["outputs"]] == ["ids"] and tail == IDS.tobytes()


def test_an_output_that_the_model_has_not_is_refused_by_name():
    with pytest.raises(InvalidInput, match="output 'nope' is not one of full, ids"):
        reply(InferRequest(1, b"", outputs={"nope": None}))


def test_empty_binary_outputs_make_a_json_reply():
    head, tail, json_bytes = reply(InferRequest(1, b"", binary=True), {"e": np.empty((1, 0), np.float32)})
    assert head["outputs"][0]["parameters"] == {"binary_data_size": 0}
    assert (tail, json_bytes) == (b"", None)
