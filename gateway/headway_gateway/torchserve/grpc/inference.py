"""`InferenceAPIsService`: ping, and predictions in one message, in pieces, and in a stream of requests.

Knows: the messages. Must not know: how calls are taken (that is `interface`), tensors, the broker.

A request's `input` is the parts of a body without media types: a handler gets bytearrays by name. The
client's metadata is the request's headers.
"""

from __future__ import annotations

import asyncio
import math
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import aclosing, contextmanager, suppress
from typing import Any

from headway.body import Body
from headway.errors import HeadwayError
from headway.outgoing import Asked
from headway.steps import SEQUENCE
from headway.torchserve.properties import Properties
from headway_gateway.inference import Target
from headway_gateway.torchserve.asking import (
    CLIENT_GONE,
    answer_of,
    ask,
    refusal_of,
)
from headway_gateway.torchserve.door_metrics import DoorMetrics
from headway_gateway.torchserve.grpc.guard import HEADER
from headway_gateway.torchserve.grpc.interface import Method
from headway_gateway.torchserve.grpc.proto import inference_pb2 as messages
from headway_gateway.torchserve.grpc.status import message_of
from headway_gateway.torchserve.health import Health
from headway_gateway.torchserve.refusal import Refusal, bad_request
from headway_gateway.torchserve.registry import Registry
from headway_gateway.torchserve.steps import made_id, placed, step_keys
from headway_gateway.torchserve.terms import TermsOf

SERVICE = messages.DESCRIPTOR.services_by_name["InferenceAPIsService"]
Request = messages.PredictionsRequest
Response = messages.PredictionResponse


class Inference:
    """The service, over `client`, an `AsyncClient` or stub."""

    def __init__(self, client: Any, registry: Registry, properties: Properties, counts: DoorMetrics) -> None:
        self._client = client
        self._registry = registry
        self._properties = properties
        self._counts = counts
        self._step_keys = step_keys(properties)
        self._terms = TermsOf(registry)
        self._health = Health(client, registry, properties)

    @property
    def methods(self) -> dict[str, Method]:
        return {
            "Ping": self.ping,
            "Predictions": self.predictions,
            "StreamPredictions": self.stream_predictions,
            "StreamPredictions2": self.stream_predictions2,
        }

    async def ping(self, request: Any, context: Any) -> messages.TorchServeHealthResponse:
        _, said = await self._health.ping()
        return messages.TorchServeHealthResponse(health=said.decode().removesuffix("\n"))

    async def predictions(self, request: Request, context: Any) -> Response:
        asked = self._asked(request, await self._headers(request, context))
        data = await self.predict(asked, context)
        return _response(asked.options.get(SEQUENCE, ""), data)

    async def predict(self, asked: Asked, context: Any) -> bytes:
        """What the model answers, whole. Raises: Refusal."""
        with self._counted(asked) as meta:
            reply = await self._client.reply(asked, self._limit_s(asked, context))
            meta.update(reply.meta)
            return answer_of(reply, self._properties.max_response_size).data

    async def stream_predictions(self, request: Request, context: Any) -> AsyncIterator[Response]:
        asked = self._asked(request, await self._headers(request, context), stream=True)
        async with aclosing(self._pieces(asked, context)) as pieces:
            async for piece in pieces:
                yield _response(asked.options.get(SEQUENCE, ""), piece)

    async def stream_predictions2(
        self, requests: AsyncIterator[Request], context: Any
    ) -> AsyncIterator[Response]:
        """What is wrong with one request is said in a message, and does not end the stream."""
        headers = headers_of(context)
        async for request in requests:
            name = request.sequence_id
            try:
                own = {**headers, **self._streamed(request)}
                asked = self._asked(request, own, stream=True)
                name = own[self._step_keys.id]
                async with aclosing(self._pieces(asked, context)) as pieces:
                    async for piece in pieces:
                        yield _response(name, piece)
            except Refusal as refusal:
                yield _response(name, b"", refusal)

    async def _pieces(self, asked: Asked, context: Any) -> AsyncGenerator[bytes, None]:
        """What the model answers, as it comes. Raises: Refusal."""
        with self._counted(asked) as meta:
            async with aclosing(self._client.replies(asked, self._limit_s(asked, context))) as replies:
                async for reply in replies:
                    meta.update(reply.meta)
                    yield answer_of(reply, self._properties.max_response_size).data

    @contextmanager
    def _counted(self, asked: Asked) -> Iterator[dict[str, Any]]:
        """A prediction, from its request to its answer, which puts its meta into what it is given here.
        What the broker says is wrong becomes a Refusal."""
        began, status, meta = time.monotonic(), 200, dict[str, Any]()
        try:
            yield meta
        except (asyncio.CancelledError, GeneratorExit):
            status = CLIENT_GONE
            raise
        except HeadwayError as error:
            meta.update(error.meta)
            refusal = self._refusal_of(error, Target(asked.model, asked.version))
            status = refusal.status
            raise refusal from None
        except Refusal as refusal:
            status = refusal.status
            raise
        finally:
            took_s = time.monotonic() - began
            self._counts.count(status, asked.model, asked.version, took_s, meta, timed=False)

    def _refusal_of(self, error: HeadwayError, target: Target) -> Refusal:
        one_text = not self._properties.headway_telling_messages
        return refusal_of(error, target, self._registry, one_text=one_text)

    def _asked(self, request: Request, headers: Mapping[str, str], stream: bool = False) -> Asked:
        """Raises: Refusal."""
        if not request.model_name:
            raise bad_request("Parameter model_name is required.")
        target = Target(request.model_name, request.model_version)
        parts = {name: Body(data, "") for name, data in request.input.items()}
        body = Body(b"", "", parts)
        return self.ask(target, body, headers, stream)

    def ask(self, target: Target, body: Body, headers: Mapping[str, str], stream: bool = False) -> Asked:
        """Raises: Refusal."""
        id = str(uuid.uuid4())
        has_sequences = self._terms.of(target, time.monotonic()).has_sequences
        try:
            headers, place = placed(headers, self._step_keys, has_sequences)
            lender = self._client.lender
            return ask(target, body, headers, request_id=id, stream=stream, lender=lender, place=place)
        except HeadwayError as error:
            raise self._refusal_of(error, target) from None

    def _limit_s(self, asked: Asked, context: Any) -> float:
        """Until the client's deadline, or as long as the model says, whichever is shorter."""
        left_s = context.time_remaining()
        most_s = self._terms.of(Target(asked.model, asked.version), time.monotonic()).limit_s
        return min(most_s, math.inf if left_s is None else left_s)

    async def _headers(self, request: Request, context: Any) -> dict[str, str]:
        """A sequence means nothing to a model without them, and its handler is not told of it. Waits, for one
        that names a sequence, where nobody knows yet."""
        headers = headers_of(context)
        if not request.sequence_id:
            return headers
        target = Target(request.model_name, request.model_version)
        if self._terms.of(target, time.monotonic()).has_sequences is None:
            with suppress(HeadwayError):  # the prediction says it, if it is still so
                await self._registry.find(*target)
            self._terms.forget(target)
        if self._terms.of(target, time.monotonic()).has_sequences is False:
            return headers
        return {**headers, **self._sequence(request)}

    def _streamed(self, request: Request) -> dict[str, str]:
        """The headers of one in a stream of requests, which must say of which sequence it is. Raises:
        Refusal."""
        keys, headers = self._step_keys, self._sequence(request)
        if not request.sequence_id and keys.starts not in headers:
            raise bad_request("Parameter sequenceId is required.")
        return {keys.id: made_id(), **headers}

    def _sequence(self, request: Request) -> dict[str, str]:
        """The headers that say where in a sequence the request is, as far as it says that."""
        keys, own = self._step_keys, request.input
        headers = {keys.id: request.sequence_id} if request.sequence_id else {}
        return headers | {
            key: "true" for key in (keys.starts, keys.ends) if own.get(key, b"").lower() == b"true"
        }


def headers_of(context: Any) -> dict[str, str]:
    """The client's metadata, but for bytes and its key."""
    found = context.invocation_metadata() or ()
    return {name: value for name, value in found if isinstance(value, str) and name != HEADER}


def _response(sequence: str, data: bytes, refusal: Refusal | None = None) -> Response:
    response = Response(prediction=data)
    if sequence:
        response.sequence_id = sequence
    if refusal:
        response.status.CopyFrom(message_of(refusal))
    return response
