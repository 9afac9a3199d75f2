"""`ts.metrics.metric_cache_errors`: what handlers may catch."""

from __future__ import annotations


class GeneralMetricsCacheError(Exception):
    """Anything else."""


class MetricsCacheIOError(OSError):
    """A file cannot be read."""


class MetricsCacheKeyError(KeyError):
    """There is no such metric."""


class MetricsCacheTypeError(TypeError):
    """A name, unit or type is of another type."""


class MetricsCacheValueError(ValueError):
    """A value or unit that cannot be."""
