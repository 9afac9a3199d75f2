"""The Open Inference Protocol's messages as the JSON that handlers see and give back.

A handler's `body` is the request as an object: `id`, `model_name`, and `inputs` with `name`, `shape`,
`datatype` and `data`, a flat list; elements of BYTES are base64. What it returns is such an object with
`outputs`; an element of BYTES is then its JSON text, quotes and all and without spaces, which is what
TorchServe sends.

Knows: the messages, the datatypes. Must not know: how calls are taken, handlers, the broker.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from headway.errors import InvalidInput
from headway.tensors import BY_OIP, BYTES, view
from headway_gateway.torchserve.grpc.proto import open_inference_pb2 as messages
from headway_gateway.torchserve.refusal import Refusal

Contents = messages.InferTensorContents
Input = messages.ModelInferRequest.InferInputTensor
Output = messages.ModelInferResponse.InferOutputTensor


class _Field(NamedTuple):
    """The list of `InferTensorContents` that a datatype's elements are in, and what they are in Python."""

    name: str
    element: type


_INT, _UINT = _Field("int_contents", int), _Field("uint_contents", int)
_FIELDS: Mapping[str, _Field] = {
    "BOOL": _Field("bool_contents", bool),
    "INT8": _INT,
    "INT16": _INT,
    "INT32": _INT,
    "INT64": _Field("int64_contents", int),
    "UINT8": _UINT,
    "UINT16": _UINT,
    "UINT32": _UINT,
    "UINT64": _Field("uint64_contents", int),
    "FP32": _Field("fp32_contents", float),
    "FP64": _Field("fp64_contents", float),
    "BYTES": _Field("bytes_contents", bytes),
}


def request_json(request: messages.ModelInferRequest) -> bytes:
    """The handler's body. Raises: InvalidInput naming the input."""
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        raise InvalidInput(f"raw_input_contents has {len(raw)} entries for {len(request.inputs)} inputs")
    inputs = [_input(tensor, raw[i] if raw else None) for i, tensor in enumerate(request.inputs)]
    return json.dumps({"id": request.id, "model_name": request.model_name, "inputs": inputs}).encode()


def _input(tensor: Input, raw: bytes | None) -> dict[str, Any]:
    """In the order in which TorchServe's clients have seen it."""
    data = _from_contents(tensor) if raw is None else _from_raw(tensor, raw)
    return {"shape": list(tensor.shape), "data": data, "datatype": tensor.datatype, "name": tensor.name}


def _from_contents(tensor: Input) -> list[Any]:
    field = _FIELDS.get(tensor.datatype)
    if field is None:
        raise InvalidInput(f"input {tensor.name!r}: no contents for datatype {tensor.datatype!r}")
    return _in_json(getattr(tensor.contents, field.name))


def _from_raw(tensor: Input, raw: bytes) -> list[Any]:
    """Row-major and little-endian, as Triton's clients send it. (TorchServe passes nothing on.)"""
    dtype = BY_OIP.get(tensor.datatype)
    if dtype is None or any(size < 0 for size in tensor.shape):
        raise InvalidInput(f"input {tensor.name!r}: {tensor.datatype!r} {list(tensor.shape)} is no tensor")
    array = view(tensor.name, dtype, list(tensor.shape), raw).reshape(-1)
    return _in_json(array.tolist() if dtype is BYTES else array.astype(_wide(dtype.oip)).tolist())


def _wide(datatype: str) -> Any:
    """What numpy turns into Python's own numbers: bfloat16 is none of numpy's."""
    return "float64" if datatype in ("FP16", "BF16") else BY_OIP[datatype].numpy


def _in_json(elements: Any) -> list[Any]:
    return [base64.b64encode(e).decode() if isinstance(e, bytes) else e for e in elements]


def response_of(data: bytes) -> messages.ModelInferResponse:
    """A handler's answer as a message. Raises: Refusal for one that is none of the protocol's."""
    try:
        said = json.loads(data)
        response = messages.ModelInferResponse(
            id=said.get("id") or "",
            model_name=said["model_name"],
            model_version=str(said.get("model_version") or ""),
        )
        response.outputs.extend(_output(output) for output in said["outputs"])
        return response
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError) as error:
        text = f"the handler's answer is not one of the Open Inference Protocol: {error!r}"
        raise Refusal(500, "InternalServerException", text) from None


def _output(said: Mapping[str, Any]) -> Output:
    datatype = said["datatype"]
    field = _FIELDS[datatype]
    output = Output(name=said["name"], datatype=datatype, shape=said["shape"])
    getattr(output.contents, field.name).extend(_element(field, element) for element in said["data"])
    return output


def _element(field: _Field, said: Any) -> Any:
    if field.element is not bytes:
        return field.element(said)
    return json.dumps(said, ensure_ascii=False, separators=(",", ":")).encode()
