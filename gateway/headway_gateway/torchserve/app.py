"""The ASGI apps of the TorchServe door: the parts of its HTTP interface put together.

Knows: which parts there are, and which address each answers on. Must not know: what they do.

Where addresses are equal there is one listener, which answers for all of them: by the path, so that each
route asks for its own key. (TorchServe asks for both there, and a request can only show one.)
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import falcon.asgi

from headway.settings import TOKEN_FILE, GatewaySettings, find_token
from headway.torchserve.keys import Keys
from headway.torchserve.properties import Properties, load_properties
from headway_gateway.doors import INFERENCE, MANAGEMENT, METRICS, Doors, Place
from headway_gateway.lane import Lane, Routes
from headway_gateway.lifespan import Lifespan
from headway_gateway.management import Management
from headway_gateway.metrics import HttpMetrics
from headway_gateway.request import Request
from headway_gateway.torchserve.access import Accesses
from headway_gateway.torchserve.collector import Collector
from headway_gateway.torchserve.door_metrics import FLUSH_S, DoorMetrics
from headway_gateway.torchserve.front import Front
from headway_gateway.torchserve.gate import Gate, add_error_handlers
from headway_gateway.torchserve.heads import common_of
from headway_gateway.torchserve.inference import InferenceRoutes
from headway_gateway.torchserve.management import ManagementRoutes
from headway_gateway.torchserve.metrics import MetricsRoutes
from headway_gateway.torchserve.openapi import ApiRoutes, management_of_model
from headway_gateway.torchserve.operations import Operations
from headway_gateway.torchserve.paths import is_inference, plain_route
from headway_gateway.torchserve.predicting import Predicting
from headway_gateway.torchserve.registry import Registry
from headway_gateway.torchserve.workflows.operations import Workflows
from headway_gateway.torchserve.workflows.routes import WorkflowManagement, WorkflowPredictions

METHODS = (b"POST", b"PUT")  # that may take the short way
FalconApp = falcon.asgi.App[Any, Any]


def create_doors(client: Any, settings: GatewaySettings, places: Mapping[str, Place]) -> Doors:
    """All apps over `client`, an `AsyncClient` that is not open yet. Raises: SettingsError."""
    properties = load_properties(Path(settings.torchserve))
    parts = Parts(client, settings, properties)
    common = common_of(properties)
    is_shared = MANAGEMENT not in places
    inference, management = parts.inference(), parts.management(is_shared)
    first = Shared(inference, management) if is_shared else inference
    apps = {
        INFERENCE: Front(first, common, parts.lane),
        MANAGEMENT: Front(management, common),
        METRICS: Front(parts.metrics(), common),
    }
    return Doors(apps, places)


class Parts:
    """What the apps share."""

    def __init__(self, client: Any, settings: GatewaySettings, properties: Properties) -> None:
        self._client = client
        self._settings = settings
        self._properties = properties
        self._http = HttpMetrics(FLUSH_S)
        self._metrics = DoorMetrics(properties)
        self._registry = Registry(client)
        self._keys = keys_of(properties)
        self._predicting = Predicting(client, properties, self._registry, self._keys, self._metrics.count)
        self._operations = self._orders()
        self._workflows = Workflows(client, self._operations, self._registry, properties)
        routes = Routes(METHODS, plain_route)
        bytes_max, access = properties.max_request_size, self._metrics.access
        self.lane = Lane(client, bytes_max, (self._predicting,), self._http, routes, access)

    def inference(self) -> FalconApp:
        collector = Collector(self._client, self._metrics, self._properties, self._settings.run_dir)
        app = self._app(INFERENCE, Lifespan(self._client), collector)
        ApiRoutes(INFERENCE).add_routes(app)
        WorkflowPredictions(self._workflows, self._properties).add_routes(app)
        InferenceRoutes(self._client, self._properties, self._registry, self._predicting).add_routes(app)
        return app

    def management(self, is_shared: bool) -> FalconApp:
        """`is_shared`: it answers for inference, too, what the interface is."""
        app = self._app(MANAGEMENT)
        ApiRoutes(*((INFERENCE, MANAGEMENT) if is_shared else (MANAGEMENT,))).add_routes(app)
        routes = ManagementRoutes(self._operations, self._keys, self._properties, management_of_model)
        routes.add_routes(app)
        WorkflowManagement(self._workflows, self._properties).add_routes(app)
        Management(self._client, self._settings).add_routes(app)
        self._add_metrics(app)
        return app

    def metrics(self) -> FalconApp:
        app = self._app(METRICS)
        ApiRoutes(METRICS).add_routes(app)
        self._add_metrics(app)
        return app

    def _orders(self) -> Operations:
        token = find_token(self._settings, self._settings.state_dir / TOKEN_FILE)
        return Operations(self._client, self._registry, self._properties, token)

    def _add_metrics(self, app: FalconApp) -> None:
        if self._properties.enable_metrics_api:
            MetricsRoutes(self._client, self._http, self._metrics, self._properties).add_routes(app)

    def _app(self, door: str, *middleware: Any) -> FalconApp:
        gate = Gate(self._keys, door, self._properties.max_request_size)
        accesses = Accesses(self._metrics.access)
        around = [*middleware, self._http, accesses, gate]
        app: FalconApp = falcon.asgi.App(request_type=Request, middleware=around)
        app.req_options.strip_url_path_trailing_slash = True
        app.resp_options.default_media_type = None  # type: ignore[assignment]
        add_error_handlers(app)
        return app


class Shared:
    """One listener's app: inference, and management with the metrics."""

    def __init__(self, inference: Any, management: Any) -> None:
        self._inference = inference
        self._management = management

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """A server's start and end is inference's to hear."""
        to_inference = scope["type"] != "http" or is_inference(scope["path"])
        app = self._inference if to_inference else self._management
        await app(scope, receive, send)


def keys_of(properties: Properties) -> Keys | None:
    """None: nobody is asked for one."""
    if properties.disable_token_authorization:
        return None
    return Keys(Path(properties.key_file), properties.token_expiration_min)
