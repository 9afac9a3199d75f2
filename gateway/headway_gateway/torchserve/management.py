"""TorchServe's management over HTTP: its routes, each a few lines over `operations`.

    GET, POST                 /models
    GET, PUT, DELETE, OPTIONS /models/MODEL, /models/MODEL/VERSION (GET also .../all)
    PUT                       /models/MODEL/VERSION/set-default
    GET                       /v1/models/MODEL      KServe's "is it ready"
    GET                       /token                another key (only where keys are asked for at all)

Who may come here is checked before (but for /token, which has a key of its own), and what is refused is
written by the app.

Knows: routes, parameters. Must not know: how an operation is carried out.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any

import falcon.asgi

from headway.torchserve.keys import API, EXPIRING, Keys
from headway.torchserve.properties import Properties
from headway_gateway.inference import JSON, Answer
from headway_gateway.request import Request
from headway_gateway.torchserve.front import ANSWER
from headway_gateway.torchserve.operations import ALL, PAGE_MAX, Done, Operations
from headway_gateway.torchserve.parameters import Query, registering_by, registering_in
from headway_gateway.torchserve.refusal import Refusal, no_method, written

_BEARER = re.compile(r"Bearer\s+(\S+)")
Response = falcon.asgi.Response
Name = str | None
Describe = Callable[[str], Awaitable[bytes]]


class ManagementRoutes:
    """An escaped slash in a path is one: no name has any. `keys` is None where no keys are asked for.
    `describe_api`: the OpenAPI document of a model's management, as it is sent."""

    def __init__(
        self,
        operations: Operations,
        keys: Keys | None,
        properties: Properties,
        describe_api: Describe | None = None,
    ) -> None:
        self._operations = operations
        self._keys = keys
        self._properties = properties
        self._describe_api = describe_api

    def add_routes(self, app: falcon.asgi.App[Any, Any]) -> None:
        """A path that ends with a slash is the app's to make one without."""
        app.add_route("/models", self, suffix="models")
        app.add_route("/models/{model}", self, suffix="model")
        app.add_route("/models/{model}/{version}", self, suffix="model")
        app.add_route("/models/{model}/{version}/set-default", self, suffix="default")
        app.add_route("/v1/models/{model}", self, suffix="status")
        if self._keys:
            app.add_route("/token", self, suffix="token")

    # ---- all models ----

    async def on_get_models(self, req: Request, resp: Response) -> None:
        query = Query(req.query_string)
        limit, token = query.number("limit", PAGE_MAX), query.number("next_page_token", 0)
        _show(resp, await self._operations.list_models(limit, token))

    async def on_post_models(self, req: Request, resp: Response) -> None:
        self._require_model_api()
        if _media_type(req) == JSON:
            asked = registering_in(bytes(await req.body(self._properties.max_request_size)))
        else:
            asked = registering_by(Query(req.query_string))
        _tell(resp, await self._operations.register(asked.wish, asked.synchronous, asked.s3_sse_kms))

    async def on_options_models(self, req: Request, resp: Response) -> None:
        raise no_method()

    # ---- one model ----

    async def on_get_model(self, req: Request, resp: Response, model: str, version: Name = None) -> None:
        customized = Query(req.query_string).flag("customized")
        said = await self._operations.describe(model, version, customized)
        _show(resp, said)
        if customized and version != ALL:  # it comes from a worker, as predictions do: without a phrase
            req.scope[ANSWER] = Answer(200, JSON, b"", phrase="")

    async def on_put_model(self, req: Request, resp: Response, model: str, version: Name = None) -> None:
        query = Query(req.query_string)
        least, most = query.number("min_worker", 1), query.maybe_number("max_worker")
        version = version or query.text("model_version")
        _tell(resp, await self._operations.scale(model, version, least, most, query.flag("synchronous")))

    async def on_delete_model(self, req: Request, resp: Response, model: str, version: Name = None) -> None:
        self._require_model_api()
        _tell(resp, await self._operations.unregister(model, version))

    async def on_options_model(self, req: Request, resp: Response, model: str, version: Name = None) -> None:
        await self._operations.describe(model)  # it must be there
        if self._describe_api is None:
            raise no_method()
        resp.content_type, resp.data = JSON, await self._describe_api(model)

    async def on_put_default(self, req: Request, resp: Response, model: str, version: str) -> None:
        _tell(resp, await self._operations.set_default(model, version))

    async def on_get_default(self, req: Request, resp: Response, model: str, version: str) -> None:
        """TorchServe looks at the first part of such a path only."""
        await self.on_get_model(req, resp, model)

    async def on_options_default(self, req: Request, resp: Response, model: str, version: str) -> None:
        await self.on_options_model(req, resp, model)

    async def on_get_status(self, req: Request, resp: Response, model: str) -> None:
        name = model.partition(":")[0]
        _show(resp, {"name": name, "ready": await self._operations.has_workers(name)})

    async def on_options_status(self, req: Request, resp: Response, model: str) -> None:
        raise no_method()

    # ---- keys ----

    async def on_get_token(self, req: Request, resp: Response) -> None:
        """The new key is only in the key file."""
        assert self._keys, "the route is there only where keys are"
        given = _BEARER.fullmatch(req.get_header("Authorization") or "")
        kind = Query(req.query_string).text("type")
        if not given or kind not in EXPIRING or not self._keys.check(API, given[1]):
            raise _no_key()
        await asyncio.to_thread(self._keys.renew, kind)
        resp.content_type, resp.data = JSON, b"\n"

    async def on_options_token(self, req: Request, resp: Response) -> None:
        raise no_method()

    def _require_model_api(self) -> None:
        if not self._operations.is_model_api_on:
            raise no_method()


def _media_type(req: Request) -> str:
    return (req.content_type or "").partition(";")[0].strip().lower()


def _show(resp: Response, document: object) -> None:
    resp.content_type, resp.data = JSON, written(document)


def _tell(resp: Response, done: Done) -> None:
    resp.status = done.status
    _show(resp, {"status": done.text})


def _no_key() -> Refusal:
    text = "Token Authentication failed. Token either incorrect, expired, or not provided correctly"
    return Refusal(400, "InvalidKeyException", text)
