"""`body`: a handler sees the bodies themselves, not dicts."""

from __future__ import annotations

from typing import Any

from headway_worker.torchserve.ts.torch_handler.request_envelope.base import BaseEnvelope, body_of


class BodyEnvelope(BaseEnvelope):
    """Requests without their dicts."""

    def parse_input(self, data: Any) -> Any:
        return [body_of(row) for row in data]


Envelope = BodyEnvelope
