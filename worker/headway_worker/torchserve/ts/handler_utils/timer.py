"""`ts.handler_utils.timer`: how long a handler's method took, as a metric."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any

import torch


def timed(function: Callable[..., Any]) -> Callable[..., Any]:
    """Record `ts_handler_<method>` in milliseconds where the model's YAML says `handler: {profile: true}`."""

    @functools.wraps(function)
    def measured(self: Any, *args: Any, **more: Any) -> Any:
        context = getattr(self, "context", None)
        config = getattr(context, "model_yaml_config", None) or {}
        handler = config.get("handler") if isinstance(config, dict) else None
        if not (isinstance(handler, dict) and handler.get("profile")):
            return function(self, *args, **more)
        start = time.perf_counter()
        result = function(self, *args, **more)
        if torch.cuda.is_initialized():  # what it started there is part of it
            torch.cuda.synchronize()
        name = f"ts_handler_{function.__name__}"
        context.metrics.add_time(name, (time.perf_counter() - start) * 1000, unit="ms")  # type: ignore[union-attr]
        return result

    return measured
