"""What `Ping` answers: the text that `GET /ping` has too.

Knows: the text. Must not know: gRPC, HTTP, what a healthy server is (that is `serving`).
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
    """Called, says it as JSON."""

    def __init__(self, client: Any, registry: Registry, properties: Properties) -> None:
        self._client = client
        self._serving = Serving(registry)
        self._truthful = properties.headway_truthful_ping

    async def __call__(self) -> str:
        word = "Healthy" if await self._is_healthy() else "Unhealthy"
        return written({"status": word}).decode().removesuffix("\n")

    async def _is_healthy(self) -> bool:
        try:
            models = await ask_broker(self._client.models())
        except HeadwayError:
            return False
        is_healthy = self._serving.is_healthy(models, time.monotonic())
        return is_healthy and not (self._truthful and waiting(models))
