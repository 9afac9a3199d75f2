"""`ts.metrics.caching_metric`: one metric, and what it came to by its dimensions."""

from __future__ import annotations

from collections.abc import Sequence

from headway_worker.torchserve.ts.metrics.metric_type_enum import MetricTypes

SERIES_MAX = 10_000  # a handler that makes a dimension of what callers send must not fill the memory


class CachingMetric:
    """`values`: by the dimensions' values, the sum of a counter, the last value of a gauge, or a histogram's
    [count, sum]."""

    def __init__(
        self,
        metric_name: str,
        unit: str,
        dimension_names: Sequence[str],
        metric_type: MetricTypes,
    ) -> None:
        self.metric_name = metric_name
        self.unit = unit
        self.dimension_names = list(dimension_names)
        self.metric_type = metric_type
        self.values: dict[tuple[str, ...], float | list[float]] = {}

    def add_or_update(self, value: float, dimension_values: Sequence[str] = (), request_id: str = "") -> None:
        """Record a value. Raises: ValueError for another number of dimensions than the metric has."""
        key = tuple(map(str, dimension_values))
        if len(key) != len(self.dimension_names):
            names = ", ".join(self.dimension_names) or "none"
            raise ValueError(f"metric {self.metric_name} has the dimensions {names}, got {len(key)} values")
        if key not in self.values and len(self.values) >= SERIES_MAX:
            return
        self._record(key, value)

    def update(self, value: float, request_id: str = "", dimensions: Sequence[object] | None = None) -> None:
        """As `add_or_update`, with `Dimension`s."""
        found = {getattr(one, "name", ""): str(getattr(one, "value", "")) for one in dimensions or ()}
        self.add_or_update(value, [found.get(name, "") for name in self.dimension_names], request_id)

    def _record(self, key: tuple[str, ...], value: float) -> None:
        had = self.values.get(key)
        if self.metric_type is MetricTypes.COUNTER:
            if value < 0:
                raise ValueError(f"metric {self.metric_name} is a counter: {value} is below 0")
            self.values[key] = (had if isinstance(had, int | float) else 0.0) + value
        elif self.metric_type is MetricTypes.HISTOGRAM:
            count, total = had if isinstance(had, list) else (0.0, 0.0)
            self.values[key] = [count + 1, total + value]
        else:
            self.values[key] = value
