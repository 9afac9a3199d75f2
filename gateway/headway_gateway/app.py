"""The ASGI apps: the dialects, the errors and the counters put together, and the client's life.

Knows: which parts there are. Must not know: gunicorn, processes, the command line.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import Any

import falcon.asgi

from headway.aio import AsyncClient
from headway.errors import SettingsError
from headway.settings import GatewaySettings
from headway_gateway.doors import ADDRESSES, INFERENCE, MANAGEMENT, METRICS, Doors, Place
from headway_gateway.errors import add_error_handlers
from headway_gateway.lane import Lane
from headway_gateway.lifespan import Lifespan
from headway_gateway.management import Management, TokenFirst
from headway_gateway.metrics import Counting, HttpMetrics, Metrics
from headway_gateway.models import Models
from headway_gateway.oip import OpenInference
from headway_gateway.predictions import Predictions
from headway_gateway.request import Request
from headway_gateway.torchserve import app as torchserve


class App(falcon.asgi.App[Any, Any]):
    """Falcon's app, with the short way that a server may offer beside it."""

    lane: Lane


def doors_of(settings: GatewaySettings, places: Mapping[str, Place] | None = None) -> Doors:
    """The gateway as a process serves it, over a client of its own. `places`: where it listens, if that is
    known better than by the settings."""
    client = AsyncClient(
        settings.callers_address, shm_bytes=settings.shm_bytes, shm_full=settings.shm_full, settings=settings
    )
    places = places_of(settings) if places is None else places
    if settings.torchserve:
        return torchserve.create_doors(client, settings, places)
    return create_doors(client, settings, places)


def create_doors(client: Any, settings: GatewaySettings, places: Mapping[str, Place]) -> Doors:
    """All apps over `client`, an `AsyncClient` that is not open yet, or a stub."""
    http = HttpMetrics()
    apps = {
        INFERENCE: create_app(client, settings, http),
        MANAGEMENT: create_management_app(client, settings, http),
        METRICS: create_metrics_app(client, http),
    }
    return Doors(apps, places)


def create_app(client: Any, settings: GatewaySettings, http: HttpMetrics | None = None) -> App:
    """What answers on the inference address."""
    http = http or HttpMetrics()
    middleware: list[Any] = [Lifespan(client), http]
    app = App(request_type=Request, middleware=middleware)
    add_error_handlers(app)
    predictions, oip = Predictions(client, settings), OpenInference(client, settings)
    predictions.add_routes(app)
    oip.add_routes(app)
    Models(client).add_routes(app)
    app.lane = Lane(client, settings.body_bytes_max, (oip, predictions), http)
    return app


def create_management_app(
    client: Any, settings: GatewaySettings, http: HttpMetrics
) -> falcon.asgi.App[Any, Any]:
    """What answers on the management address."""
    middleware: list[Any] = [Counting(http, MANAGEMENT), TokenFirst()]
    app = falcon.asgi.App(request_type=Request, middleware=middleware)
    add_error_handlers(app, MANAGEMENT)
    Management(client, settings).add_routes(app)
    return app


def create_metrics_app(client: Any, http: HttpMetrics) -> falcon.asgi.App[Any, Any]:
    """What answers on the address for Prometheus."""
    app = falcon.asgi.App(request_type=Request)
    add_error_handlers(app)
    Metrics(client, http).add_routes(app)
    return app


def places_of(settings: GatewaySettings) -> dict[str, Place]:
    """Where the settings say that it listens. Raises: SettingsError naming the setting."""
    said = {name: getattr(settings, name) for name in ADDRESSES}
    return {name: _place(name, address) for name, address in said.items() if address}


def _place(name: str, address: str) -> Place:
    host, _, port = address.rpartition(":")
    try:
        if not port.isdecimal() or int(port) > 65535:
            raise OSError("no port")
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise SettingsError(f"{name}: {address!r} is not HOST:PORT: {error}") from None
    return Place(str(found[0][4][0]), int(port))
