"""What callers see when a process is killed while their requests run: real processes, real kills."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator

import httpx
import numpy as np
import pytest

from headway import Client
from tests.system.stack import ECHO, ECHO_TOML, Stack, wait_until, write_model

pytestmark = pytest.mark.system

REQUESTS = 1500
CONNECTIONS = 16


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    store = tmp_path_factory.mktemp("store")
    write_model(store, "echo", ECHO_TOML, ECHO)
    with Stack(store) as running:
        wait_until(lambda: running.ready_copies("echo") == 2, 30, "two copies")
        yield running


@pytest.fixture(autouse=True)
def whole(stack: Stack) -> None:
    """Every test begins with everything running."""
    wait_until(lambda: stack.ready_copies("echo") == 2, 30, "two copies")


def ok_counted(stack: Stack) -> int:
    with Client(stack.address) as client:
        return sum(model["outcomes"].get("ok", 0) for model in client.stats()["models"])


def ask_directly(stack: Stack, kill: Callable[[], None]) -> list[float]:
    """REQUESTS requests in flight together; a third in, somebody is killed."""
    with Client(stack.address, timeout_s=30.0) as client:
        futures = [client.submit("echo", {"x": np.float32([i])}) for i in range(REQUESTS // 3)]
        time.sleep(0.3)
        kill()
        futures += [client.submit("echo", {"x": np.float32([i])}) for i in range(REQUESTS // 3, REQUESTS)]
        return [float(future.result()["y"][0]) for future in futures]


async def ask_over_http(stack: Stack, kill: Callable[[], None]) -> list[object]:
    """The same over HTTP; an exception stands for its request's answer."""
    limits = httpx.Limits(max_connections=CONNECTIONS)
    async with httpx.AsyncClient(base_url=stack.url, limits=limits, timeout=60.0) as client:
        turn = asyncio.Semaphore(CONNECTIONS)

        async def ask(i: int) -> object:
            tensor = {"name": "x", "shape": [1, 1], "datatype": "FP32", "data": [i]}
            async with turn:
                if i == REQUESTS // 3:
                    kill()
                answer = await client.post("/v2/models/echo/infer", json={"inputs": [tensor]})
            return answer.json()["outputs"][0]["data"][0] if answer.status_code == 200 else answer.status_code

        return list(await asyncio.gather(*map(ask, range(REQUESTS)), return_exceptions=True))


def kill_one(stack: Stack, room: str) -> Callable[[], None]:
    def kill() -> None:
        os.kill(stack.find(room)[-1].pid, signal.SIGKILL)

    return kill


def test_a_worker_killed_under_direct_load_loses_no_request(stack: Stack) -> None:
    before = ok_counted(stack)
    answers = ask_directly(stack, kill_one(stack, "headway_worker"))
    assert answers == [2.0 * i for i in range(REQUESTS)]
    assert ok_counted(stack) - before == REQUESTS, "the broker answered a request twice"


def test_a_worker_killed_under_http_load_loses_no_request(stack: Stack) -> None:
    before = ok_counted(stack)
    answers = asyncio.run(ask_over_http(stack, kill_one(stack, "headway_worker")))
    assert answers == [2.0 * i for i in range(REQUESTS)]
    assert ok_counted(stack) - before == REQUESTS, "the broker answered a request twice"


def test_a_broker_killed_under_direct_load_is_a_pause(stack: Stack) -> None:
    assert ask_directly(stack, kill_one(stack, "headway_broker")) == [2.0 * i for i in range(REQUESTS)]


def test_a_broker_killed_under_http_load_is_a_pause(stack: Stack) -> None:
    answers = asyncio.run(ask_over_http(stack, kill_one(stack, "headway_broker")))
    assert answers == [2.0 * i for i in range(REQUESTS)]


def test_a_gateway_killed_under_load_closes_its_connections_and_comes_back(stack: Stack) -> None:
    """Nobody hangs: each request is answered, or its connection is closed; and the next ones are served."""
    answers = asyncio.run(ask_over_http(stack, kill_one(stack, "headway_gateway")))
    cut = [answer for answer in answers if isinstance(answer, Exception)]
    kinds = Counter(type(error) for error in cut)
    assert set(kinds) <= {httpx.RemoteProtocolError, httpx.ReadError, httpx.ConnectError}, kinds
    assert all(answer == 2.0 * i for i, answer in enumerate(answers) if not isinstance(answer, Exception))
    wait_until(lambda: _is_up(stack), 20, "the gateway answers again")


def _is_up(stack: Stack) -> bool:
    try:
        return httpx.get(stack.url + "/ping", timeout=5.0).status_code == 200
    except httpx.TransportError:
        return False


def test_the_log_names_who_was_killed_and_by_what(stack: Stack) -> None:
    kill_one(stack, "headway_worker")()
    wait_until(lambda: "SIGKILL" in "".join(stack.output), 10, "the reason in the log")
    wait_until(lambda: "worker lost" in "".join(stack.output), 10, "the broker's word in the log")
