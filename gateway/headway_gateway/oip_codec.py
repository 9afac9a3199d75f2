"""The Open Inference Protocol's inference bodies, to packed tensors and back.

A request is a JSON object and, after it, the bytes of its binary tensors in the order of its inputs; the
header `Inference-Header-Content-Length` says where the JSON ends. A reply has the same form.

Knows: the JSON objects, the protocol's defaults. Must not know: HTTP, how the elements of a tensor are
written (that is `oip_data`), which inputs a model takes (the worker checks that).

Everything that is wrong with a request raises InvalidInput that names the input or key, malformed JSON
included (some servers answer 500 there).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any, NamedTuple

from headway.errors import InvalidInput
from headway.messages import BATCH_ROWS_MAX
from headway.steps import Step
from headway.tensors import (
    BY_OIP,
    BYTES,
    NAME_BYTES_MAX,
    RANK_MAX,
    TENSORS_MAX,
    Buffer,
    DType,
    Part,
    checked_count,
    view,
)
from headway_gateway.oip_data import from_json, to_json

DIMENSION_MAX = 1 << 40
CACHED_JSON_BYTES_MAX = 4096  # so that nobody can fill memory with heads
_EMPTY: Mapping[str, Any] = MappingProxyType({})
_to_text = json.JSONEncoder(separators=(",", ":")).encode  # NaN stays the bare literal that clients read
# Known to the protocol and without meaning here; whatever else is named goes to the model.
_SEQUENCE = ("sequence_id", "sequence_start", "sequence_end")
_RESERVED = ("timeout", "priority", "binary_data_output", "headers", *_SEQUENCE)
_NOT_SUPPORTED = ("classification", "shared_memory_region", "shared_memory_byte_size", "shared_memory_offset")


class InferRequest(NamedTuple):
    """A request as the protocol says it. `outputs` maps the wanted names to their own `binary_data`, or
    to None where they have none; an empty map wants all. `timeout_s` is None where none was said."""

    rows: int
    parts: list[Part]
    id: str = ""
    outputs: Mapping[str, bool | None] = _EMPTY
    binary: bool = False
    timeout_s: float | None = None
    parameters: Mapping[str, Any] = _EMPTY
    step: Step | None = None


def decode(body: Buffer, json_bytes: int | None) -> InferRequest:
    """A request; `json_bytes` is where its JSON ends, None where it has nothing else.

    Raises: InvalidInput naming the input.
    """
    split = len(body) if json_bytes is None else json_bytes
    is_cached = json_bytes is not None and split <= CACHED_JSON_BYTES_MAX
    whole = memoryview(body)
    request, inputs = (_head if is_cached else _head.__wrapped__)(bytes(whole[:split]))
    return InferRequest(request[0], _cut(inputs, whole[split:]), *request[2:])  # _replace takes 2 us


def encode(request: InferRequest, model: str, version: str, parts: list[Part]) -> tuple[bytes, int | None]:
    """The reply's body, and where its JSON ends if anything follows it. `parts` are the model's outputs.

    Raises: InvalidInput for an output that the model has not, or that cannot be sent as asked.
    """
    outputs: list[_Output] = []
    tail: list[Buffer] = []
    for name, dtype, shape, data in _chosen(request, parts):
        own = request.outputs.get(name)
        if request.binary if own is None else own:
            tail.append(data)
            outputs.append(_Output(name, dtype.oip, shape, len(data)))
        else:
            values = to_json(name, view(name, dtype, shape, data))
            outputs.append(_Output(name, dtype.oip, shape, None, values))
    is_cached = len(tail) == len(outputs) and not request.id
    text = (_text if is_cached else _text.__wrapped__)(request.id, model, version, tuple(outputs))
    return (b"".join([text, *tail]), len(text)) if any(tail) else (text, None)


# ---- requests ----

_Input = tuple[str, DType, tuple[int, ...], Buffer | int]  # its data, or how many bytes of the tail are it


# PERF: who sends binary tensors sends the same JSON again and again; 24 us to read it become 1.
@lru_cache(256)
def _head(text: bytes) -> tuple[InferRequest, list[_Input]]:
    """What the JSON says: the request without its parts, and its inputs."""
    asked = _object(text)
    parameters = _parameters(asked.get("parameters"), "parameters")
    id = asked.get("id", "")
    if not isinstance(id, str):
        raise InvalidInput("id must be a string")
    inputs = _inputs(asked.get("inputs"))
    request = InferRequest(
        rows=_rows(inputs),
        parts=[],
        id=id,
        outputs=_outputs(asked.get("outputs")),
        binary=_flag("parameters", parameters, "binary_data_output") or False,
        timeout_s=_timeout_s(parameters),
        parameters=_for_the_model(parameters),
        step=_step(parameters),
    )
    return request, inputs


def _cut(inputs: list[_Input], tail: memoryview) -> list[Part]:
    """The inputs with their data, the binary ones' from the tail, where they lie back to back."""
    parts: list[Part] = []
    offset = 0
    for name, dtype, shape, data in inputs:
        if isinstance(data, int):
            size, left = data, len(tail) - offset
            if size > left:
                raise InvalidInput(
                    f"input {name!r}: binary_data_size is {size}, and {left} bytes follow the JSON for it"
                )
            data = tail[offset : offset + size]
            offset += size
            checked_count(name, dtype, shape, size)
            if dtype is BYTES:
                view(name, dtype, shape, data)  # the lengths of its strings
        parts.append((name, dtype, shape, data))
    if offset < len(tail):
        raise InvalidInput(f"{len(tail) - offset} bytes are left over after the last binary tensor")
    return parts


def _object(text: bytes) -> dict[str, Any]:
    try:
        asked = json.loads(str(text, "utf-8"))
    except (ValueError, RecursionError) as error:
        reason = "nested too deep" if isinstance(error, RecursionError) else str(error)
        raise InvalidInput(f"the request is not JSON: {reason}") from None
    if not isinstance(asked, dict):
        raise InvalidInput("the request must be a JSON object")
    return asked


def _inputs(entries: Any) -> list[_Input]:
    if not isinstance(entries, list) or not 0 < len(entries) <= TENSORS_MAX:
        raise InvalidInput(f"inputs must be a list of 1 to {TENSORS_MAX} tensors")
    inputs = [_input(i, entry) for i, entry in enumerate(entries)]
    if len({name for name, *_ in inputs}) != len(inputs):
        raise InvalidInput("two inputs have one name")
    return inputs


def _input(index: int, entry: Any) -> _Input:
    name = _name(f"inputs[{index}]", entry)
    where = f"input {name!r}"
    dtype = BY_OIP.get(str(entry.get("datatype")))
    if dtype is None:
        raise InvalidInput(f"{where}: datatype {entry.get('datatype')!r} is not one of {', '.join(BY_OIP)}")
    shape = _shape(where, entry.get("shape"))
    parameters = _parameters(entry.get("parameters"), where)
    if ("data" in entry) == ("binary_data_size" in parameters):
        raise InvalidInput(f"{where}: exactly one of data and parameters.binary_data_size is needed")
    if "data" in entry:
        return name, dtype, shape, from_json(where, dtype, shape, entry["data"])
    size = parameters["binary_data_size"]
    if type(size) is not int or size < 0:
        raise InvalidInput(f"{where}: binary_data_size is a number of bytes, not {size!r}")
    return name, dtype, shape, size


def _name(where: str, entry: Any) -> str:
    name = entry.get("name") if isinstance(entry, dict) else None
    if not isinstance(name, str) or not 0 < len(name) <= NAME_BYTES_MAX:
        raise InvalidInput(f"{where} must be an object with a name of 1 to {NAME_BYTES_MAX} characters")
    return name


def _shape(where: str, shape: Any) -> tuple[int, ...]:
    if not isinstance(shape, list) or not 0 < len(shape) <= RANK_MAX:
        raise InvalidInput(f"{where}: shape must be a list of 1 to {RANK_MAX} sizes, the batch size first")
    if any(type(size) is not int or not 0 <= size < DIMENSION_MAX for size in shape):
        raise InvalidInput(f"{where}: shape {shape} must hold sizes from 0 on")
    return tuple(shape)


def _rows(inputs: list[_Input]) -> int:
    sizes = {name: shape[0] for name, _, shape, _ in inputs}
    rows = next(iter(sizes.values()))
    if any(size != rows for size in sizes.values()):
        raise InvalidInput(f"the first dimension of all inputs must be one batch size, not {sizes}")
    if not 0 < rows <= BATCH_ROWS_MAX:
        raise InvalidInput(f"input {inputs[0][0]!r}: a batch size is from 1 to {BATCH_ROWS_MAX}, not {rows}")
    return rows


def _outputs(entries: Any) -> dict[str, bool | None]:
    if entries is None:
        return {}
    if not isinstance(entries, list):
        raise InvalidInput("outputs must be a list")
    outputs: dict[str, bool | None] = {}
    for i, entry in enumerate(entries):
        name = _name(f"outputs[{i}]", entry)
        if name in outputs:
            raise InvalidInput(f"output {name!r} is asked for twice")
        where = f"output {name!r}"
        outputs[name] = _flag(where, _parameters(entry.get("parameters"), where), "binary_data")
    return outputs


def _parameters(found: Any, where: str) -> dict[str, Any]:
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise InvalidInput(f"{where}: parameters must be an object")
    for key, value in found.items():
        if key in _NOT_SUPPORTED or key.startswith("triton_"):
            raise InvalidInput(f"{where}: parameter {key!r} is not supported")
        if not isinstance(value, (bool, int, float, str)) and key != "headers":
            raise InvalidInput(f"{where}: parameter {key!r} must be true, false, a number or a string")
        if isinstance(value, int) and not -(1 << 63) <= value < 1 << 64:
            raise InvalidInput(f"{where}: parameter {key!r} does not fit into 64 bits")
    return found


def _flag(where: str, parameters: dict[str, Any], key: str) -> bool | None:
    value = parameters.get(key)
    if value is not None and type(value) is not bool:
        raise InvalidInput(f"{where}: {key} must be true or false, not {value!r}")
    return value


def _timeout_s(parameters: dict[str, Any]) -> float | None:
    timeout_us = parameters.get("timeout", 0)
    if type(timeout_us) is not int or timeout_us < 0:
        raise InvalidInput(f"parameters: timeout must be microseconds from 0 on, not {timeout_us!r}")
    return timeout_us / 1e6 or None


def _step(parameters: dict[str, Any]) -> Step | None:
    """A number names a sequence as well as a string; 0 and "" name none."""
    name, starts, ends = (parameters.get(key) for key in _SEQUENCE)
    for key, said in (("sequence_start", starts), ("sequence_end", ends)):
        if said not in (None, True, False):
            raise InvalidInput(f"parameters: {key} must be true or false, not {said!r}")
    if not name:
        return None
    if type(name) not in (int, str):
        raise InvalidInput(f"parameters: sequence_id must be a string or a number, not {name!r}")
    return Step(str(name), bool(starts), bool(ends))


def _for_the_model(parameters: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in parameters.items() if key not in _RESERVED}


# ---- replies ----


class _Output(NamedTuple):
    """An output as the JSON says it: `size` bytes of the tail, or None and its values."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    size: int | None
    values: Any = None

    def entry(self) -> dict[str, Any]:
        entry: dict[str, Any] = {"name": self.name, "datatype": self.datatype, "shape": self.shape}
        if self.size is None:
            return {**entry, "data": self.values}
        return {**entry, "parameters": {"binary_data_size": self.size}}


@lru_cache(256)  # PERF: as `_head`; 11 us to write become 1
def _text(id: str, model: str, version: str, outputs: tuple[_Output, ...]) -> bytes:
    head = {"id": id} if id else {}
    entries = [output.entry() for output in outputs]
    said = {**head, "model_name": model, "model_version": version, "outputs": entries}
    return _to_text(said).encode()


def _chosen(request: InferRequest, parts: list[Part]) -> list[Part]:
    if not request.outputs:
        return parts
    names = [part[0] for part in parts]
    for name in request.outputs:
        if name not in names:
            raise InvalidInput(f"output {name!r} is not one of {', '.join(names)}")
    return [part for part in parts if part[0] in request.outputs]
