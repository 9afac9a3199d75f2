"""What envelopes have in common: data are taken out of requests, a handler's results put into replies."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any


class BaseEnvelope:
    """`parse_input` and `format_output` are for envelopes to define."""

    def __init__(self, handle_fn: Callable[[Any, Any], Any]) -> None:
        self._handle = handle_fn
        self.context: Any = None

    def handle(self, data: Any, context: Any) -> Any:
        self.context = context
        return self.format_output(self._handle(self.parse_input(data), context))

    def parse_input(self, data: Any) -> Any:
        return data

    def format_output(self, data: Any) -> Any:
        return data


def body_of(row: Any) -> Any:
    """A request's `data`, or else its `body`."""
    return (row.get("data") or row.get("body")) if isinstance(row, Mapping) else row


def regrouped(results: Any, counts: list[int]) -> list[list[Any]]:
    """Results by the requests that they belong to. Raises: ValueError if there are not as many as asked."""
    if not isinstance(results, list) or len(results) != sum(counts):
        got = len(results) if isinstance(results, list) else type(results).__name__
        raise ValueError(f"the handler got {sum(counts)} instances, and returned {got}")
    rest = iter(results)
    return [[next(rest) for _ in range(count)] for count in counts]
