"""The Open Inference Protocol's `GRPCInferenceService`, under TorchServe's package.

`ServerMetadata` is left out: TorchServe answers that it is not implemented.

Knows: the messages. Must not know: how calls are taken (that is `interface`), how tensors become JSON (that
is `oip_json`).
"""

from __future__ import annotations

from typing import Any

from headway.body import Body
from headway.errors import HeadwayError
from headway_gateway.inference import JSON, Target
from headway_gateway.models import ask_broker, is_ready, versions_of
from headway_gateway.torchserve.asking import refusal_of
from headway_gateway.torchserve.grpc.inference import Inference, headers_of
from headway_gateway.torchserve.grpc.interface import Method
from headway_gateway.torchserve.grpc.oip_json import request_json, response_of
from headway_gateway.torchserve.grpc.proto import open_inference_pb2 as messages
from headway_gateway.torchserve.refusal import bad_request, no_model, no_version

SERVICE = messages.DESCRIPTOR.services_by_name["GRPCInferenceService"]


class OpenInference:
    """The service. Its inferences are `inference`'s, with one JSON body."""

    def __init__(self, client: Any, inference: Inference) -> None:
        self._client = client
        self._inference = inference

    @property
    def methods(self) -> dict[str, Method]:
        return {
            "ServerLive": self.live,
            "ServerReady": self.ready,
            "ModelReady": self.model_ready,
            "ModelMetadata": self.model_metadata,
            "ModelInfer": self.infer,
        }

    async def live(self, request: Any, context: Any) -> messages.ServerLiveResponse:
        return messages.ServerLiveResponse(live=True)

    async def ready(self, request: Any, context: Any) -> messages.ServerReadyResponse:
        """Always, as over HTTP."""
        return messages.ServerReadyResponse(ready=True)

    async def model_ready(
        self, request: messages.ModelReadyRequest, context: Any
    ) -> messages.ModelReadyResponse:
        found = await self._versions(request.name, request.version)
        return messages.ModelReadyResponse(ready=is_ready(found[0]))

    async def model_metadata(
        self, request: messages.ModelMetadataRequest, context: Any
    ) -> messages.ModelMetadataResponse:
        """All versions, whichever was asked for. Nobody knows an archive's inputs and outputs."""
        await self._versions(request.name, request.version)
        versions = sorted(m["version"] for m in await self._versions(request.name, ""))
        return messages.ModelMetadataResponse(name=request.name, versions=versions)

    async def infer(self, request: messages.ModelInferRequest, context: Any) -> messages.ModelInferResponse:
        if not request.model_name:
            raise bad_request("Parameter model_name is required.")
        target = Target(request.model_name, request.model_version)
        try:
            body = Body(request_json(request), JSON)
        except HeadwayError as error:
            raise refusal_of(error, target) from None
        asked = self._inference.ask(target, body, headers_of(context))
        return response_of(await self._inference.predict(asked, context))

    async def _versions(self, name: str, version: str) -> list[dict[str, Any]]:
        """Raises: Refusal."""
        if not name:
            raise bad_request("Parameter name is required.")
        models = await ask_broker(self._client.models())
        of_model = [model for model in models if model["name"] == name]
        if not of_model:
            raise no_model(name)
        if version not in ("", *(model["version"] for model in of_model)):
            raise no_version(name, version)
        return versions_of(models, name, version)
