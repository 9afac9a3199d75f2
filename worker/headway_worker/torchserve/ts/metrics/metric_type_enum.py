"""`ts.metrics.metric_type_enum`."""

import enum


class MetricTypes(enum.Enum):
    """What becomes of a metric's values: added up, the last one, or counted by size."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"

    __hash__ = object.__hash__  # PERF: each value of a metric looks it up, and an enum's own is Python
