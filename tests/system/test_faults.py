"""What callers see when a process is killed while their requests run: real processes, real kills."""

from __future__ import annotations

import json
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from http.client import HTTPConnection, HTTPException, IncompleteRead, RemoteDisconnected

import httpx
import numpy as np
import pytest

from headway import Body, Client, HeadwayError, Step
from tests.system.stack import Up, add_model, serving, until

pytestmark = pytest.mark.system

REQUESTS = 1500
CONNECTIONS = 16
JSON = {"Content-Type": "application/json"}
CLOSED = (ConnectionResetError, ConnectionRefusedError, BrokenPipeError)
READY_S = 30.0

ECHO = """
import time


class Model:
    def infer(self, x):
        time.sleep(0.02)
        return {"y": x * 2}
"""

ECHO_TOML = """
backend = "python"
batch_size_max = 8
copies = 2
queue_size_max = 5000
response_timeout_s = 10

[[inputs]]
name = "x"
dtype = "float32"
shape = [1]
"""


SLOW = ECHO.replace("0.02", "1.5")
SLOW_TOML = ECHO_TOML.replace("copies = 2", "copies = 1").replace("batch_size_max = 8", "batch_size_max = 1")


# Keeps what each sequence said, and answers with all of it and with who it is.
STEPS = """
import os

import numpy as np


class Model:
    def load(self, folder, device):
        self.said = {}

    def preprocess(self, request):
        step = request.step
        before = [] if step.starts else self.said[step.sequence]
        request.state["said"] = [*before, request.text()]
        return {"x": np.float32([len(before)])}

    def infer(self, x):
        return {"y": x}

    def postprocess(self, outputs, request):
        self.said[request.step.sequence] = request.state["said"]
        return f"{os.getpid()} {' '.join(request.state['said'])}"
"""
STEPS_TOML = ECHO_TOML.replace(
    "queue_size_max = 5000", "sequences_max = 50\nsequence_queue_max = 50"
).replace("copies = 2", "copies = 2\ndecode_ahead = true")
NAMES = [f"s{i}" for i in range(6)]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    folder = tmp_path_factory.mktemp("up")
    add_model(folder / "models", "echo", ECHO_TOML, ECHO)
    add_model(folder / "models", "slow", SLOW_TOML, SLOW)
    add_model(folder / "models", "steps", STEPS_TOML, STEPS)
    with serving(folder) as up:
        yield up


@pytest.fixture
def up(running: Up) -> Up:
    """Every test begins with everything running."""
    until(lambda: running.ready_copies("echo") == 2, READY_S)
    return running


def counted(up: Up, outcome: str) -> int:
    with Client(up.direct) as client:
        return sum(model["outcomes"].get(outcome, 0) for model in client.stats()["models"])


def ask_directly(up: Up, kill: Callable[[], None]) -> list[float]:
    """REQUESTS requests in flight together; a third in, somebody is killed."""
    with Client(up.direct, timeout_s=30.0) as client:
        futures = [client.submit("echo", {"x": np.float32([i])}) for i in range(REQUESTS // 3)]
        time.sleep(0.3)
        kill()
        futures += [client.submit("echo", {"x": np.float32([i])}) for i in range(REQUESTS // 3, REQUESTS)]
        return [float(future.result()["y"][0]) for future in futures]


def ask_over_http(up: Up, kill: Callable[[], None]) -> list[object]:
    """The same over HTTP, from CONNECTIONS threads; an exception stands for its request's answer."""
    answers: list[object] = [None] * REQUESTS
    numbers = iter(range(REQUESTS))

    def caller() -> None:
        with closing(HTTPConnection(up.http, timeout=60.0)) as connection:
            for i in numbers:
                if i == REQUESTS // 3:
                    kill()
                answers[i] = asked(connection, i)

    with ThreadPoolExecutor(CONNECTIONS) as pool:
        for done in [pool.submit(caller) for _ in range(CONNECTIONS)]:
            done.result()
    return answers


def asked(connection: HTTPConnection, number: int) -> object:
    """The answer, or the status that stands for none, or the error of a connection that was closed."""
    tensor = {"name": "x", "shape": [1, 1], "datatype": "FP32", "data": [number]}
    try:
        connection.request("POST", "/v2/models/echo/infer", json.dumps({"inputs": [tensor]}), JSON)
        reply = connection.getresponse()
        said = reply.read()
    except (OSError, HTTPException) as error:
        connection.close()  # the next request opens it again
        return error
    return json.loads(said)["outputs"][0]["data"][0] if reply.status == 200 else reply.status


def kill_one(up: Up, room: str) -> Callable[[], None]:
    def kill() -> None:
        os.kill(max(up.pids(room)), signal.SIGKILL)

    return kill


def test_a_worker_killed_under_direct_load_loses_no_request(up: Up) -> None:
    before = counted(up, "ok")
    answers = ask_directly(up, kill_one(up, "headway_worker"))
    assert answers == [2.0 * i for i in range(REQUESTS)]
    assert counted(up, "ok") - before == REQUESTS, "the broker answered a request twice"


def test_a_worker_killed_under_http_load_loses_no_request(up: Up) -> None:
    before = counted(up, "ok")
    answers = ask_over_http(up, kill_one(up, "headway_worker"))
    assert answers == [2.0 * i for i in range(REQUESTS)]
    assert counted(up, "ok") - before == REQUESTS, "the broker answered a request twice"


def test_a_broker_killed_under_direct_load_is_a_pause(up: Up) -> None:
    assert ask_directly(up, kill_one(up, "headway_broker")) == [2.0 * i for i in range(REQUESTS)]


def test_a_broker_killed_under_http_load_is_a_pause(up: Up) -> None:
    answers = ask_over_http(up, kill_one(up, "headway_broker"))
    assert answers == [2.0 * i for i in range(REQUESTS)]


def test_a_gateway_killed_under_load_closes_its_connections_and_comes_back(up: Up) -> None:
    """Nobody hangs: each request is answered, or its connection is closed; and the next ones are served."""
    answers = ask_over_http(up, kill_one(up, "headway_gateway"))
    cut = [answer for answer in answers if isinstance(answer, Exception)]
    kinds = Counter(type(error) for error in cut)
    assert set(kinds) <= {RemoteDisconnected, IncompleteRead, *CLOSED}, kinds
    assert all(answer == 2.0 * i for i, answer in enumerate(answers) if not isinstance(answer, Exception))
    until(lambda: answers_ping(up), 20.0)


def answers_ping(up: Up) -> bool:
    try:
        return httpx.get(f"http://{up.http}/ping", timeout=5.0).status_code == 200
    except httpx.TransportError:
        return False


def test_an_http_client_that_leaves_takes_its_request_out_of_the_queue(up: Up) -> None:
    until(lambda: up.ready_copies("slow") == 1, READY_S)
    before = counted(up, "Cancelled")
    with Client(up.direct) as client:
        running = [client.submit("slow", {"x": np.float32([1])}) for _ in range(2)]
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"http://{up.http}/predictions/slow", json=[1], timeout=0.3)
        until(lambda: counted(up, "Cancelled") == before + 1, 1.0)
        assert not running[1].done(), "it was still queued behind these"
        assert [float(future.result()["y"][0]) for future in running] == [2.0, 2.0]


def test_the_log_names_who_was_killed_and_by_what(up: Up) -> None:
    heard = len(up.said)
    kill_one(up, "headway_worker")()
    up.hear("was killed by SIGKILL", heard)
    up.hear("worker lost", heard)


def test_metrics_tell_what_happened(up: Up) -> None:
    with Client(up.direct) as client:
        client.infer("echo", {"x": np.float32([1])})
    text = httpx.get(f"http://{up.metrics}/metrics").text
    for line in (
        'headway_requests_total{model="echo",outcome="ok",version="1"}',
        'headway_request_seconds_bucket{le="0.05",model="echo",stage="compute",version="1"}',
        'headway_queue_requests{model="echo",version="1"} 0.0',
        'headway_batch_rows_count{model="echo",version="1"}',
        'headway_copies_ready{model="echo",version="1"} 2.0',
    ):
        assert line in text


def steps(client: Client, numbers: range) -> dict[str, list[str]]:
    """Steps of all sequences in turns, asked for without waiting: the answers of each. 0 starts one."""
    asked: dict[str, list[Future[Body]]] = {name: [] for name in NAMES}
    for number in numbers:
        for name in NAMES:
            step = Step(name, starts=number == 0)
            asked[name].append(client.submit("steps", Body(str(number).encode()), step=step))
    return {name: [said(future) for future in futures] for name, futures in asked.items()}


def said(future: Future[Body]) -> str:
    try:
        return future.result().text()
    except HeadwayError as error:
        return type(error).__name__


def all_up_to(last: int) -> list[str]:
    return [" ".join(map(str, range(number + 1))) for number in range(last + 1)]


def test_sequences_stay_with_their_workers_and_are_lost_with_them(up: Up) -> None:
    until(lambda: up.ready_copies("steps") == 2, READY_S)
    with Client(up.direct, timeout_s=30.0) as client:
        first = steps(client, range(8))
        homes = {name: {answer.split()[0] for answer in answers} for name, answers in first.items()}
        assert all(len(home) == 1 for home in homes.values()), "a sequence was in two workers"
        pids = set().union(*homes.values())
        assert len(pids) == 2, "all were in one worker"
        assert {tuple(a.partition(" ")[2] for a in answers) for answers in first.values()} == {
            tuple(all_up_to(7))
        }
        killed = min(pids)
        os.kill(int(killed), signal.SIGKILL)
        second = steps(client, range(8, 11))
        for name, answers in second.items():
            if homes[name] == {killed}:
                assert set(answers) <= {"WorkerLost", "NoSequence"}
            else:
                assert [answer.partition(" ")[2] for answer in answers] == all_up_to(10)[8:]
        again = steps(client, range(2))
        assert {answers[1].partition(" ")[2] for answers in again.values()} == {"0 1"}, "all begin anew"


def test_a_new_broker_takes_up_no_sequence_that_it_does_not_know(up: Up) -> None:
    until(lambda: up.ready_copies("steps") == 2, READY_S)
    with Client(up.direct, timeout_s=30.0) as client:
        steps(client, range(2))
        kill_one(up, "headway_broker")()
        after = steps(client, range(2, 4))
        assert {answer for answers in after.values() for answer in answers} <= {"WorkerLost", "NoSequence"}
        again = steps(client, range(2))
        assert {answers[1].partition(" ")[2] for answers in again.values()} == {"0 1"}
