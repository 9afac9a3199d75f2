"""The client's life: opened when a server starts, which is after the fork, and closed when it ends.

Knows: Falcon's events of a server's life. Must not know: routes, what the client is for.
"""

from __future__ import annotations

from typing import Any

from headway.settling import settle_to_serve


class Lifespan:
    """Falcon middleware. A client that cannot open keeps the server from starting."""

    def __init__(self, client: Any) -> None:
        self._client = client

    async def process_startup(self, scope: dict[str, Any], event: dict[str, Any]) -> None:
        await self._client.open()
        settle_to_serve()

    async def process_shutdown(self, scope: dict[str, Any], event: dict[str, Any]) -> None:
        await self._client.close()
