"""TorchServe's gRPC interfaces in front of a real broker and worker."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.message_factory import GetMessageClass
from prometheus_client.multiprocess import MultiProcessCollector

from headway import Client
from headway.torchserve.properties import Properties
from headway.torchserve.registration import Registration, write_version
from headway_gateway.torchserve.grpc import inference, management
from tests.ports import Ports
from tests.system.stack import Up, until
from tests.worker.archives import archived, needs_archiver

pytestmark = [pytest.mark.system, needs_archiver]

READY_S = 30.0
TIMEOUT_S = 20.0
HANDLER = """
    import json
    import time
    from ts.handler_utils.utils import send_intermediate_predict_response as send

    def handle(data, context):
        if data is None:
            return
        (row,) = data
        if "pieces" in row:
            for _ in range(int(row["pieces"])):
                send([str(time.monotonic())], context.request_ids, "ok", 200, context)
                time.sleep(0.2)
            return [str(time.monotonic())]
        if "fail" in row:
            raise ValueError("no")
        context.set_response_status(418, "teapot")
        shown = {name: [type(value).__name__, bytes(value).decode()] for name, value in row.items()}
        return [{"row": shown, "mine": context.get_request_header(0, "x-mine")}]
"""


class Stack:
    """`headway up`, and the gRPC process in front of its broker."""

    def __init__(self, up: Up, folder: Path) -> None:
        self.up = up
        self.logs, self.counted = folder / "logs", folder / "counted"
        self._ports = Ports(2)
        ports = self._ports.numbers
        properties = Properties(
            grpc_inference_port=ports[0],
            grpc_management_port=ports[1],
            disable_token_authorization=True,
            log_location=str(folder / "logs"),
            metrics_mode="legacy",
        )
        properties.write(folder / "properties.json")
        command = [sys.executable, "-m", "headway_gateway.torchserve.grpc", "--run-dir", str(up.run_dir)]
        command += ["--torchserve", str(folder / "properties.json"), "--metrics-dir", str(folder / "counted")]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert self.process.stderr
        next(line for line in self.process.stderr if "listening" in line)
        self._channels = {
            name: grpc.insecure_channel(f"127.0.0.1:{port}")
            for name, port in zip((inference, management), ports, strict=True)
        }

    def call(self, module: Any, method: str, request: Any, **more: Any) -> Any:
        described = module.SERVICE.methods_by_name[method]
        gives = "unary_stream" if described.server_streaming else "unary_unary"
        called = getattr(self._channels[module], gives)(
            f"/{module.SERVICE.full_name}/{method}",
            request_serializer=GetMessageClass(described.input_type).SerializeToString,
            response_deserializer=GetMessageClass(described.output_type).FromString,
        )
        return called(request, timeout=TIMEOUT_S, **more)

    def ask(self, method: str = "Predictions", **input: bytes) -> Any:
        return self.call(inference, method, inference.Request(model_name="talk", input=input))

    def cancelled(self) -> int:
        with Client(self.up.direct) as client:
            return sum(model["outcomes"].get("Cancelled", 0) for model in client.stats()["models"])

    def close(self) -> None:
        for channel in self._channels.values():
            channel.close()
        self.process.send_signal(signal.SIGTERM)
        _, said = self.process.communicate(timeout=15)
        self._ports.close()
        assert (self.process.returncode, "Traceback" in said) == (0, False), said


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("up")
    made = archived(folder, "handler.py", {"handler.py": HANDLER}, name="talk")
    (folder / "models").mkdir()
    registered = Registration("talk", "1.0", made.name, str(made), workers_min=1, workers_max=1)
    write_version(folder / "models", registered, Properties())
    up = Up(folder, workers=1)
    try:
        stack = Stack(up, folder)
        up.hear("ready: http://")
        until(lambda: up.ready_copies("talk") == 1, READY_S)
        yield stack
        stack.close()
        assert up.end(signal.SIGINT) == 0
    finally:
        up.close()


def test_a_handler_gets_bytearrays_by_name_and_the_clients_metadata(stack: Stack) -> None:
    request = inference.Request(model_name="talk", model_version="1.0", input={"data": b"hi", "b": b"{}"})
    answer = stack.call(inference, "Predictions", request, metadata=(("x-mine", "1"),))
    assert json.loads(answer.prediction) == {
        "row": {"data": ["bytearray", "hi"], "b": ["bytearray", "{}"]},
        "mine": "1",
    }


def test_what_a_handler_raises_is_unavailable(stack: Stack) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        stack.ask(fail=b"")
    error: Any = caught.value
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert error.details() == "Prediction failed\norg.pytorch.serve.http.InternalServerException"


def test_a_model_and_a_version_that_are_not_there_are_not_found(stack: Stack) -> None:
    for model, version, text in (
        ("none", "", "Model not found: none"),
        ("talk", "7", "Model version: 7 does not exist for model: talk"),
    ):
        with pytest.raises(grpc.RpcError) as caught:
            stack.call(inference, "Predictions", inference.Request(model_name=model, model_version=version))
        error: Any = caught.value
        assert (error.code(), error.details().split("\n")[0]) == (grpc.StatusCode.NOT_FOUND, text)


def test_a_piece_arrives_while_the_handler_goes_on(stack: Stack) -> None:
    came = [
        (float(piece.prediction), time.monotonic()) for piece in stack.ask("StreamPredictions", pieces=b"3")
    ]
    assert len(came) == 4
    assert came[0][1] < came[-1][0] - 0.2, "the first piece waited for the end"


def test_who_leaves_in_the_middle_withdraws_the_request(stack: Stack) -> None:
    before = stack.cancelled()
    pieces = stack.ask("StreamPredictions", pieces=b"4")
    next(pieces)
    pieces.cancel()
    until(lambda: stack.cancelled() == before + 1, 5.0)
    assert stack.ask(data=b"next").prediction


def test_management_describes_what_is_served(stack: Stack) -> None:
    request = management.messages.DescribeModelRequest(model_name="talk")
    (described,) = json.loads(stack.call(management, "DescribeModel", request).msg)
    assert (described["modelName"], described["modelVersion"]) == ("talk", "1.0")
    assert described["workers"][0]["status"] == "READY"
    listed = stack.call(management, "ListModels", management.messages.ListModelsRequest())
    assert [model["modelName"] for model in json.loads(listed.msg)["models"]] == ["talk"]


def test_calls_are_logged_and_counted_where_the_gateway_counts_too(stack: Stack) -> None:
    stack.ask(data=b"x")

    def said(name: str) -> str:
        return (stack.logs / f"{name}.log").read_text()

    line = rf'/127\.0\.0\.1:\d+ "gRPC {inference.SERVICE.full_name}/Predictions HTTP/2\.0" 0 \d+'
    until(lambda: bool(re.search(line, said("access_log"))), 5.0)
    until(lambda: "WorkerThreadTime.Milliseconds:" in said("ts_metrics"), 5.0)
    until(lambda: bool(list(stack.counted.glob("counter_*.db"))), 5.0)
    (counter,) = MultiProcessCollector.merge(list(map(str, stack.counted.glob("counter_*.db"))))
    assert counter.name.endswith("ts_inference_requests_total")
    assert {sample.labels["model_name"] for sample in counter.samples} == {"talk"}
