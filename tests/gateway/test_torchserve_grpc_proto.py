"""The files that protoc made are those of the `.proto` files, and stubs made from those reach the server."""

from __future__ import annotations

import asyncio
import importlib
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import google.rpc
import pytest

import headway_gateway
from headway_gateway.torchserve.grpc.inference import SERVICE
from headway_gateway.torchserve.grpc.proto import inference_pb2, management_pb2, open_inference_pb2
from tests.gateway.grpc_site import Site

protoc = pytest.importorskip("grpc_tools.protoc", reason="grpcio-tools is not installed")
ROOT = Path(headway_gateway.__file__).parent.parent
FOLDER = Path("headway_gateway/torchserve/grpc/proto")
NAMES = ("inference", "management", "open_inference")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what protoc makes of the files now."""
    folder = tmp_path_factory.mktemp("made")
    common = Path(next(iter(google.rpc.__path__))).parent.parent
    own = Path(protoc.__file__).parent / "_proto"
    arguments = [f"-I{ROOT}", f"-I{common}", f"-I{own}"]
    arguments += [f"--{kind}_out={folder}" for kind in ("python", "pyi", "grpc_python")]
    assert protoc.main(["protoc", *arguments, *(str(ROOT / FOLDER / f"{n}.proto") for n in NAMES)]) == 0
    return folder


def descriptor_in(text: str) -> str:
    found = re.search(r"AddSerializedFile\((.*)\)", text)
    assert found
    return found[1]


@pytest.mark.parametrize("name", NAMES)
def test_the_generated_files_are_up_to_date(name: str, made: Path) -> None:
    anew, ours = made / FOLDER / f"{name}_pb2.py", ROOT / FOLDER / f"{name}_pb2.py"
    assert descriptor_in(anew.read_text()) == descriptor_in(ours.read_text())
    assert anew.with_suffix(".pyi").read_text() == ours.with_suffix(".pyi").read_text()


@pytest.mark.parametrize(
    ("module", "service", "methods"),
    [
        (
            inference_pb2,
            "org.pytorch.serve.grpc.inference.InferenceAPIsService",
            "Ping Predictions StreamPredictions StreamPredictions2",
        ),
        (
            management_pb2,
            "org.pytorch.serve.grpc.management.ManagementAPIsService",
            "DescribeModel ListModels RegisterModel ScaleWorker SetDefault UnregisterModel",
        ),
        (
            open_inference_pb2,
            "org.pytorch.serve.grpc.openinference.GRPCInferenceService",
            "ServerLive ServerReady ModelReady ServerMetadata ModelMetadata ModelInfer",
        ),
    ],
)
def test_services_and_methods_are_called_as_torchserves(
    module: ModuleType, service: str, methods: str
) -> None:
    (found,) = module.DESCRIPTOR.services_by_name.values()
    assert found.full_name == service
    assert [method.name for method in found.methods] == methods.split()


def test_messages_have_torchserves_numbers() -> None:
    numbers = {
        (message.name, field.name): field.number
        for module in (inference_pb2, management_pb2)
        for message in module.DESCRIPTOR.message_types_by_name.values()
        for field in message.fields
    }
    register = "batch_size handler initial_workers max_batch_delay model_name response_timeout runtime"
    register += " synchronous url s3_sse_kms startup_timeout"
    scale = "model_name model_version max_worker min_worker number_gpu synchronous timeout"
    for message, fields in {
        "PredictionsRequest": "model_name model_version input sequence_id",
        "PredictionResponse": "prediction sequence_id status",
        "TorchServeHealthResponse": "health",
        "ManagementResponse": "msg",
        "DescribeModelRequest": "model_name model_version customized",
        "ListModelsRequest": "limit next_page_token",
        "RegisterModelRequest": register,
        "ScaleWorkerRequest": scale,
        "SetDefaultRequest": "model_name model_version",
        "UnregisterModelRequest": "model_name model_version",
    }.items():
        assert [numbers.pop((message, field)) for field in fields.split()] == list(
            range(1, len(fields.split()) + 1)
        )
    assert not numbers


def test_stubs_made_from_the_files_call_the_server(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(made / FOLDER))
    stubs: Any = importlib.import_module("inference_pb2_grpc")
    monkeypatch.delitem(sys.modules, "inference_pb2_grpc")

    async def run() -> Any:
        site = Site()
        async with site.serving() as servers, site.channel(servers, SERVICE) as channel:
            stub = stubs.InferenceAPIsServiceStub(channel)
            request = inference_pb2.PredictionsRequest(model_name="echo", input={"data": b"hi"})
            return await stub.Predictions(request, timeout=10)

    assert asyncio.run(run()).prediction == b"hi"
