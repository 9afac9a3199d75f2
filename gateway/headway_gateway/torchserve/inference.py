"""The inference interface: `/ping`, `/predictions`, `/explanations`, KServe's and SageMaker's routes.

Any method will do, as in TorchServe; OPTIONS asks for a description.

Knows: routes, how a reply in pieces is passed on. Must not know: what is asked of the broker (`predicting`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import falcon.asgi

from headway.errors import Cancelled, HeadwayError
from headway.messages import Reply
from headway.pieces import MORE
from headway.torchserve.properties import Properties
from headway_gateway.inference import JSON, Answer, Question, Target
from headway_gateway.request import Request
from headway_gateway.torchserve import oip, openapi
from headway_gateway.torchserve.forms import body_or_parts, boundary_of, with_fields
from headway_gateway.torchserve.front import ANSWER, BrokenOff
from headway_gateway.torchserve.heads import SILENT
from headway_gateway.torchserve.health import Health
from headway_gateway.torchserve.paths import API, INVOCATIONS, OTHER, PING, PREDICT, READY, Route, route_of
from headway_gateway.torchserve.predicting import Predicting
from headway_gateway.torchserve.refusal import bad_request, no_model, no_resource, no_version, written
from headway_gateway.torchserve.tokens import INFERENCE, is_allowed

MODEL_NAME = "model_name"
Pieces = AsyncGenerator[Reply, None]


class InferenceRoutes:
    """`registry` is a `registry.Registry`."""

    def __init__(self, client: Any, properties: Properties, registry: Any, predicting: Predicting) -> None:
        self._client = client
        self._properties = properties
        self._registry = registry
        self._predicting = predicting
        self._health = Health(client, registry, properties)
        self._kinds: dict[str, Callable[[Request, Any, Route], Awaitable[None]]] = {
            PING: self._ping,
            READY: self._ready,
            PREDICT: self._predict,
            INVOCATIONS: self._invoke,
        }

    def add_routes(self, app: falcon.asgi.App[Any, Any]) -> None:
        """After those of all others: it takes what they leave."""
        app.add_sink(self.on_any, r"/")

    async def on_any(self, req: Request, resp: Any, **nothing: Any) -> None:
        route = route_of(req.path)
        if route.kind in (OTHER, API):
            self._protocol(req, resp)
            return
        await self._kinds[route.kind](req, resp, route)

    def _protocol(self, req: Request, resp: Any) -> None:
        """The Open Inference Protocol's, if it is enabled. Raises: Refusal."""
        found = oip.answer_to_path(req.path) if self._properties.ts_open_inference_protocol else None
        if found is None:
            raise no_resource()
        resp.status, document = found
        resp.content_type, resp.data = JSON, written(document)

    async def _ping(self, req: Request, resp: Any, route: Route) -> None:
        is_healthy, resp.data = await self._health.ping()
        resp.status = 200 if is_healthy else 500
        resp.content_type = JSON

    async def _ready(self, req: Request, resp: Any, route: Route) -> None:
        """Open to probes; which models there are, it tells only those who may know."""
        missing = await self._health.missing()
        told: dict[str, Any] = {"ready": not missing}
        if missing and is_allowed(self._predicting.keys, INFERENCE, req.get_header("Authorization")):
            told["not_ready"] = missing
        resp.status = 503 if missing else 200
        resp.content_type = JSON
        resp.data = written(told)

    async def _invoke(self, req: Request, resp: Any, route: Route) -> None:
        """SageMaker's: the model is an input, or there is only one."""
        body = with_fields(req.query_string, body_or_parts(*await self._body(req)))
        said = (body.parts or {}).get(MODEL_NAME)
        model = bytes(said.data).decode("utf-8", "replace") if said else await self._only_model()
        await self._asked(req, resp, route._replace(target=Target(model, "")), body)

    async def _only_model(self) -> str:
        registered = await self._registry.models()
        at_startup = [m for m, versions in registered.items() if any(v.at_startup for v in versions.values())]
        if len(at_startup) != 1:
            raise bad_request(f"Parameter {MODEL_NAME} is required.")
        return str(at_startup[0])

    async def _predict(self, req: Request, resp: Any, route: Route) -> None:
        if req.method == "OPTIONS":
            await self._describe(resp, route.target)
            return
        body = body_or_parts(*await self._body(req))
        if route.takes_query:
            body = with_fields(req.query_string, body)
        await self._asked(req, resp, route, body)

    async def _describe(self, resp: Any, target: Target) -> None:
        if await self._registry.find(*target) is None:
            known = target.version and await self._registry.find(target.model)
            raise no_version(*target) if known else no_model(target.model)
        resp.content_type = JSON
        resp.data = written(openapi.of_model(target.model))

    async def _body(self, req: Request) -> tuple[Any, str]:
        """And its type. A form is not received into shared memory, as its parts have to be told apart."""
        said = req.get_header("Content-Type") or ""
        parted = boundary_of(said) or route_of(req.path).takes_query
        lender = None if parted else self._client.lender
        return await req.body(self._properties.max_request_size, lender, unpacks=False), said

    async def _asked(self, req: Request, resp: Any, route: Route, body: Any) -> None:
        if req.method == "OPTIONS":
            await self._describe(resp, route.target)
            return
        headers = _with_length(req.spelled, len(body.data))
        question = None
        try:
            question = self._predicting.question(route, body, headers, req.received)
            await self._answer(req, resp, question)
        except HeadwayError as error:
            refuse = question.refusal if question else None
            answer = refuse(error) if refuse else self._predicting.refusal(error, route.target)
            if answer.status == SILENT:
                await _until_gone(req)
                raise Cancelled("the client left") from None
            write(req, resp, answer)

    async def _answer(self, req: Request, resp: Any, question: Question) -> None:
        pieces: Pieces = self._client.replies(question.asked, question.timeout_s)
        try:
            first = await req.while_connected(anext(pieces))
            answer = question.answer(first)
        except BaseException:
            await pieces.aclose()
            raise
        if MORE in first.meta:
            req.scope[ANSWER] = answer
            resp.status = answer.status
            resp.stream = _rest(req, question, answer.data, pieces)
            return
        await pieces.aclose()
        write(req, resp, answer)


def write(req: Request, resp: Any, answer: Answer) -> None:
    """Make it the response."""
    req.scope[ANSWER] = answer
    resp.status = answer.status
    resp.data = answer.data


async def _rest(
    req: Request, question: Question, first: bytes, pieces: Pieces
) -> AsyncGenerator[bytes, None]:
    """The chunks of a response, until the client leaves. Raises: BrokenOff."""
    gone = asyncio.ensure_future(_until_gone(req))
    try:
        yield first
        while (reply := await _next(pieces, gone)) is not None:
            yield question.answer(reply).data
    except HeadwayError as error:
        raise BrokenOff(str(error)) from None
    finally:
        gone.cancel()
        await pieces.aclose()


async def _next(pieces: Pieces, gone: asyncio.Future[None]) -> Reply | None:
    """None: that was the last one, or the client is gone."""
    piece: asyncio.Future[Reply | None] = asyncio.ensure_future(anext(pieces, None))
    try:
        either: list[asyncio.Future[Any]] = [piece, gone]
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    finally:
        if not piece.done():
            piece.cancel()
            await asyncio.wait({piece})  # a generator that runs cannot be closed
    return None if gone.done() else piece.result()


async def _until_gone(req: Request) -> None:
    while (await req.receive())["type"] != "http.disconnect":
        pass


def _with_length(headers: dict[str, str], length: int) -> dict[str, str]:
    """As TorchServe's frontend has made them of a request that comes in chunks, or without a body, or waits
    to be told that it may go on."""
    kept = {name: value for name, value in headers.items() if name.lower() != "expect"}
    if any(name.lower() == "content-length" for name in kept):
        return kept
    kept = {name: value for name, value in kept.items() if name.lower() != "transfer-encoding"}
    return {**kept, "content-length": str(length)}
