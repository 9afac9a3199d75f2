from __future__ import annotations

import base64
import json
import struct
from typing import Any

import pytest

from headway.errors import InvalidInput
from headway_gateway.torchserve.grpc.oip_json import Contents, Input, request_json, response_of
from headway_gateway.torchserve.grpc.proto.open_inference_pb2 import ModelInferRequest
from headway_gateway.torchserve.refusal import Refusal


def data_of(tensor: Input, *raw: bytes) -> Any:
    request = ModelInferRequest(model_name="m", inputs=[tensor], raw_input_contents=raw)
    (found,) = json.loads(request_json(request))["inputs"]
    assert found["shape"] == list(tensor.shape)
    return found["data"]


def test_a_request_is_what_a_handler_gets_from_torchserve() -> None:
    tensor = Input(name="a", datatype="INT32", shape=[2], contents=Contents(int_contents=[1, 2]))
    request = ModelInferRequest(model_name="m", model_version="1.0", id="7", inputs=[tensor])
    assert json.loads(request_json(request)) == {
        "id": "7",
        "model_name": "m",
        "inputs": [{"name": "a", "shape": [2], "datatype": "INT32", "data": [1, 2]}],
    }


@pytest.mark.parametrize(
    ("datatype", "field", "elements"),
    [
        ("BOOL", "bool_contents", [True, False]),
        ("INT8", "int_contents", [-1]),
        ("INT16", "int_contents", [-1]),
        ("INT64", "int64_contents", [1 << 60]),
        ("UINT8", "uint_contents", [255]),
        ("UINT16", "uint_contents", [1]),
        ("UINT32", "uint_contents", [1 << 31]),
        ("UINT64", "uint64_contents", [1 << 63]),
        ("FP32", "fp32_contents", [0.5]),
        ("FP64", "fp64_contents", [0.1]),
    ],
)
def test_each_datatype_has_a_list_of_its_own_both_ways(
    datatype: str, field: str, elements: list[Any]
) -> None:
    contents = Contents(**{field: elements})
    tensor = Input(name="a", datatype=datatype, shape=[len(elements)], contents=contents)
    assert data_of(tensor) == elements
    output = {"name": "o", "datatype": datatype, "shape": [len(elements)], "data": elements}
    (found,) = response_of(json.dumps({"model_name": "m", "outputs": [output]}).encode()).outputs
    assert (found.name, found.datatype, list(found.shape)) == ("o", datatype, [len(elements)])
    assert list(getattr(found.contents, field)) == elements


def test_bytes_are_base64_to_the_handler_and_json_text_from_it() -> None:
    tensor = Input(name="a", datatype="BYTES", shape=[1], contents=Contents(bytes_contents=[b"\xffhi"]))
    assert data_of(tensor) == [base64.b64encode(b"\xffhi").decode()]
    output = {"name": "o", "datatype": "BYTES", "shape": [1], "data": ["hi"]}
    (found,) = response_of(json.dumps({"model_name": "m", "outputs": [output]}).encode()).outputs
    assert list(found.contents.bytes_contents) == [b'"hi"']


@pytest.mark.parametrize(
    ("datatype", "raw", "elements"),
    [
        ("INT32", struct.pack("<2i", 1, -2), [1, -2]),
        ("FP16", struct.pack("<2e", 0.5, 2), [0.5, 2]),
        ("BF16", b"\x80\x3f\x00\x40", [1.0, 2.0]),
        ("BYTES", b"\1\0\0\0a\2\0\0\0bc", ["YQ==", "YmM="]),
    ],
)
def test_raw_contents_reach_the_handler_as_lists_too(datatype: str, raw: bytes, elements: list[Any]) -> None:
    assert data_of(Input(name="a", datatype=datatype, shape=[2]), raw) == elements


@pytest.mark.parametrize(
    ("tensor", "raw"),
    [
        (Input(name="bad", datatype="XX", shape=[1]), []),
        (Input(name="bad", datatype="FP16", shape=[1]), []),
        (Input(name="bad", datatype="INT32", shape=[1]), [b"\0"]),
        (Input(name="bad", datatype="INT32", shape=[-1]), [b"\0\0\0\0"]),
        (Input(name="bad", datatype="XX", shape=[1]), [b"\0"]),
    ],
)
def test_a_tensor_that_is_none_is_named(tensor: Input, raw: list[bytes]) -> None:
    with pytest.raises(InvalidInput, match="'bad'"):
        data_of(tensor, *raw)


def test_what_a_handler_says_as_an_object_comes_without_spaces() -> None:
    output = {"name": "o", "datatype": "BYTES", "shape": [1], "data": [{"a": [1, "ü"]}]}
    (found,) = response_of(json.dumps({"model_name": "m", "outputs": [output]}).encode()).outputs
    assert list(found.contents.bytes_contents) == ['{"a":[1,"ü"]}'.encode()]


def test_raw_contents_are_for_all_inputs_or_for_none() -> None:
    with pytest.raises(InvalidInput, match="2 entries for 1 inputs"):
        data_of(Input(name="a", datatype="INT8", shape=[1]), b"\0", b"\0")


def test_an_answer_names_its_request_model_and_version() -> None:
    said = {"id": "7", "model_name": "m", "model_version": "1.0", "outputs": []}
    response = response_of(json.dumps(said).encode())
    assert (response.id, response.model_name, response.model_version) == ("7", "m", "1.0")


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"[]",
        b"no",
        b"{}",
        b'{"model_name": "m", "outputs": [{}]}',
        b'{"model_name": "m", "outputs": [{"name": "o", "datatype": "INT8", "shape": [1], "data": ["x"]}]}',
        b'{"model_name": "m", "outputs": [{"name": "o", "datatype": "XX", "shape": [1], "data": [1]}]}',
        b'{"model_name": "m", "outputs": [{"name": "o", "datatype": "INT8", "shape": "x", "data": [1]}]}',
    ],
)
def test_an_answer_that_is_none_of_the_protocol_is_the_handlers_fault(said: bytes) -> None:
    with pytest.raises(Refusal, match="the handler's answer") as caught:
        response_of(said)
    assert caught.value.status == 500
