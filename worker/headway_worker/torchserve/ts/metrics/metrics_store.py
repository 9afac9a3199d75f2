"""`ts.metrics.metrics_store`: `context.metrics`.

What is recorded is kept here, summed by metric and dimensions; nothing reads it yet but Headway's own tests
and whoever asks `recorded`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from headway_worker.torchserve.ts.metrics.caching_metric import CachingMetric
from headway_worker.torchserve.ts.metrics.dimension import Dimension
from headway_worker.torchserve.ts.metrics.metric_type_enum import MetricTypes
from headway_worker.torchserve.ts.metrics.unit import LONG

_TIMES, _SIZES = ("ms", "s"), ("B", "kB", "MB", "GB")


class MetricsStore:
    """A model's metrics. All have the dimensions ModelName and Level, whose value is Model."""

    def __init__(self, model_name: str, request_ids: Mapping[int, str] | None = None) -> None:
        self.model_name = model_name
        self.request_ids = request_ids
        self.cache: dict[tuple[MetricTypes, str], CachingMetric] = {}

    def begin(self, request_ids: Mapping[int, str]) -> None:
        """Headway's own: these are the requests from here on."""
        self.request_ids = request_ids

    def recorded(self) -> dict[str, dict[tuple[str, ...], Any]]:
        """What every metric came to, by the values of its dimensions."""
        return {metric.metric_name: dict(metric.values) for metric in self.cache.values()}

    def add_metric(
        self,
        name: str,
        value: float,
        unit: str = "unit",
        idx: int | None = None,
        dimensions: Sequence[Dimension] | None = None,
        metric_type: MetricTypes = MetricTypes.COUNTER,
    ) -> None:
        """Record a value of a metric, which is made at its first one."""
        all_of_them = [*(dimensions or ()), *self._defaults()]
        names = [one.name for one in all_of_them]
        metric = self.cache.get((metric_type, name))
        if metric is None or metric.dimension_names != names:
            metric = self.add_metric_to_cache(name, unit, names, metric_type)
        request = (self.request_ids or {}).get(idx, "") if idx is not None else ""
        metric.add_or_update(float(value), [str(one.value) for one in all_of_them], request)

    def add_counter(
        self, name: str, value: float, idx: int | None = None, dimensions: Sequence[Dimension] | None = None
    ) -> None:
        self.add_metric(name, value, "count", idx, dimensions, MetricTypes.COUNTER)

    def add_time(
        self,
        name: str,
        value: float,
        idx: int | None = None,
        unit: str = "ms",
        dimensions: Sequence[Dimension] | None = None,
        metric_type: MetricTypes = MetricTypes.GAUGE,
    ) -> None:
        self.add_metric(name, value, _one_of(name, unit, _TIMES), idx, dimensions, metric_type)

    def add_size(
        self,
        name: str,
        value: float,
        idx: int | None = None,
        unit: str = "MB",
        dimensions: Sequence[Dimension] | None = None,
        metric_type: MetricTypes = MetricTypes.GAUGE,
    ) -> None:
        self.add_metric(name, value, _one_of(name, unit, _SIZES), idx, dimensions, metric_type)

    def add_percent(
        self,
        name: str,
        value: float,
        idx: int | None = None,
        dimensions: Sequence[Dimension] | None = None,
        metric_type: MetricTypes = MetricTypes.GAUGE,
    ) -> None:
        self.add_metric(name, value, "percent", idx, dimensions, metric_type)

    def add_error(
        self,
        name: str,
        value: float = 1,
        dimensions: Sequence[Dimension] | None = None,
        metric_type: MetricTypes = MetricTypes.COUNTER,
    ) -> None:
        """Count an error. A value that is no number counts as one."""
        count = value if isinstance(value, int | float) else 1
        self.add_metric(name, count, "unit", None, dimensions, metric_type)

    def add_metric_to_cache(
        self,
        metric_name: str,
        unit: str,
        dimension_names: Sequence[str] = (),
        metric_type: MetricTypes = MetricTypes.COUNTER,
    ) -> CachingMetric:
        """A new metric, in the place of one of the same name and type."""
        metric = CachingMetric(metric_name, LONG.get(unit, unit), dimension_names, metric_type)
        self.cache[(metric_type, metric_name)] = metric
        return metric

    def get_metric(self, metric_name: str, metric_type: MetricTypes = MetricTypes.COUNTER) -> CachingMetric:
        """Raises: KeyError where there is none."""
        found = self.cache.get((metric_type, metric_name))
        if found is None:
            raise KeyError(f"there is no {metric_type.value} called {metric_name!r}")
        return found

    def _defaults(self) -> list[Dimension]:
        return [Dimension("ModelName", self.model_name), Dimension("Level", "Model")]


def _one_of(name: str, unit: str, units: Sequence[str]) -> str:
    if unit not in units:
        raise ValueError(f"metric {name}: {unit!r} is not one of {', '.join(units)}")
    return unit
