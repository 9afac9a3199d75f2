"""What handlers import from `ts.service`. Requests do not go through here."""

from __future__ import annotations

from typing import Any

PREDICTION_METRIC = "PredictionTime"


def emit_metrics(metrics: Any) -> None:
    """Nothing: what is recorded goes its way by itself (`ts.metrics.metrics_store`)."""
