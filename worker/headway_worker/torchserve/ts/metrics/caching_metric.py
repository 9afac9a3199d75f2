"""`ts.metrics.caching_metric`: one metric, whose values go where its maker says."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

from headway.torchserve.metrics import LONG, Record
from headway_worker.replies import printable
from headway_worker.torchserve.ts.metrics.metric_type_enum import MetricTypes

log = logging.getLogger("headway.worker")


def _nowhere(record: Record) -> None:
    """Of a metric that a handler made without asking `context.metrics` for it."""


class CachingMetric:
    """A value that cannot be (below 0 for a counter, another number of dimensions than the metric has) is
    logged and left out: a handler does not fail for a metric."""

    def __init__(
        self,
        metric_name: str,
        unit: str,
        dimension_names: Sequence[str] = (),
        metric_type: MetricTypes = MetricTypes.COUNTER,
        note: Callable[[Record], None] = _nowhere,
    ) -> None:
        self.metric_name = metric_name
        self.unit = printable(LONG.get(unit, unit))
        self.dimension_names = [str(name) for name in dimension_names or ()]
        self.metric_type = metric_type
        self._type: str = metric_type.value
        self._note = note

    def add_or_update(self, value: float, dimension_values: Sequence[Any] = (), request_id: str = "") -> None:
        """Record a value."""
        values = list(map(str, dimension_values or ()))
        try:
            number = self._checked(value, values)
        except (TypeError, ValueError) as error:
            log.error("[METRICS]Failed to update metric %s: %s", self.metric_name, error)
            return
        dimensions = tuple(chain.from_iterable(zip(self.dimension_names, values, strict=True)))
        name, unit = self.metric_name, self.unit
        record = Record(self._type, name, unit, number, dimensions, request_id)
        self._note(record if name.isascii() and "".join(dimensions).isascii() else _sendable(record))

    def update(self, value: float, request_id: str = "", dimensions: Sequence[Any] | None = None) -> None:
        """Record a value with `Dimension`s, which are the metric's from here on."""
        self.dimension_names = [str(one.name) for one in dimensions or ()]
        self.add_or_update(value, [one.value for one in dimensions or ()], request_id)

    def _checked(self, value: Any, values: list[str]) -> float:
        if len(values) != len(self.dimension_names):
            names = ", ".join(map(str, self.dimension_names)) or "none"
            raise ValueError(f"it has the dimensions {names}, got {len(values)} values")
        number = float(value)
        if self.metric_type is MetricTypes.COUNTER and number < 0:
            raise ValueError(f"a counter only grows: {value} is below 0")
        return number


def _sendable(record: Record) -> Record:
    """Without lone surrogates, which cannot travel."""
    dimensions = tuple(map(printable, record.dimensions))
    return record._replace(name=printable(record.name), dimensions=dimensions)
