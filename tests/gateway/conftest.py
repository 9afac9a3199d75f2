"""The gateway's app over a stub, called in this process without a socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from headway.body import Body
from headway.settings import GatewaySettings
from headway.stub import AsyncStubClient
from headway_gateway.app import create_doors


class Site:
    """An app and a way to call it. `client` is the stub behind it."""

    def __init__(self, client: Any, settings: GatewaySettings) -> None:
        self.client = client
        self.doors = create_doors(client, settings, {})
        self.app = self.doors.apps["http"]

    def call(self, method: str, path: str, **request: Any) -> httpx.Response:
        return asyncio.run(self._call(method, path, request))

    def get(self, path: str, **request: Any) -> httpx.Response:
        return self.call("GET", path, **request)

    def post(self, path: str, **request: Any) -> httpx.Response:
        return self.call("POST", path, **request)

    def infer(self, model: str, inputs: list[dict[str, Any]], **more: Any) -> httpx.Response:
        body = json.dumps({"inputs": inputs, **more}).encode()
        return self.post(f"/v2/models/{model}/infer", content=body)

    def manage(self, method: str, path: str, token: str = "t", **request: Any) -> httpx.Response:
        """On the management address."""
        headers = {"Authorization": f"Bearer {token}", **request.pop("headers", {})}
        request["headers"] = {name: value for name, value in headers.items() if value}
        return asyncio.run(self._call(method, path, request, "management"))

    def metrics(self, path: str = "/metrics") -> httpx.Response:
        """On the address for Prometheus."""
        return asyncio.run(self._call("GET", path, {}, "metrics"))

    async def _call(
        self, method: str, path: str, request: dict[str, Any], door: str = "http"
    ) -> httpx.Response:
        transport = httpx.ASGITransport(self.doors.apps[door])
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
            return await http.request(method, path, **request)


def raising(error: Exception) -> Callable[[Any], Any]:
    """A model that fails."""

    def model(_: Any) -> Any:
        raise error

    return model


MODELS: dict[str, Callable[[Any], Any]] = {
    "double": lambda inputs: {name: array * 2 for name, array in inputs.items()},
    "same": lambda inputs: dict(inputs),
    "two": lambda inputs: {"half": inputs["x"].astype(np.float16), "full": inputs["x"]},
    "echo": lambda body: Body(body.data, body.content_type),
    "parts": lambda body: Body(
        json.dumps({n: [p.content_type, p.text()] for n, p in body.parts.items()}).encode(),
        "application/json",
    ),
}


@pytest.fixture
def settings(tmp_path: Path) -> GatewaySettings:
    return GatewaySettings(run_dir=tmp_path, body_bytes_max=1000)


@pytest.fixture
def site(settings: GatewaySettings) -> Site:
    return Site(AsyncStubClient(MODELS), settings)


@pytest.fixture
def failing(settings: GatewaySettings) -> Callable[[Exception], Site]:
    """An app whose model `bad` raises the given error."""
    return lambda error: Site(AsyncStubClient({"bad": raising(error)}), settings)


@pytest.fixture
def over(settings: GatewaySettings) -> Callable[[Any], Site]:
    """An app over the given client."""
    return lambda client: Site(client, settings)
