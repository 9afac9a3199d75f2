"""The ASGI app: the dialects, the errors and the counters put together, and the client's life.

Knows: which parts there are. Must not know: gunicorn, processes, the command line.
"""

from __future__ import annotations

from typing import Any

import falcon.asgi

from headway.aio import AsyncClient
from headway.settings import GatewaySettings
from headway_gateway.errors import add_error_handlers
from headway_gateway.lane import Lane
from headway_gateway.metrics import HttpMetrics, Metrics
from headway_gateway.models import Models
from headway_gateway.oip import OpenInference
from headway_gateway.predictions import Predictions
from headway_gateway.request import Request


class App(falcon.asgi.App[Any, Any]):
    """Falcon's app, with the short way that a server may offer beside it."""

    lane: Lane


class _Lifespan:
    """Opens the client when the server starts, which is after the fork, and closes it when it ends.
    A client that cannot open keeps the server from starting."""

    def __init__(self, client: Any) -> None:
        self._client = client

    async def process_startup(self, scope: dict[str, Any], event: dict[str, Any]) -> None:
        await self._client.open()

    async def process_shutdown(self, scope: dict[str, Any], event: dict[str, Any]) -> None:
        await self._client.close()


def app_of(settings: GatewaySettings) -> App:
    """The gateway as a process serves it, over a client of its own."""
    client = AsyncClient(
        settings.callers_address, shm_bytes=settings.shm_bytes, shm_full=settings.shm_full, settings=settings
    )
    return create_app(client, settings)


def create_app(client: Any, settings: GatewaySettings) -> App:
    """The gateway over `client`, an `AsyncClient` that is not open yet, or a stub."""
    http = HttpMetrics()
    middleware: list[Any] = [_Lifespan(client), http]
    app = App(request_type=Request, middleware=middleware)
    add_error_handlers(app)
    predictions, oip = Predictions(client, settings), OpenInference(client, settings)
    predictions.add_routes(app)
    oip.add_routes(app)
    Models(client).add_routes(app)
    Metrics(client, http).add_routes(app)
    app.lane = Lane(client, settings.body_bytes_max, (oip, predictions), http)
    return app
