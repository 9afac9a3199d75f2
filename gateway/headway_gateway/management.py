"""The management address: `GET /state`, and orders under `/admin`.

Thin: a body becomes the arguments of a command, the broker's answer the body of the response. Every route
needs the management token (`Authorization: Bearer TOKEN`), which the gateway does not know: the broker checks
it.

Knows: routes, PROTOCOL.md's verbs. Must not know: what an order means, how models are fetched (that is
`fetch`).
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import falcon.asgi

from headway.errors import InternalError, InvalidInput, Unauthorized, UnknownModel
from headway.messages import NAME_CHARS_MAX
from headway.settings import GatewaySettings
from headway_gateway import fetch
from headway_gateway.inference import JSON
from headway_gateway.models import ask_broker
from headway_gateway.orders import WAITING, order_of
from headway_gateway.origins import check_url, wanted
from headway_gateway.request import Request

BODY_BYTES_MAX = 1 << 16
ANSWER_S = 20.0  # an order that does not wait; a rescan reads every model.toml
WAIT_MS = 60_000
MARGIN_S = 5.0  # the broker says that an order was not carried out in time; we only if it does not
FETCHES_MAX = 2  # at once


class TokenFirst:
    """Falcon middleware: without a token nobody learns even which routes there are."""

    async def process_request(self, req: Request, resp: falcon.asgi.Response) -> None:
        req.context.token = _token(req.get_header("Authorization"))


def _token(said: str | None) -> str:
    scheme, _, token = (said or "").partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not token:
        raise Unauthorized("this address needs the management token: Authorization: Bearer TOKEN")
    if len(token) > NAME_CHARS_MAX or not token.isascii():
        raise Unauthorized("that is no management token")
    return token


class Management:
    """The routes."""

    def __init__(self, client: Any, settings: GatewaySettings) -> None:
        self._client = client
        self._settings = settings
        self._fetches = asyncio.Semaphore(FETCHES_MAX)

    def add_routes(self, app: falcon.asgi.App[Any, Any]) -> None:
        model, version = "/admin/models/{model}", "/admin/models/{model}/versions/{version}"
        app.add_route("/state", self, suffix="state")
        app.add_route("/admin/models", self, suffix="models")
        app.add_route(model, self, suffix="model")
        app.add_route(version, self, suffix="model")
        for verb in ("scale", "default", "split"):
            app.add_route(f"{model}/{verb}", self, suffix=verb)
        app.add_route("/admin/rescan", self, suffix="rescan")
        app.add_route("/admin/workers/{worker}/drain", self, suffix="drain")
        app.add_route("/admin/hosts/{host}", self, suffix="host")

    # ---- questions ----

    async def on_get_state(self, req: Request, resp: falcon.asgi.Response) -> None:
        await self._ask(req, resp, "state", {})

    async def on_get_models(self, req: Request, resp: falcon.asgi.Response) -> None:
        await self._ask(req, resp, "describe", {})

    async def on_get_model(self, req: Request, resp: falcon.asgi.Response, **names: str) -> None:
        await self._ask(req, resp, "describe", _named(names))

    # ---- orders ----

    async def on_post_models(self, req: Request, resp: falcon.asgi.Response) -> None:
        order = await _order(req, (), ("path", "url", "name", "version", *WAITING))
        if ("path" in order) == ("url" in order):
            raise InvalidInput("name one of path and url")
        if "path" in order and ("name" in order or "version" in order):
            raise InvalidInput("name and version go with url; a path has them")
        if "url" in order:
            order["path"] = await self._fetched(req, order)
        await self._command(req, resp, "register", order)

    async def on_delete_model(self, req: Request, resp: falcon.asgi.Response, **names: str) -> None:
        await _order(req)
        await self._command(req, resp, "unregister", _named(names))

    async def on_post_scale(self, req: Request, resp: falcon.asgi.Response, model: str) -> None:
        order = await _order(req, ("min",), ("max", "version", *WAITING))
        if order.get("max", order["min"]) < order["min"]:
            raise InvalidInput(f"max: {order['max']} is below min, {order['min']}")
        await self._command(req, resp, "scale", _named({"model": model}) | order)

    async def on_post_default(self, req: Request, resp: falcon.asgi.Response, model: str) -> None:
        order = await _order(req, ("version",), WAITING)
        await self._command(req, resp, "default", _named({"model": model}) | order)

    async def on_post_split(self, req: Request, resp: falcon.asgi.Response, model: str) -> None:
        order = await _order(req, ("weights",), WAITING)
        await self._command(req, resp, "split", _named({"model": model}) | order)

    async def on_post_rescan(self, req: Request, resp: falcon.asgi.Response) -> None:
        await _order(req)
        await self._command(req, resp, "rescan", {})

    async def on_post_drain(self, req: Request, resp: falcon.asgi.Response, worker: str) -> None:
        order = await _order(req, (), WAITING)
        await self._command(req, resp, "drain", _named({"worker": worker}) | order)

    async def on_put_host(self, req: Request, resp: falcon.asgi.Response, host: str) -> None:
        order = await _order(req, ("workers",))
        count = {} if order["workers"] is None else {"count": order["workers"]}
        await self._command(req, resp, "workers", _named({"host": host}) | count)

    # ---- the broker ----

    async def _ask(
        self, req: Request, resp: falcon.asgi.Response, verb: str, arguments: dict[str, Any]
    ) -> None:
        _show(resp, await ask_broker(self._client.command(verb, arguments, req.context.token)))

    async def _command(
        self, req: Request, resp: falcon.asgi.Response, verb: str, order: dict[str, Any]
    ) -> None:
        """A client that leaves stops waiting; what it ordered is ordered."""
        arguments = {k: v for k, v in order.items() if k not in ("wait", "url", "name")}
        limit_s = ANSWER_S
        if order.get("wait"):
            arguments["wait"] = 1
            limit_s = order.get("timeout_ms", WAIT_MS) / 1000 + MARGIN_S
        command: Awaitable[dict[str, Any]] = self._client.command(
            verb, arguments, req.context.token, timeout_s=limit_s
        )
        _show(resp, await req.while_connected(command))

    # ---- models from elsewhere ----

    async def _fetched(self, req: Request, order: dict[str, Any]) -> str:
        """The path in the model store of what was at the URL. Nothing is fetched for who has no token."""
        limits = fetch.limits_of(self._settings)
        check_url(order["url"], limits.prefixes)
        target = wanted(order["url"], order.get("name", ""), order.pop("version", ""))
        store = await self._store(req.context.token)
        stop = threading.Event()
        try:
            async with self._fetches:
                work = asyncio.to_thread(fetch.into_store, order["url"], target, store, limits, stop)
                return await req.while_connected(work)
        finally:
            stop.set()  # the thread of a client that left gives up, and tidies up

    async def _store(self, token: str) -> Path:
        state = await ask_broker(self._client.command("state", {}, token))
        store = state.get("broker", {}).get("model_store")
        if not isinstance(store, str) or not Path(store).is_dir():
            raise InternalError(f"the broker's model store is not on this host: {store!r}")
        return Path(store)


async def _order(req: Request, needed: tuple[str, ...] = (), allowed: tuple[str, ...] = ()) -> dict[str, Any]:
    return order_of(await req.body(BODY_BYTES_MAX), needed, allowed)


def _named(names: dict[str, str]) -> dict[str, Any]:
    """Names from a path. Raises: UnknownModel for those that the wire would not carry."""
    for name in names.values():
        if not name or len(name) > NAME_CHARS_MAX or not name.isprintable():
            raise UnknownModel(f"nothing is named {name[:40]!r}")
    return dict(names)


def _show(resp: falcon.asgi.Response, answer: dict[str, Any]) -> None:
    resp.content_type = JSON
    resp.data = (json.dumps(answer, default=str) + "\n").encode()
