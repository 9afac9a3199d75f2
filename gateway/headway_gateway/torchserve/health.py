"""What `GET /ping`, gRPC's `Ping` and `GET /ready` say.

Knows: the broker's answer `models`, the texts. Must not know: HTTP, gRPC, when TorchServe's ping is
unhealthy (that is `serving`).
"""

from __future__ import annotations

import time
from typing import Any

from headway.errors import HeadwayError
from headway.torchserve.properties import Properties
from headway_gateway.models import ask_broker, waiting
from headway_gateway.torchserve.asking import Registry
from headway_gateway.torchserve.refusal import written
from headway_gateway.torchserve.serving import Serving


class Health:
    """Of one process: see `serving`."""

    def __init__(self, client: Any, registry: Registry, properties: Properties) -> None:
        self._client = client
        self._serving = Serving(registry)
        self._truthful = properties.headway_truthful_ping
        self._not_started = properties.not_started

    async def ping(self) -> tuple[bool, bytes]:
        """Whether it is healthy, and the JSON that says so."""
        is_healthy = await self._is_healthy()
        return is_healthy, written({"status": "Healthy" if is_healthy else "Unhealthy"})

    async def missing(self) -> list[str]:
        """Models that should serve and do not, and those that the start could not even register. Raises:
        BrokerUnreachable."""
        return self._missing(await ask_broker(self._client.models()))

    async def _is_healthy(self) -> bool:
        try:
            models = await ask_broker(self._client.models())
        except HeadwayError:
            return False
        is_healthy = self._serving.is_healthy(models, time.monotonic())
        return is_healthy and not (self._truthful and self._missing(models))

    def _missing(self, models: list[dict[str, Any]]) -> list[str]:
        there = {model["name"] for model in models}
        return waiting(models) + [
            f"{name}: {why}" for name, why in self._not_started.items() if name not in there
        ]
