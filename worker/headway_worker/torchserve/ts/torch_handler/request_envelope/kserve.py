"""`kserve`: `{"instances": [...]}` in, `{"predictions": [...]}` or `{"explanations": [...]}` out.

Bytes in base64 stay text. Of a batch only the first request is looked at, as in TorchServe: serve such a
model with `batch_size_max = 1`.
"""

from __future__ import annotations

import json
from typing import Any

from headway_worker.torchserve.ts.torch_handler.request_envelope.base import BaseEnvelope, body_of


class KServeEnvelope(BaseEnvelope):
    """KServe's protocol, version 1."""

    def parse_input(self, data: Any) -> Any:
        body = body_of(data[0])
        if isinstance(body, bytes | bytearray):
            body = json.loads(body)
        return body["instances"]

    def format_output(self, data: Any) -> Any:
        explained = self.context.get_request_header(0, "explain") == "True"
        return [{"explanations" if explained else "predictions": data}]


Envelope = KServeEnvelope
