"""Requests as a handler's data, and what a handler returns as answers.

Knows: the forms of both. Must not know: archives, who calls the handler.

A handler gets a list of dicts, one for each request: `{"body": ...}`, or a form's parts by their names. A
part whose type is JSON is parsed, text is decoded, everything else is a bytearray; what cannot be parsed or
decoded stays one. A request with tensors (Open Inference Protocol, `Client.infer`) is `{input: tensor}`; one
of n rows is n of them.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import groupby
from typing import Any
from urllib.parse import parse_qsl
from uuid import uuid4

import numpy as np
import torch

from headway.body import BODY, Body
from headway.errors import ModelError
from headway.headers import HEADERS
from headway.tensors import Tensors
from headway_worker.collate import Value, Values, from_numpy
from headway_worker.replies import Answer, printable
from headway_worker.request import ModelRequest
from headway_worker.torchserve.ts.context import RequestProcessor

JSON, TEXT, FORM = "application/json", "text/", "application/x-www-form-urlencoded"
FIELDS_MAX = 10_000
EXPLAIN, DESCRIBE, URL_PATH, REQUEST_ID = "explain", "describe", "url_path", "request_id"
NOT_A_LIST = "Invalid model predict output"
WRONG_COUNT = "number of batch response mismatched"
WRONG_TYPE = "Unsupported model output data type."
_TYPE = "content-type"


class WrongAnswer(ModelError):
    """What the handler returned is no answer. `message` is what TorchServe's clients are told."""

    def __init__(self, message: str, more: str) -> None:
        super().__init__(f"{message}: {more}")
        self.message = message


@dataclass
class Asked:
    """What the handler is called with. `widths`: how many of the data belong to each request."""

    data: list[dict[str, Any]]
    processors: list[RequestProcessor]
    ids: dict[int, str]
    widths: list[int]


def groups(requests: Sequence[ModelRequest]) -> Iterator[Sequence[ModelRequest]]:
    """The requests in the order that they have, in calls of their own: handlers look at the first request to
    see whether all of them are predictions or it wants a description."""
    if not [request for request in requests if DESCRIBE in request.options]:  # as a rule
        yield requests
        return
    for is_question, run in groupby(requests, asks_itself):
        if is_question:
            yield from ([request] for request in run)
        else:
            yield list(run)


def asks_itself(request: ModelRequest) -> bool:
    """Whether it wants a description."""
    return DESCRIBE in request.options and _is_true(request.options[DESCRIBE])


def asked(requests: Sequence[ModelRequest], decodes: bool = True) -> Asked:
    """The requests of a batch as one call. `decodes` false: JSON and text stay bytes."""
    made = Asked([], [], {}, [])
    for request in requests:
        data, types = _data(request, decodes)
        for one in data:
            made.ids[len(made.data)] = str(request.options.get(REQUEST_ID) or uuid4())
            made.data.append(one)
            made.processors.append(RequestProcessor(partial(_headers, types, request.options)))
        made.widths.append(len(data))
    return made


def asked_again(request: ModelRequest, id: str) -> Asked:
    """A request that a handler has had before, in a running batch: without its data."""
    return Asked([{}], [RequestProcessor(partial(_headers, {}, request.options))], {0: id}, [1])


def together(asked: Sequence[Asked]) -> Asked:
    """Several as one call."""
    made = Asked([], [], {}, [])
    for one in asked:
        made.ids.update((len(made.data) + at, id) for at, id in one.ids.items())
        made.data += one.data
        made.processors += one.processors
        made.widths += one.widths
    return made


def _headers(types: dict[str, str], options: dict[str, Any]) -> dict[str, Any]:
    """The types of the request's parts, its headers as the caller's door knows them, and what handlers look
    for among them: not on all of TorchServe's routes, and always for callers that know nothing of it."""
    headers = options.get(HEADERS)
    said: dict[str, Any] = {name: {_TYPE: kind} for name, kind in types.items()}
    said |= headers if isinstance(headers, dict) else {}
    if _is_true(options.get(DESCRIBE)):
        return {**said, DESCRIBE: "True"}
    if EXPLAIN in options or not isinstance(headers, dict):
        said[EXPLAIN] = "True" if _is_true(options.get(EXPLAIN)) else "False"
    if URL_PATH in options or not isinstance(headers, dict):
        said[URL_PATH] = str(options.get(URL_PATH, ""))
    return said


def _is_true(value: Any) -> bool:
    return value is True or value == 1 or (isinstance(value, str) and value.lower() == "true")


def _data(request: ModelRequest, decodes: bool) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """And the types of its parts."""
    if asks_itself(request):
        return [{}], {}  # nothing but the question
    if request.content is None:
        return _rows(request.tensors, request.rows), {}
    body = request.content
    if body.parts is None and _kind(body.content_type)[1] != FORM:
        return [{BODY: _value(body, decodes)}], {BODY: body.content_type}
    parts = _fields(body) if body.parts is None else body.parts
    types = {name: part.content_type for name, part in parts.items()}
    return [{name: _value(part, decodes) for name, part in parts.items()}], types


def _fields(body: Body) -> dict[str, Body]:
    """The parts of a form that has come as one body."""
    try:
        fields = parse_qsl(
            bytes(body.data).decode("ascii"), keep_blank_values=True, max_num_fields=FIELDS_MAX
        )
    except ValueError:  # not what its type says, as when curl sends a file
        return {BODY: Body(body.data, "")}
    return {name: Body(value.encode(), "") for name, value in fields} or {BODY: Body(b"", "")}


@lru_cache(32)
def _kind(content_type: str) -> tuple[str, str]:
    """What kind of data that is, as it is written and in small letters."""
    kind = content_type.partition(";")[0].strip()
    return kind, kind.lower()


def _value(part: Body, decodes: bool) -> Any:
    data, (kind, _) = bytearray(part.data), _kind(part.content_type)  # in capitals it is none of these
    try:
        if decodes and kind == JSON:
            return json.loads(data)
        return data.decode() if decodes and kind.startswith(TEXT) else data
    except (ValueError, RecursionError):
        return data


def _rows(tensors: Tensors, rows: int) -> list[dict[str, Any]]:
    if not rows:
        return [{name: _tensor(array) for name, array in tensors.items()}]
    return [{name: _tensor(array[row]) for name, array in tensors.items()} for row in range(rows)]


def _tensor(array: Any) -> Any:
    """A copy, which a handler may write to; BYTES as (lists of) bytes."""
    found = np.asarray(array)
    return found.tolist() if found.dtype.kind == "O" else from_numpy(found.copy())


def results(returned: Any, count: int) -> list[Any]:
    """What the handler returned, if that is a list with one for each of the data. Raises: WrongAnswer."""
    if not isinstance(returned, list):
        raise WrongAnswer(NOT_A_LIST, f"the handler returned a {type(returned).__name__}, not a list")
    if len(returned) != count:
        raise WrongAnswer(WRONG_COUNT, f"the handler returned {len(returned)} results for {count} requests")
    return returned


def answer(result: Any, processor: RequestProcessor, before: bytes = b"") -> Answer:
    """A result as a body. `before`: what the handler sent of it already. Raises: WrongAnswer."""
    data, kind = _written(result)
    data = before + data if before else data
    if processor.says_nothing:  # PERF: as a rule
        return Answer(Body(data, kind))
    headers = {printable(str(k)): printable(str(v)) for k, v in processor.get_response_headers().items()}
    said = next((value for name, value in headers.items() if name.lower() == _TYPE), "")
    meta: dict[str, Any] = {"headers": headers} if headers else {}
    status, phrase = processor.get_response_status_code(), processor.get_response_status_phrase()
    if status != 200:
        meta["status"] = status_of(status)
    if phrase:
        meta["phrase"] = printable(str(phrase))
    return Answer(Body(data, said or kind), meta)


def status_of(code: Any, otherwise: int = 500) -> int:
    """A code that HTTP can carry."""
    return code if type(code) is int and 100 <= code <= 999 else otherwise


def chunk(result: Any) -> bytes:
    """What the handler sends of a result before the whole of it. Raises: WrongAnswer."""
    return _written(result)[0]


def _written(result: Any) -> tuple[bytes, str]:
    """The bytes, and of what type they are where the handler does not say."""
    if isinstance(result, (bytes, bytearray, memoryview)):  # PERF: a third of the time of a union
        return bytes(result), "application/octet-stream"
    if isinstance(result, str):
        return printable(result).encode(), "text/plain; charset=utf-8"
    if isinstance(result, torch.Tensor):
        buffer = io.BytesIO()
        torch.save(result, buffer)
        return buffer.getvalue(), "application/octet-stream"
    try:
        return json.dumps(result, indent=2).encode(), JSON
    except (TypeError, ValueError, RecursionError) as error:
        raise WrongAnswer(WRONG_TYPE, f"a {type(result).__name__} is not JSON: {error}") from None


def outputs(rows: Sequence[Any], is_batched: bool) -> Values:
    """The results of a request with tensors as named outputs: a dict's values by their names, anything else
    is the only output. Raises: ModelError for what is no tensor."""
    first = rows[0]
    names = list(first) if isinstance(first, dict) else None
    columns = {str(name): [row[name] for row in rows] for name in names} if names else {"output_0": rows}
    return {name: _stacked(name, column, is_batched) for name, column in columns.items()}


def _stacked(name: str, column: Sequence[Any], is_batched: bool) -> Value:
    values = [_array(name, value) for value in column]
    try:
        stacked = np.stack(values) if is_batched else values[0]
    except ValueError as error:
        raise ModelError(f"output {name!r}: {error}") from None
    return np.asarray(stacked)


def _array(name: str, value: Any) -> Any:
    """A result as an array that travels; text as BYTES."""
    if isinstance(value, torch.Tensor):
        return value.detach().cpu().numpy()
    if isinstance(value, bytes | bytearray):
        return np.array(bytes(value), object)
    if isinstance(value, float | bool):
        return np.array(value, bool if isinstance(value, bool) else np.float32)
    try:
        found = np.array(value)
    except ValueError:  # lists of different lengths
        found = np.array(None, object)
    if found.dtype.kind == "U":
        return np.array([text.encode() for text in found.reshape(-1)], object).reshape(found.shape)
    if found.dtype.kind == "O":
        return np.array(chunk(value), object)  # as a client of the plain dialect would get it
    return found.astype(np.float32) if found.dtype == np.float64 else found
