"""What handlers import from `ts.service`. Requests do not go through here."""

from __future__ import annotations

from typing import Any

PREDICTION_METRIC = "PredictionTime"


def emit_metrics(metrics: Any) -> None:
    """Nothing: metrics are kept where they are recorded (`ts.metrics.metrics_store`)."""
