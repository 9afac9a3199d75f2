"""gRPC calls from and to JSON without generated code: messages are few and small, so they are packed by hand.

Knows: grpcio's generic calls, protobuf's wire format, the field numbers of TorchServe's services.
Must not know: cases, servers.

Bytes are JSON strings; those that are no UTF-8 are `{"base64": …}`.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterator, Mapping
from typing import Any

import grpc

from tests.torchserve.wire import TIMEOUT_S

INFERENCE = "org.pytorch.serve.grpc.inference.InferenceAPIsService"
MANAGEMENT = "org.pytorch.serve.grpc.management.ManagementAPIsService"
OPEN = "org.pytorch.serve.grpc.openinference.GRPCInferenceService"

Fields = Mapping[str, tuple[int, Any]]
PREDICTIONS: Fields = {
    "model_name": (1, "string"),
    "model_version": (2, "string"),
    "input": (3, "map"),
    "sequence_id": (4, "string"),
}
REGISTER: Fields = {
    "batch_size": (1, "int"),
    "handler": (2, "string"),
    "initial_workers": (3, "int"),
    "max_batch_delay": (4, "int"),
    "model_name": (5, "string"),
    "response_timeout": (6, "int"),
    "runtime": (7, "string"),
    "synchronous": (8, "bool"),
    "url": (9, "string"),
    "s3_sse_kms": (10, "bool"),
    "startup_timeout": (11, "int"),
}
SCALE: Fields = {
    "model_name": (1, "string"),
    "model_version": (2, "string"),
    "max_worker": (3, "int"),
    "min_worker": (4, "int"),
    "number_gpu": (5, "int"),
    "synchronous": (6, "bool"),
    "timeout": (7, "int"),
}
NAMED: Fields = {"model_name": (1, "string"), "model_version": (2, "string")}
OPEN_MODEL: Fields = {"name": (1, "string"), "version": (2, "string")}
CONTENTS: Fields = {
    "bool_contents": (1, "bools"),
    "int_contents": (2, "ints"),
    "int64_contents": (3, "ints"),
    "uint_contents": (4, "ints"),
    "uint64_contents": (5, "ints"),
    "fp32_contents": (6, "floats"),
    "fp64_contents": (7, "doubles"),
    "bytes_contents": (8, "bytes*"),
}
OPEN_INPUT: Fields = {
    "name": (1, "string"),
    "datatype": (2, "string"),
    "shape": (3, "ints"),
    "contents": (5, CONTENTS),
}
OPEN_INFER: Fields = {
    "model_name": (1, "string"),
    "model_version": (2, "string"),
    "id": (3, "string"),
    "inputs": (5, [OPEN_INPUT]),
}
OPEN_OUTPUT: Fields = {**OPEN_INPUT}
MESSAGE: Fields = {"msg": (1, "string")}
PREDICTION: Fields = {"prediction": (1, "bytes"), "sequence_id": (2, "string"), "status": (3, "bytes")}
INFERRED: Fields = {
    "model_name": (1, "string"),
    "model_version": (2, "string"),
    "id": (3, "string"),
    "outputs": (5, [OPEN_OUTPUT]),
}
TENSOR: Fields = {"name": (1, "string"), "datatype": (2, "string"), "shape": (3, "ints")}
METADATA: Fields = {
    "name": (1, "string"),
    "versions": (2, "string*"),
    "platform": (3, "string"),
    "inputs": (4, [TENSOR]),
    "outputs": (5, [TENSOR]),
}
# method: what it is given, what it answers, whether either is a stream
METHODS: dict[str, tuple[Fields, Fields, str]] = {
    f"{INFERENCE}/Ping": ({}, {"health": (1, "string")}, "unary_unary"),
    f"{INFERENCE}/Predictions": (PREDICTIONS, PREDICTION, "unary_unary"),
    f"{INFERENCE}/StreamPredictions": (PREDICTIONS, PREDICTION, "unary_stream"),
    f"{INFERENCE}/StreamPredictions2": (PREDICTIONS, PREDICTION, "stream_stream"),
    f"{MANAGEMENT}/DescribeModel": ({**NAMED, "customized": (3, "bool")}, MESSAGE, "unary_unary"),
    f"{MANAGEMENT}/ListModels": (
        {"limit": (1, "int"), "next_page_token": (2, "int")},
        MESSAGE,
        "unary_unary",
    ),
    f"{MANAGEMENT}/RegisterModel": (REGISTER, MESSAGE, "unary_unary"),
    f"{MANAGEMENT}/ScaleWorker": (SCALE, MESSAGE, "unary_unary"),
    f"{MANAGEMENT}/SetDefault": (NAMED, MESSAGE, "unary_unary"),
    f"{MANAGEMENT}/UnregisterModel": (NAMED, MESSAGE, "unary_unary"),
    f"{OPEN}/ServerLive": ({}, {"live": (1, "bool")}, "unary_unary"),
    f"{OPEN}/ServerReady": ({}, {"ready": (1, "bool")}, "unary_unary"),
    f"{OPEN}/ModelReady": (OPEN_MODEL, {"ready": (1, "bool")}, "unary_unary"),
    f"{OPEN}/ServerMetadata": ({}, {"name": (1, "string"), "version": (2, "string")}, "unary_unary"),
    f"{OPEN}/ModelMetadata": (OPEN_MODEL, METADATA, "unary_unary"),
    f"{OPEN}/ModelInfer": (OPEN_INFER, INFERRED, "unary_unary"),
}


def call(port: int, method: str, request: Any, metadata: list[tuple[str, str]]) -> dict[str, Any]:
    """`{"code", "details", "messages"}`. For a stream of requests, `request` is a list of them."""
    given, answered, form = METHODS[method]
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        found: list[Any] = []
        try:
            stub = getattr(channel, form)(f"/{method}")
            sent = iter([packed(given, r) for r in request]) if "stream_" in form else packed(given, request)
            reply = stub(sent, timeout=TIMEOUT_S, metadata=metadata)
            for message in reply if form.endswith("stream") else [reply]:
                found.append(unpacked(answered, message))
        except grpc.RpcError as error:
            return {"code": error.code().name, "details": error.details(), "messages": found}
    return {"code": "OK", "details": "", "messages": found}


def varint(number: int) -> bytes:
    number &= (1 << 64) - 1
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def field(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def packed(fields: Fields, message: Mapping[str, Any]) -> bytes:
    return b"".join(pack_one(*fields[name], value) for name, value in message.items())


def pack_one(number: int, kind: Any, value: Any) -> bytes:
    if kind in ("int", "bool"):
        return varint(number << 3) + varint(int(value))
    if kind == "map":
        pairs = [field(1, name.encode()) + field(2, as_bytes(content)) for name, content in value.items()]
        return b"".join(field(number, pair) for pair in pairs)
    if kind in ("ints", "bools", "floats", "doubles"):
        return field(number, pack_numbers(kind, value))
    if isinstance(kind, list):
        return b"".join(field(number, packed(kind[0], each)) for each in value)
    if isinstance(kind, str) and kind.endswith("*"):
        return b"".join(field(number, as_bytes(each)) for each in value)
    return field(number, as_bytes(value) if isinstance(kind, str) else packed(kind, value))


def pack_numbers(kind: str, values: list[Any]) -> bytes:
    code = {"floats": "f", "doubles": "d"}.get(kind)
    return struct.pack(f"<{len(values)}{code}", *values) if code else b"".join(varint(int(v)) for v in values)


def as_bytes(value: Any) -> bytes:
    return base64.b64decode(value["base64"]) if isinstance(value, dict) else str(value).encode()


def as_json(content: bytes) -> Any:
    try:
        return content.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(content).decode()}


def unpacked(fields: Fields, data: bytes) -> dict[str, Any]:
    by_number = {number: (name, kind) for name, (number, kind) in fields.items()}
    found: dict[str, Any] = {}
    for number, content in parts(data):
        name, kind = by_number.get(number, (f"field {number}", "bytes"))
        value = unpack_one(kind, content)
        if isinstance(kind, list) or (
            isinstance(kind, str) and kind.endswith(("*", "s")) and kind != "bytes"
        ):
            found.setdefault(name, []).extend(value if isinstance(value, list) else [value])
        else:
            found[name] = value
    return found


def parts(data: bytes) -> Iterator[tuple[int, Any]]:
    at = 0
    while at < len(data):
        key, at = read_varint(data, at)
        if key & 7 == 0:
            value, at = read_varint(data, at)
            yield key >> 3, value
        else:
            size, at = read_varint(data, at) if key & 7 == 2 else ({1: 8, 5: 4}[key & 7], at)
            yield key >> 3, data[at : at + size]
            at += size


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        number |= (data[at] & 127) << shift
        shift += 7
        at += 1
        if data[at - 1] < 128:
            return number, at


def unpack_one(kind: Any, content: Any) -> Any:
    if isinstance(kind, Mapping):
        return unpacked(kind, content)
    if isinstance(kind, list):
        return [unpacked(kind[0], content)]
    if kind == "bool":
        return bool(content)
    if kind in ("ints", "bools", "floats", "doubles"):
        return unpack_numbers(kind, content)
    return content if isinstance(content, int) else as_json(content)


def unpack_numbers(kind: str, content: Any) -> list[Any]:
    if isinstance(content, int):
        return [content]
    if kind in ("floats", "doubles"):
        size, code = (4, "f") if kind == "floats" else (8, "d")
        return list(struct.unpack(f"<{len(content) // size}{code}", content))
    found, at = [], 0
    while at < len(content):
        number, at = read_varint(content, at)
        found.append(bool(number) if kind == "bools" else number)
    return found
