"""What `Ping` answers: the text that `GET /ping` has too.

Knows: what a healthy server is to TorchServe. Must not know: gRPC, HTTP.
"""

from __future__ import annotations

from typing import Any

from headway.errors import HeadwayError
from headway.torchserve.properties import Properties
from headway_gateway.models import ask_broker, waiting
from headway_gateway.torchserve.refusal import written


class Health:
    """Called, says it as JSON."""

    def __init__(self, client: Any, properties: Properties) -> None:
        self._client = client
        self._truthful = properties.headway_truthful_ping

    async def __call__(self) -> str:
        word = "Healthy" if await self._is_healthy() else "Unhealthy"
        return written({"status": word}).decode().removesuffix("\n")

    async def _is_healthy(self) -> bool:
        try:
            models = await ask_broker(self._client.models())
        except HeadwayError:
            return False
        return not (self._truthful and waiting(models))
