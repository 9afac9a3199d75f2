"""`headway torchserve` as people run it: all its processes, and what is left of them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from headway import Client
from headway.errors import HeadwayError
from headway.torchserve import javaproperties
from tests.ports import Ports
from tests.system.stack import HEADWAY, until
from tests.worker.archives import archived, needs_archiver

pytestmark = [pytest.mark.system, needs_archiver]

HANDLER = """
def handle(data, context):
    if data is None:
        return None
    print("asked", context.manifest["model"]["modelVersion"])
    return [context.manifest["model"]["modelVersion"] for _ in data]
"""


class Server:
    """One `headway torchserve` in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("store", "tmp"):
            (folder / name).mkdir()
        for version in ("1.0", "2.0"):
            made = archived(
                folder / "made", "h.py", {"h.py": HANDLER}, name=f"echo{version[0]}", version=version
            )
            made.rename(folder / "store" / made.name)
        archived(folder / "made", "h.py", {"h.py": HANDLER}, name="far", version="3.0")
        self._ports = Ports(3)
        addresses = self._ports.addresses
        self.inference, self.management, _ = addresses
        names = ("inference_address", "management_address", "metrics_address")
        lines = [f"{name}=http://{at}" for name, at in zip(names, addresses, strict=True)]
        lines += ["enable_grpc=false", "default_workers_per_model=1", "number_of_gpu=0", "vmargs=-Xmx1g"]
        (folder / "c.cfg").write_text("\n".join(lines))
        self.run_dir = folder / "r"
        temporary = str(folder / "tmp")
        self.environment = {**os.environ, "TMPDIR": temporary, "HEADWAY_RUN_DIR": str(self.run_dir)}

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*HEADWAY, "torchserve", *words],
            cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=90,
        )  # fmt: skip

    def start(self, *words: str) -> subprocess.CompletedProcess[str]:
        return self.run("--start", "--model-store", "store", *words)

    def ask(self, path: str, kind: str = "inference") -> tuple[int, Any]:
        key = json.loads((self.folder / "key_file.json").read_text())[kind]["key"]
        address = self.inference if kind == "inference" else self.management
        request = Request(f"http://{address}{path}", headers={"Authorization": f"Bearer {key}"})
        try:
            with urlopen(request, timeout=30) as reply:
                return reply.status, reply.read()
        except HTTPError as error:
            return error.code, error.read()

    @property
    def ready(self) -> dict[tuple[str, str], int]:
        try:
            with Client(f"ipc://{self.run_dir}/broker.sock", timeout_s=5.0) as client:
                return {(m["name"], m["version"]): m["ready"] for m in client.models(timeout_s=5.0)}
        except HeadwayError:
            return {}

    def snapshots(self) -> list[str]:
        return sorted(path.name.partition("-")[2] for path in (self.folder / "logs" / "config").iterdir())

    @property
    def _pid_file(self) -> Path:
        return self.folder / "tmp" / ".model_server.pid"

    @property
    def pid(self) -> int:
        return int(self._pid_file.read_text())

    def close(self) -> None:
        if self._pid_file.exists():
            os.kill(self.pid, signal.SIGKILL)  # its children follow
        self._ports.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path)
    yield server
    server.close()


def test_it_goes_into_the_background_serves_leaves_nothing_behind_and_serves_the_same_again(
    server: Server,
) -> None:
    url = f"file://{server.folder}/made/export/far.mar"
    (server.folder / "c.cfg").open("a").write(f"\nallowed_urls={url}")
    files = ("echo1.mar", "mine=echo2.mar", "nope.mar", url)
    started = server.start("--ts-config", "c.cfg", "--models", *files)
    assert (started.returncode, started.stdout) == (0, ""), started.stderr
    assert os.getsid(server.pid) == server.pid
    assert server.start("--ts-config", "c.cfg").returncode == 1
    until(lambda: server.ready == {("echo1", "1.0"): 1, ("mine", "2.0"): 1, ("far", "3.0"): 1}, 60)
    assert server.ask("/predictions/echo1/1.0") == (200, b"1.0")
    code, listed = server.ask("/models", "management")
    urls = {model["modelName"]: model["modelUrl"] for model in json.loads(listed)["models"]}
    assert (code, urls) == (200, {"echo1": "echo1.mar", "far": url, "mine": "echo2.mar"})
    assert server.snapshots() == ["startup.cfg"]

    stopped = server.run("--stop")
    assert (stopped.returncode, stopped.stdout) == (0, "TorchServe has stopped.\n")
    assert server.snapshots() == ["shutdown.cfg", "startup.cfg"]
    left = {path.name for path in server.folder.iterdir()}
    assert left == {"store", "tmp", "made", "c.cfg", "logs"}
    assert [path.name for path in (server.folder / "tmp").iterdir()] == []
    log = (server.folder / "logs" / "ts_log.log").read_text()
    assert "warning: properties without a meaning here: vmargs" in log
    assert "warning: Failed to load model: nope.mar: Model not found at: nope.mar" in log
    assert "headway.agent agent leaves" in log
    assert "asked 1.0\n" in (server.folder / "logs" / "model_log.log").read_text()

    last = max((server.folder / "logs" / "config").iterdir())
    models = json.loads(javaproperties.parse(last.read_bytes())["model_snapshot"])["models"]
    assert models["mine"]["2.0"]["minWorkers"] == 1
    assert server.start().returncode == 0
    assert server.ready.keys() == {("echo1", "1.0"), ("mine", "2.0"), ("far", "3.0")}
    assert server.run("--stop").returncode == 0
    (server.folder / "store" / "echo2.mar").unlink()
    again = server.start()
    assert again.returncode == 78
    assert "Model archive file for model :mine, version :2.0 not found in model store" in again.stderr


def test_in_the_foreground_ctrl_c_stops_all_of_it(server: Server) -> None:
    process = subprocess.Popen(
        [*HEADWAY, "torchserve", "--foreground", "--model-store", "store", "--ts-config", "c.cfg", "--ncs"],
        cwd=server.folder, env=server.environment, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout
    with process.stdout as lines:
        for line in lines:
            if "Model server started." in line:
                process.send_signal(signal.SIGINT)
                break
        said = lines.read()
    assert process.wait(20) == 0
    assert "broker stopped" in said
    assert {path.name for path in server.folder.iterdir()} == {"store", "tmp", "made", "c.cfg", "logs"}
    assert not (server.folder / "logs" / "config").exists()
