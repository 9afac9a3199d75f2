from __future__ import annotations

import json
from typing import Any

import grpc.aio
import pytest

from headway.body import Body
from headway.stub import AsyncStubClient
from headway_gateway.torchserve.grpc.oip import SERVICE
from headway_gateway.torchserve.grpc.proto import open_inference_pb2 as messages
from tests.gateway.grpc_site import Site


def doubling(body: Body) -> Body:
    """As a handler sees and answers it."""
    asked = body.json()
    assert body.content_type == "application/json"
    outputs = [{**tensor, "data": [2 * e for e in tensor["data"]]} for tensor in asked["inputs"]]
    said = {"id": asked["id"], "model_name": asked["model_name"], "model_version": "1", "outputs": outputs}
    return Body(json.dumps(said).encode())


SITE = {"double": doubling, "words": lambda body: Body(b"words")}


def called(method: str, request: Any, site: Site | None = None) -> Any:
    return (site or Site(AsyncStubClient(SITE))).call(SERVICE, method, request)


def refused(method: str, request: Any, site: Site | None = None) -> tuple[str, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        called(method, request, site)
    return caught.value.code().name, (caught.value.details() or "").split("\n")[0]


def infer(model: str, **more: Any) -> messages.ModelInferRequest:
    contents = messages.InferTensorContents(fp32_contents=[0.5, 1])
    tensor = messages.ModelInferRequest.InferInputTensor(
        name="a", datatype="FP32", shape=[2], contents=contents
    )
    return messages.ModelInferRequest(model_name=model, id="7", inputs=[tensor], **more)


def test_the_server_is_live_and_ready() -> None:
    assert called("ServerLive", messages.ServerLiveRequest()).live
    assert called("ServerReady", messages.ServerReadyRequest()).ready


def test_the_servers_metadata_is_not_implemented() -> None:
    code, text = refused("ServerMetadata", messages.ServerMetadataRequest())
    assert (code, text) == ("UNIMPLEMENTED", f"Method {SERVICE.full_name}/ServerMetadata is unimplemented")


def test_a_model_is_ready_when_a_copy_of_it_is() -> None:
    class Loading(AsyncStubClient):
        async def models(self) -> list[dict[str, Any]]:
            return [{**model, "ready": 0} for model in await super().models()]

    request = messages.ModelReadyRequest(name="double", version="1")
    assert called("ModelReady", request).ready
    assert not called("ModelReady", request, Site(Loading(SITE))).ready


def test_a_models_metadata_are_its_name_and_versions() -> None:
    found = called("ModelMetadata", messages.ModelMetadataRequest(name="double"))
    assert (found.name, list(found.versions), found.platform) == ("double", ["1"], "")


@pytest.mark.parametrize(
    ("name", "version", "code", "text"),
    [
        ("none", "", "NOT_FOUND", "Model not found: none"),
        ("double", "7", "NOT_FOUND", "Model version: 7 does not exist for model: double"),
        ("", "", "INVALID_ARGUMENT", "Parameter name is required."),
    ],
)
def test_a_model_that_is_not_there_is_not_found(name: str, version: str, code: str, text: str) -> None:
    assert refused("ModelReady", messages.ModelReadyRequest(name=name, version=version)) == (code, text)
    request = messages.ModelMetadataRequest(name=name, version=version)
    assert refused("ModelMetadata", request) == (code, text)


def test_an_inference_goes_to_the_handler_as_json_and_back() -> None:
    site = Site(AsyncStubClient(SITE))
    answer = called("ModelInfer", infer("double", model_version="1"), site)
    (output,) = answer.outputs
    assert (answer.id, answer.model_name, answer.model_version) == ("7", "double", "1")
    assert (output.name, list(output.contents.fp32_contents)) == ("a", [1, 2])
    assert site.counted.predictions == [(200, "double", "1")]


def test_what_is_wrong_with_an_inference_is_told() -> None:
    assert refused("ModelInfer", infer("none")) == ("NOT_FOUND", "Model not found: none")
    assert refused("ModelInfer", infer("")) == ("INVALID_ARGUMENT", "Parameter model_name is required.")
    assert refused("ModelInfer", infer("words"))[0] == "INTERNAL"
    code, text = refused("ModelInfer", infer("double", raw_input_contents=[b"", b""]))
    assert (code, "raw_input_contents" in text) == ("INVALID_ARGUMENT", True)


def test_without_the_property_there_is_no_such_service() -> None:
    site = Site(AsyncStubClient(SITE), ts_open_inference_protocol=False)
    code, text = refused("ServerLive", messages.ServerLiveRequest(), site)
    assert (code, text) == ("UNIMPLEMENTED", f"Method not found: {SERVICE.full_name}/ServerLive")
