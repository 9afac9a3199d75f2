"""`ts.metrics.dimension`."""

from __future__ import annotations


class Dimension:
    """A name and a value that tell series of one metric apart."""

    def __init__(self, name: str, value: str) -> None:
        self.name = name
        self.value = value

    def __str__(self) -> str:
        return f"{self.name}:{self.value}"
