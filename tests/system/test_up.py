"""`headway up` as people run it: real broker, workers and gateway, and what is left of them.

Those that it survives share one (`up`), which the last of them ends; the others have their `own`.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from urllib.request import urlopen

import numpy as np
import pytest

from headway import Client
from tests.ports import Ports
from tests.system.stack import HEADWAY, Up, add_model, until

pytestmark = pytest.mark.system

DOORS = ("http", "management", "metrics")
PATIENCE_S = 0.1
JSON = {"Content-Type": "application/json"}
ONE = {"x": np.ones(1, np.float32)}
MODEL_TOML = """
backend = "python"
copies = 2
batch_size_max = 4

[[inputs]]
name = "x"
dtype = "float32"
shape = [-1]
warmup_shape = [2]
"""
DOUBLE = """
class Model:
    def infer(self, x):
        return {"y": x * 2}
"""


def headway(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*HEADWAY, *arguments], capture_output=True, text=True, timeout=60)


def shared_memory(up: Up) -> set[Path]:
    """The files in memory that its processes have mapped, wherever they are."""
    maps = [Path(f"/proc/{pid}/maps").read_text() for pid in up.pids("headway_")]
    files = {line.split(maxsplit=5)[5] for text in maps for line in text.splitlines() if "/" in line}
    return {Path(name) for name in files if name.startswith((str(up.run_dir), "/dev/shm/"))}


@contextmanager
def upped(folder: Path) -> Iterator[Up]:
    add_model(folder / "models", "double", MODEL_TOML, DOUBLE)
    add_model(folder / "models", "patient", f"batch_delay_ms = {PATIENCE_S * 1000}{MODEL_TOML}", DOUBLE)
    add_model(folder / "models", "broken", MODEL_TOML, "import no_such_module")
    up = Up(folder)
    try:
        yield up
    finally:
        up.close()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    with upped(tmp_path_factory.mktemp("up")) as up:
        yield up


@pytest.fixture
def up(shared: Up) -> Up:
    """Every test begins with everything running."""
    shared.hear("ready: http://")
    until(lambda: shared.ready_copies("double") == 2, 30.0)
    return shared


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Up]:
    with upped(tmp_path) as up:
        yield up


def test_a_batch_waits_for_company_unless_all_who_ask_wait_for_an_answer(up: Up) -> None:
    """How long it takes tells which it was: without the delay some milliseconds, at least once in five."""
    until(lambda: up.ready_copies("patient") == 2, 30.0)
    with closing(HTTPConnection(up.http, timeout=20)) as connection:

        def took() -> float:
            begun = time.monotonic()
            connection.request("POST", "/predictions/patient", b'{"x": [1]}', JSON)
            assert json.load(connection.getresponse()) == {"y": [2]}
            return time.monotonic() - begun

        assert took() >= PATIENCE_S, "a newcomer may not be the last"
        time.sleep(21 * PATIENCE_S)
        assert min(took() for _ in range(5)) < PATIENCE_S
        with closing(HTTPConnection(up.http, timeout=20)) as another:
            another.request("POST", "/predictions/patient", b'{"x": [1]}', JSON)
            another.getresponse().read()
            assert took() >= PATIENCE_S, "the other one could ask again"


def test_up_serves_over_http_and_directly_and_says_when(up: Up) -> None:
    up.hear(f"ready: http://{up.http}")
    up.hear("double 1: ready")
    up.hear("broken 1: failed: ModuleNotFoundError: No module named 'no_such_module'")
    request = f"http://{up.http}/predictions/double"
    with urlopen(request, data=b'{"x": [1, 2, 3]}', timeout=20) as reply:
        assert json.load(reply) == {"y": [2, 4, 6]}

    direct = ["--run-dir", str(up.run_dir)]
    said = headway("infer", "double", "--json", "[4, 5]", *direct)
    assert (said.returncode, json.loads(said.stdout)) == (0, {"y": [8, 10]})
    said = headway("infer", "tripel", "--json", "[4, 5]", *direct)
    assert (said.returncode, said.stderr) == (1, "UnknownModel: there is no model 'tripel'\n")
    said = headway("infer", "broken", "--json", "[4, 5]", *direct)
    assert (said.returncode, said.stderr.count("\n")) == (75, 1)
    assert said.stderr.startswith("NotReady: ")

    said = headway("models", "--json", *direct)
    states = {model["name"]: model["state"] for model in json.loads(said.stdout)}
    assert states == {"double": "ready", "patient": "ready", "broken": "failed"}
    assert "no_such_module" in headway("models", *direct).stdout


def test_a_killed_worker_comes_back_and_costs_no_request(up: Up) -> None:
    heard = up.hear("double 1: ready, 2 of 2 copies")
    [w1] = up.pids("--name=w1")
    os.kill(w1, signal.SIGKILL)
    with Client(up.direct) as client:
        for _ in range(20):
            assert client.infer("double", ONE, timeout_s=20)["y"].tolist() == [2.0]
    heard = up.hear("w1 was killed by SIGKILL; starting it again in 0.25 s", heard)
    up.hear("double 1: ready, 2 of 2 copies", heard)
    assert up.pids("--name=w1") != [w1]


def test_a_killed_broker_comes_back_and_a_client_only_waits(up: Up) -> None:
    heard = len(up.said)
    with Client(up.direct) as client:
        client.infer("double", ONE, timeout_s=20)
        [broker] = up.pids("headway_broker")
        os.kill(broker, signal.SIGKILL)
        assert client.infer("double", ONE, timeout_s=20)["y"].tolist() == [2.0]
    up.hear("broker was killed by SIGKILL; starting it again", heard)


def test_a_second_up_in_the_same_run_directory_ends_and_harms_nothing(up: Up) -> None:
    second = Up(up.folder, workers=1)
    try:
        second.hear("broker ended with exit code 73 (LOCKED)")
        assert second.process.wait(15) == 73
        assert second.pids() == []
    finally:
        second.close()
    with Client(up.direct) as client:
        assert client.infer("double", ONE, timeout_s=20)["y"].tolist() == [2.0]


def test_ctrl_c_leaves_nothing(up: Up) -> None:
    assert len(up.pids("headway_")) >= 4
    mapped = shared_memory(up)
    assert mapped
    began = time.monotonic()
    assert up.end(signal.SIGINT) == 0
    assert time.monotonic() - began < 8
    assert up.pids() == []
    assert not up.run_dir.exists()
    assert [path for path in mapped if path.exists()] == []
    assert not any("killing it" in line for line in up.said)


def test_processes_end_when_up_itself_is_killed(own: Up) -> None:
    own.hear("ready: http://")
    own.process.kill()
    own.process.wait()
    until(lambda: own.pids() == [])


def test_what_cannot_work_is_said_in_one_line_before_anything_is_started(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    store = ["--model-store", str(tmp_path / "models")]
    run_dir = ["--run-dir", str(tmp_path / "run")]
    with socket.create_server(("127.0.0.1", 0)) as taken, closing(Ports(3)) as free:
        http, *others = (f"--{name}={address}" for name, address in zip(DOORS, free.addresses, strict=True))
        busy = f"127.0.0.1:{taken.getsockname()[1]}"
        for key, arguments in {
            "model_store": ["--model-store", str(tmp_path / "none"), *run_dir],
            "http": [*store, *run_dir, *others, "--http", busy],
            "management": [*store, *run_dir, http, *others, "--management", busy],
            "metrics": [*store, *run_dir, http, *others, "--metrics", busy],
            "run_dir": [*store, "--run-dir", "/" + "x" * 100],
        }.items():
            said = headway("up", *arguments)
            assert said.returncode == 78
            assert (said.stdout, said.stderr.count("\n")) == ("", 1)
            assert key in said.stderr
    assert not (tmp_path / "run").exists()


def test_ctrl_c_before_anything_is_ready_leaves_nothing(own: Up) -> None:
    own.hear("workers  2, device cpu")
    assert own.end(signal.SIGINT) == 0
    assert own.pids() == []
    assert not own.run_dir.exists()
