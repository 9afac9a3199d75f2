"""What a model's `preprocess` and `postprocess` see of one request.

Knows: bodies and their parts, tensors as numpy arrays.
Must not know: torch, batches, the wire.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from headway.body import BODY, Body
from headway.steps import Step, step_of
from headway.tensors import Tensors
from headway_worker.replies import Answer


@dataclass
class ModelRequest:
    """One request. A body request (`content` is there) goes through `preprocess` and `postprocess`;
    a tensor request goes past both.

    `tensors` is what the model is given for this request, as numpy arrays: the caller's own (read-only views)
    in a tensor request; in a body request empty until `preprocess` has returned. `rows` 0: one example
    without a batch dimension; n > 0 (tensor requests only): each array has a leading n. `state` is free: what
    `preprocess` puts there, `postprocess` finds. `send`: for backends that take requests whole, sends a piece
    of the reply to a caller that takes pieces; the answer is then what is left. From any thread, until the
    backend has answered.
    """

    options: dict[str, Any] = field(default_factory=dict)
    rows: int = 0
    content: Body | None = None
    tensors: Tensors = field(default_factory=dict)
    state: dict[str, Any] = field(default_factory=dict)
    send: Callable[[Answer], None] | None = None

    @property
    def width(self) -> int:
        """How many rows of a batch it takes."""
        return self.rows or 1

    @property
    def step(self) -> Step | None:
        """Its place in a sequence, if it has one: which sequence, and whether it starts or ends it."""
        return step_of(self.options)

    @cached_property
    def body(self) -> bytes:
        """The body's bytes (of several parts: the first one's); empty in a tensor request."""
        return bytes(self.content.data) if self.content else b""

    @property
    def content_type(self) -> str:
        """The body's media type, as the caller said it; empty where nobody said one."""
        return self.content.content_type if self.content else ""

    @cached_property
    def parts(self) -> dict[str, bytes]:
        """The named parts of a multipart form; a body without parts is one part, "body"."""
        if self.content is None:
            return {}
        parts = self.content.parts or {BODY: self.content}
        return {name: bytes(part.data) for name, part in parts.items()}

    def json(self) -> Any:
        """The body parsed as JSON. Raises: InvalidInput when it is not JSON."""
        return Body(self.body).json()

    def text(self) -> str:
        """The body as UTF-8. Raises: UnicodeDecodeError, which is the caller's fault (a ValueError)."""
        return self.body.decode()
