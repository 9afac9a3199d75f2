"""`json`: `{"instances": [...]}` in, `{"predictions": [...]}` out, on one line."""

from __future__ import annotations

import json
from base64 import b64decode
from typing import Any

from headway_worker.torchserve.ts.torch_handler.request_envelope.base import (
    BaseEnvelope,
    body_of,
    regrouped,
)


class JSONEnvelope(BaseEnvelope):
    """Every instance of every request is one of the handler's data; `{"b64": text}` is bytes."""

    def parse_input(self, data: Any) -> Any:
        rows = [[_decoded(one) for one in (body_of(row) or row)["instances"]] for row in data]
        self._counts = [len(row) for row in rows]
        return [one for row in rows for one in row]

    def format_output(self, data: Any) -> Any:
        return [json.dumps({"predictions": row}) for row in regrouped(data, self._counts)]


def _decoded(instance: Any) -> Any:
    if not isinstance(instance, dict):
        return instance
    if list(instance) == ["b64"]:
        return b64decode(instance["b64"])
    return {name: _decoded(v) if _is_b64(v) else v for name, v in instance.items()}


def _is_b64(value: Any) -> bool:
    return isinstance(value, dict) and list(value) == ["b64"]


Envelope = JSONEnvelope
