"""Whether this server serves: TorchServe's `/ping`, and a readiness that means it.

TorchServe's ping is unhealthy only when a model's default version has had too few workers for longer than
its recovery may take; one that never got any does not count. It has been told so by its workers; a gateway
process finds out when it is asked, so what counts is what it has seen itself.

Knows: the fields of the broker's answer `models`. Must not know: HTTP.
"""

from __future__ import annotations

from typing import Any

from headway_gateway.torchserve.asking import Registry

RECOVERY_S = 300.0  # of a model that says nothing of its own
Model = dict[str, Any]


class Serving:
    """What was seen of models that served once."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._lost: dict[tuple[str, str], float] = {}  # since when
        self._served: set[tuple[str, str]] = set()

    def is_healthy(self, models: list[Model], now: float) -> bool:
        """As TorchServe's ping says it. `models`: what the broker knows."""
        self._look(models, now)
        return all(now - since <= self._recovery_s(key) for key, since in self._lost.items())

    def _look(self, models: list[Model], now: float) -> None:
        defaults = {(m["name"], m["version"]): m for m in models if m["default"] and m["wanted"]}
        ready = {key for key, model in defaults.items() if model["ready"] >= model["wanted"]}
        self._served = (self._served | ready) & defaults.keys()
        lost = self._served - ready
        self._lost = {key: self._lost.get(key, now) for key in lost}

    def _recovery_s(self, key: tuple[str, str]) -> float:
        registration = self._registry.of(*key)
        return float(registration.retry_timeout_s) if registration else RECOVERY_S
