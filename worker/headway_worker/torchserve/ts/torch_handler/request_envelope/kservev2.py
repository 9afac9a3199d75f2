"""`kservev2`: the Open Inference Protocol's JSON in and out.

The handler sees every input as `{"name", "shape", "datatype", "data"}` with the data in its shape (of BYTES,
the element itself where it is the only one), and returns one result for each, which is the output with that
input's name, as a flat list. For a batch of one request it may return fewer.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from headway_worker.torchserve.ts.torch_handler.request_envelope.base import (
    BaseEnvelope,
    body_of,
    regrouped,
)

_DTYPES = {
    "BOOL": "bool", "UINT8": "uint8", "UINT16": "uint16", "UINT32": "uint32", "UINT64": "uint64",
    "INT8": "int8", "INT16": "int16", "INT32": "int32", "INT64": "int64", "FP16": "float16",
    "FP32": "float32", "FP64": "float64", "BYTES": "object",
}  # fmt: skip
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


class KServev2Envelope(BaseEnvelope):
    """KServe's protocol, version 2."""

    def parse_input(self, data: Any) -> Any:
        bodies = [_parsed(body_of(row)) for row in data]
        self._ids = [body.get("id") for body in bodies]
        rows = [[_shaped(one) for one in body["inputs"]] for body in bodies]
        self._names = [[one["name"] for one in row] for row in rows]
        return [one for row in rows for one in row]

    def format_output(self, data: Any) -> Any:
        """Without any result there is no reply, and so one too few."""
        if not data:
            return data
        counts = [len(names) for names in self._names]
        if len(counts) == 1 and isinstance(data, list):
            counts = [min(counts[0], len(data))]
        return [self._reply(idx, row) for idx, row in enumerate(regrouped(data, counts))]

    def _reply(self, idx: int, results: list[Any]) -> dict[str, Any]:
        model = (self.context.manifest or {}).get("model", {})
        outputs = zip(self._names[idx], results, strict=False)
        return {
            "id": self._ids[idx] or self.context.get_request_id(idx),
            "model_name": model.get("modelName"),
            "model_version": model.get("modelVersion"),
            "outputs": [_written(name, result) for name, result in outputs],
        }


def _parsed(body: Any) -> Any:
    return json.loads(body) if isinstance(body, bytes | bytearray) else body


def _shaped(given: dict[str, Any]) -> dict[str, Any]:
    """Raises: ValueError, KeyError for data that are not of the shape or type."""
    if given["datatype"] == "BYTES":
        return {**given, "data": given["data"][0] if len(given["data"]) == 1 else given["data"]}
    array = np.array(given["data"], dtype=_DTYPES[given["datatype"]])
    return {**given, "data": array.reshape(given["shape"]).tolist()}


def _written(name: str, result: Any) -> dict[str, Any]:
    array = np.array(result).ravel()
    datatype = "BYTES" if array.dtype.kind in "UO" else _NAMES[str(array.dtype)]
    return {"name": name, "datatype": datatype, "data": array.tolist(), "shape": list(array.shape)}


Envelope = KServev2Envelope
