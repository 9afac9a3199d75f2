"""`ManagementAPIsService`: the six calls, over the operations that HTTP has too.

Knows: the messages, and what a 0 or an empty string in them means. Must not know: how calls are taken (that
is `interface`), what the operations do.
"""

from __future__ import annotations

from typing import Any

from headway.torchserve.registering import Wish
from headway_gateway.torchserve.grpc.interface import Method
from headway_gateway.torchserve.grpc.proto import management_pb2 as messages
from headway_gateway.torchserve.operations import PAGE_MAX, Done, Operations
from headway_gateway.torchserve.refusal import Refusal, bad_request, written

SERVICE = messages.DESCRIPTOR.services_by_name["ManagementAPIsService"]
Response = messages.ManagementResponse


class Management:
    """The service."""

    def __init__(self, operations: Operations) -> None:
        self._operations = operations

    @property
    def methods(self) -> dict[str, Method]:
        return {
            "DescribeModel": self.describe,
            "ListModels": self.list_models,
            "RegisterModel": self.register,
            "ScaleWorker": self.scale,
            "SetDefault": self.set_default,
            "UnregisterModel": self.unregister,
        }

    async def describe(self, request: messages.DescribeModelRequest, context: Any) -> Response:
        version = request.model_version or None
        return _document(await self._operations.describe(request.model_name, version, request.customized))

    async def list_models(self, request: messages.ListModelsRequest, context: Any) -> Response:
        """A limit of 0 is one that was not said. (TorchServe answers it with an empty page for ever.)"""
        limit = request.limit or PAGE_MAX
        return _document(await self._operations.list_models(limit, request.next_page_token))

    async def register(self, request: messages.RegisterModelRequest, context: Any) -> Response:
        self._require_model_api()
        if not request.url:
            raise bad_request("Parameter url is required.")
        return _text(await self._operations.register(_wish(request), request.synchronous, request.s3_sse_kms))

    async def scale(self, request: messages.ScaleWorkerRequest, context: Any) -> Response:
        """No number of workers can be 0: it cannot be told from one that was not said."""
        done = await self._operations.scale(
            request.model_name,
            request.model_version or None,
            _said(request.min_worker) or 1,
            _said(request.max_worker),
            request.synchronous,
        )
        return _text(done)

    async def set_default(self, request: messages.SetDefaultRequest, context: Any) -> Response:
        return _text(await self._operations.set_default(request.model_name, request.model_version))

    async def unregister(self, request: messages.UnregisterModelRequest, context: Any) -> Response:
        self._require_model_api()
        if not request.model_name:
            raise bad_request("Parameter model_name is required.")
        return _text(await self._operations.unregister(request.model_name, request.model_version or None))

    def _require_model_api(self) -> None:
        if not self._operations.is_model_api_on:
            raise Refusal(403, "ModelException", "Model API disabled")


def _wish(request: messages.RegisterModelRequest) -> Wish:
    return Wish(
        url=request.url,
        model_name=request.model_name,
        handler=request.handler,
        runtime=request.runtime,
        batch_size=_said(request.batch_size),
        max_batch_delay=_said(request.max_batch_delay),
        initial_workers=_said(request.initial_workers),
        response_timeout=_said(request.response_timeout),
        startup_timeout=_said(request.startup_timeout),
    )


def _said(number: int) -> int | None:
    return number if number > 0 else None


def _text(done: Done) -> Response:
    return Response(msg=done.text)


def _document(document: object) -> Response:
    """As over HTTP, without the newline at its end."""
    return Response(msg=written(document).decode().removesuffix("\n"))
