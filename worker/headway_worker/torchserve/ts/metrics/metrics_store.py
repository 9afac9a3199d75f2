"""`ts.metrics.metrics_store`: `context.metrics`.

Knows: the calls that handlers make. Must not know: where the values go (`note` says).

The declared metrics are there from the start. Others are made at their first value, and shown if the server
is told to (`model_metrics_auto_detect`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from headway.torchserve.metrics import Declared, Record
from headway_worker.torchserve.ts.metrics.caching_metric import CachingMetric
from headway_worker.torchserve.ts.metrics.dimension import Dimension
from headway_worker.torchserve.ts.metrics.metric_cache_errors import (
    MetricsCacheKeyError,
    MetricsCacheTypeError,
    MetricsCacheValueError,
)
from headway_worker.torchserve.ts.metrics.metric_type_enum import MetricTypes

_TIMES, _SIZES = ("ms", "s"), ("B", "kB", "MB", "GB")
Dimensions = Sequence[Dimension] | None


class MetricsStore:
    """A model's metrics. While requests are served, all get the dimensions ModelName and Level (Model),
    unless they come with them; otherwise, and for errors, Level alone (Error)."""

    def __init__(
        self, model_name: str, note: Callable[[Record], None], declared: Iterable[Declared] = ()
    ) -> None:
        self.model_name = model_name
        self.request_ids: Mapping[int, str] | None = None
        self.cache: dict[MetricTypes, dict[str, CachingMetric]] = {}
        self.store: list[Any] = []  # what older handlers hand to `emit_metrics`
        self._note = note
        self._of_model = [Dimension("ModelName", model_name), Dimension("Level", "Model")]
        self._of_error = [Dimension("Level", "Error")]
        for one in declared:
            self.add_metric_to_cache(one.name, one.unit, list(one.dimensions), MetricTypes(one.type))

    def begin(self, request_ids: Mapping[int, str]) -> None:
        """Headway's own: these are the requests from here on; none between two batches."""
        self.request_ids = request_ids or None

    def set_request_ids(self, request_ids: Mapping[int, str] | None) -> None:
        self.request_ids = request_ids

    def add_metric(
        self,
        name: str,
        value: float,
        unit: str = "unit",
        idx: int | None = None,
        dimensions: Dimensions = None,
        metric_type: MetricTypes = MetricTypes.COUNTER,
    ) -> None:
        """Record a value of a metric, which is made at its first one."""
        request = self._request(idx)
        full = self._with_defaults(dimensions, is_error=request is None)
        self._metric(name, unit, full, metric_type).add_or_update(
            value, [d.value for d in full], request or ""
        )

    def add_counter(
        self, name: str, value: float, idx: int | None = None, dimensions: Dimensions = None
    ) -> None:
        self.add_metric(name, value, "count", idx, dimensions, MetricTypes.COUNTER)

    def add_time(
        self,
        name: str,
        value: float,
        idx: int | None = None,
        unit: str = "ms",
        dimensions: Dimensions = None,
        metric_type: MetricTypes = MetricTypes.GAUGE,
    ) -> None:
        self.add_metric(name, value, _one_of(name, unit, _TIMES), idx, dimensions, metric_type)

    def add_size(
        self,
        name: str,
        value: float,
        idx: int | None = None,
        unit: str = "MB",
        dimensions: Dimensions = None,
        metric_type: MetricTypes = MetricTypes.GAUGE,
    ) -> None:
        self.add_metric(name, value, _one_of(name, unit, _SIZES), idx, dimensions, metric_type)

    def add_percent(
        self,
        name: str,
        value: float,
        idx: int | None = None,
        dimensions: Dimensions = None,
        metric_type: MetricTypes = MetricTypes.GAUGE,
    ) -> None:
        self.add_metric(name, value, "percent", idx, dimensions, metric_type)

    def add_error(self, name: str, value: Any = 1, dimensions: Dimensions = None) -> None:
        """Count an error. A value that is no number counts as one."""
        count = value if isinstance(value, int | float) else 1
        full = self._with_defaults(dimensions, is_error=True)
        self._metric(name, "", full, MetricTypes.COUNTER).add_or_update(count, [d.value for d in full])

    def add_metric_to_cache(
        self,
        metric_name: str,
        unit: str,
        dimension_names: Sequence[str] = (),
        metric_type: MetricTypes = MetricTypes.COUNTER,
    ) -> CachingMetric:
        """A new metric, in the place of one of the same name and type. Raises: MetricsCacheTypeError."""
        _check_types(metric_name, unit, metric_type)
        metric = CachingMetric(metric_name, unit, dimension_names, metric_type, self._note)
        self.cache.setdefault(metric_type, {})[metric_name] = metric
        return metric

    def get_metric(self, metric_name: str, metric_type: MetricTypes = MetricTypes.COUNTER) -> CachingMetric:
        """Raises: MetricsCacheKeyError where there is none."""
        found = self.cache.get(metric_type, {}).get(metric_name)
        if found is None:
            raise MetricsCacheKeyError(f"there is no {metric_type.value} called {metric_name!r}")
        return found

    def _metric(
        self, name: str, unit: str, dimensions: list[Dimension], metric_type: MetricTypes
    ) -> CachingMetric:
        found = self.cache.get(metric_type, {}).get(name)
        return found or self.add_metric_to_cache(name, unit, [d.name for d in dimensions], metric_type)

    def _request(self, idx: int | None) -> str | None:
        """Whom a value is recorded for: one request, or all; None while there are none."""
        if self.request_ids is None:
            return None
        found = self.request_ids.get(idx) if idx is not None else None
        return found if found is not None else ",".join(self.request_ids.values())

    def _with_defaults(self, dimensions: Dimensions, is_error: bool) -> list[Dimension]:
        defaults = self._of_error if is_error else self._of_model
        if not dimensions:
            return defaults
        names = {one.name for one in dimensions}
        return [*dimensions, *(one for one in defaults if one.name not in names)]


def _one_of(name: str, unit: str, units: Sequence[str]) -> str:
    if unit not in units:
        raise MetricsCacheValueError(f"metric {name}: {unit!r} is not one of {', '.join(units)}")
    return unit


def _check_types(metric_name: Any, unit: Any, metric_type: Any) -> None:
    if not isinstance(metric_name, str) or not isinstance(unit, str):
        raise MetricsCacheTypeError(f"a metric's name and unit are text, not {metric_name!r} and {unit!r}")
    if not isinstance(metric_type, MetricTypes):
        raise MetricsCacheTypeError(f"metric {metric_name}: {metric_type!r} is none of MetricTypes")
