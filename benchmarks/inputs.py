"""What the benchmark's models are asked, and what they should answer.

    tiny        16 float32, doubled: as little work as a model can do
    payload     [3, 224, 224] float32 (602,112 bytes) in, its first 1,000 numbers out: moving bytes
    resnet50    the same in, 1,000 float32 out: real work

Knows: shapes and numbers. Must not know: servers, protocols.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

IMAGE = (3, 224, 224)


@dataclass(frozen=True)
class Example:
    """One request to a model: input `x`, output `y`, both float32."""

    model: str
    shape: tuple[int, ...]
    outputs: int

    @cached_property
    def x(self) -> np.ndarray:
        """[*shape] float32: small numbers, the same ones every time."""
        return np.random.default_rng(seed=5).standard_normal(self.shape, np.float32)

    @cached_property
    def tail(self) -> bytes:
        """What the body of a right answer ends with. (A ResNet's last bits depend on its batch: empty.)"""
        if self.model == "tiny":
            return (self.x * 2).tobytes()
        if self.model == "payload":
            return self.x.ravel()[: self.outputs].tobytes()
        return b""

    def is_right(self, body: bytes) -> bool:
        return len(body) >= 4 * self.outputs and body.endswith(self.tail)


EXAMPLES = {
    "tiny": Example("tiny", (16,), 16),
    "payload": Example("payload", IMAGE, 1000),
    "resnet50": Example("resnet50", IMAGE, 1000),
}
