"""TorchServe's management over a real broker, agent and workers, each copy in a process of its own."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Coroutine, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest

from headway.aio import AsyncClient
from headway.settings import GatewaySettings
from headway.torchserve.properties import Properties
from headway_gateway.doors import INFERENCE, MANAGEMENT, Place
from headway_gateway.torchserve.app import create_doors
from tests.system.stack import until
from tests.worker.archives import archived, needs_archiver

pytestmark = [pytest.mark.system, needs_archiver]
T = TypeVar("T")
AGENT = ("--devices=cpu", "--threads=1", "--copies-max=1", "--workers-wanted=2", "--places=3")

HANDLER = """
    import os
    import time
    def handle(data, context):
        if data is None:
            return
        if context.get_request_header(0, "describe"):
            return [{{"says": "{says}"}}]
        if data[0]["body"] == b"slow":
            time.sleep(0.5)
        return [f"{says} {{os.getpid()}}" for _ in data]
"""
BROKEN = """
    from ts.torch_handler.base_handler import BaseHandler
    class Broken(BaseHandler):
        def initialize(self, context):
            raise ValueError("weights of another age")
"""


class Stack:
    """Broker and agent as processes; the gateway's apps in this one, over a loop in a thread."""

    def __init__(self, folder: Path) -> None:
        self.store, self.archives, run = folder / "store", folder / "archives", folder / "run"
        for each in (self.store, self.archives, run, folder / "tmp"):
            each.mkdir(mode=0o700)
        where = {"HEADWAY_RUN_DIR": run, "HEADWAY_STATE_DIR": folder / "state", "TMPDIR": folder / "tmp"}
        self._environment = {**os.environ, **{name: str(path) for name, path in where.items()}}
        self._processes = [
            self._spawn("headway_broker", "--model-store", str(self.store)),
            self._spawn("headway_worker.agent", *AGENT),
        ]
        until((folder / "state" / "token").exists)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self.client = AsyncClient(f"ipc://{run}/broker.sock", shm_bytes=0)
        self.run(self.client.open())
        doors = create_doors(self.client, self._settings(folder), {MANAGEMENT: Place("127.0.0.1", 1)})
        self._http = {name: _calling(doors.apps[name]) for name in (INFERENCE, MANAGEMENT)}

    def _settings(self, folder: Path) -> GatewaySettings:
        properties = Properties(
            model_store=str(self.archives),
            enable_model_api=True,
            disable_token_authorization=True,
            log_location=str(folder / "logs"),
        )
        properties.write(folder / "properties.json")
        return GatewaySettings(torchserve=str(folder / "properties.json"), state_dir=folder / "state")

    def _spawn(self, module: str, *options: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-m", module, *options], env=self._environment)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.start(work).result(90)

    def start(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def ask(self, method: str, path: str) -> tuple[int, Any]:
        answer = self.run(self._http[MANAGEMENT].request(method, path))
        return answer.status_code, answer.json()

    def predicting(self, model: str, body: bytes = b"x") -> Coroutine[Any, Any, httpx.Response]:
        return self._http[INFERENCE].post(f"/predictions/{model}", content=body)

    def predict(self, model: str) -> list[str]:
        """What it says, and the process that said it."""
        answer = self.run(self.predicting(model))
        assert answer.status_code == 200, answer.text
        return answer.text.split()

    def add(self, says: str, version: str = "1.0", code: str = HANDLER) -> None:
        name = f"{says}{version}"
        text = code.format(says=says + version) if code is HANDLER else code
        made = archived(self.archives.parent, "h.py", {"h.py": text}, name=name, version=version)
        made.rename(self.archives / f"{name}.mar")

    def close(self) -> None:
        for http in self._http.values():
            self.run(http.aclose())
        self.run(self.client.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        for process in reversed(self._processes):  # the agent ends its workers
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _calling(app: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test", timeout=60)


@contextmanager
def running(folder: Path) -> Iterator[Stack]:
    stack = Stack(folder)
    try:
        yield stack
    finally:
        stack.close()


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with running(tmp_path_factory.mktemp("stack")) as stack:
        stack.add("echo")
        stack.add("echo", "2.0")
        stack.add("broken", code=BROKEN)
        yield stack


def test_a_model_goes_through_its_whole_life(stack: Stack) -> None:
    ask = stack.ask
    url = "/models?url=echo1.0.mar&model_name=echo&initial_workers=1"
    text = 'Model "echo" Version: 1.0 registered with 1 initial workers'
    assert ask("POST", url) == (200, {"status": text})
    assert stack.predict("echo")[0] == "echo1.0"
    assert ask("POST", url)[0] == 409

    text = "Workers scaled to 2 for model: echo"
    assert ask("PUT", "/models/echo?min_worker=2&synchronous=true") == (200, {"status": text})
    status, (described,) = ask("GET", "/models/echo?customized=true")
    workers = described["workers"]
    assert [worker["status"] for worker in workers] == ["READY", "READY"]
    assert [worker["id"] for worker in workers] == ["9000", "9001"]
    assert len({worker["pid"] for worker in workers}) == 2
    assert all(worker["memoryUsage"] > 10 << 20 for worker in workers)
    assert described["customizedMetadata"] == {"says": "echo1.0"}
    assert stack.predict("echo")[1] in {str(worker["pid"]) for worker in workers}

    assert ask("PUT", "/models/echo?min_worker=1&max_worker=1&synchronous=true")[0] == 200
    assert len(ask("GET", "/models/echo")[1][0]["workers"]) == 1

    status, said = ask("POST", "/models?url=echo2.0.mar&model_name=echo&initial_workers=1&synchronous=false")
    assert (status, said) == (202, {"status": "Processing worker updates..."})
    assert stack.predict("echo")[0] == "echo1.0"
    until(lambda: bool(ask("GET", "/models/echo/2.0")[1][0]["workers"]))
    assert ask("PUT", "/models/echo/2.0/set-default")[0] == 200
    until(lambda: stack.predict("echo")[0] == "echo2.0")
    assert ask("GET", "/models/echo")[1][0]["modelVersion"] == "2.0"
    assert ask("GET", "/models")[1] == {"models": [{"modelName": "echo", "modelUrl": "echo2.0.mar"}]}

    assert ask("DELETE", "/models/echo")[0] == 403
    assert ask("DELETE", "/models/echo/1.0") == (200, {"status": 'Model "echo" unregistered'})
    assert stack.predict("echo")[0] == "echo2.0"
    assert stack.run(stack.predicting("echo/1.0")).status_code == 404
    slow = stack.start(stack.predicting("echo", b"slow"))
    time.sleep(0.1)
    assert ask("DELETE", "/models/echo")[0] == 200
    assert slow.result(5).text.startswith("echo2.0"), "what a version has when it goes is answered"
    assert ask("GET", "/models")[1] == {"models": []}
    assert stack.run(stack.predicting("echo")).status_code == 404
    assert not [path for path in stack.store.iterdir() if path.is_dir()]


def test_a_model_that_cannot_start_is_gone_and_the_log_says_why(
    stack: Stack, caplog: pytest.LogCaptureFixture
) -> None:
    text = "Failed to start workers for model broken version: 1.0"
    assert stack.ask("POST", "/models?url=broken1.0.mar&model_name=broken&initial_workers=1") == (
        500,
        {"code": 500, "type": "InternalServerException", "message": text},
    )
    assert any("weights of another age" in str(getattr(record, "facts", "")) for record in caplog.records)
    assert stack.ask("GET", "/models/broken")[0] == 404
    assert not (stack.store / "broken").exists()


def test_a_model_that_cannot_start_and_was_not_waited_for_says_why_in_its_description(stack: Stack) -> None:
    url = "/models?url=broken1.0.mar&model_name=sick&initial_workers=1&synchronous=false"
    assert stack.ask("POST", url)[0] == 202
    until(lambda: "loadError" in stack.ask("GET", "/models/sick")[1][0])
    described = stack.ask("GET", "/models/sick")[1][0]
    assert described["loadError"] == "ValueError: weights of another age"
    assert stack.ask("DELETE", "/models/sick")[0] == 200


def test_a_model_is_registered_with_no_worker_and_gets_one_later(stack: Stack) -> None:
    assert stack.ask("POST", "/models?url=echo1.0.mar&model_name=late")[0] == 200
    assert stack.ask("GET", "/v1/models/late")[1] == {"name": "late", "ready": False}
    assert stack.ask("PUT", "/models/late?synchronous=true")[0] == 200
    assert stack.ask("GET", "/v1/models/late")[1] == {"name": "late", "ready": True}
    assert stack.ask("DELETE", "/models/late/?junk=1")[0] == 200
