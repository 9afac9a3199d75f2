"""Large tensors through the whole server, in shared memory and without it; real processes, real kills."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest

from headway import Body, Client
from headway.errors import InvalidInput
from headway.outgoing import Asked
from headway.shm import sweep
from tests.system.stack import Up, add_model, serving, until

pytestmark = pytest.mark.system

SHAPE = (3, 224, 224)  # 602,112 bytes
READY_S = 30.0

DOUBLE = """
class Model:
    def infer(self, x):
        return {"y": x * 2}

    def preprocess(self, request):
        import numpy as np
        return {"x": np.frombuffer(request.body, np.float32).reshape(3, 224, 224)}

    def postprocess(self, outputs, request):
        from headway.body import Body
        import numpy as np
        return Body(np.asarray(outputs["y"]).tobytes(), "application/octet-stream")
"""

TOML = """
backend = "python"
batch_size_max = 8
copies = 2
queue_size_max = 5000
response_timeout_s = 10

[[inputs]]
name = "x"
dtype = "float32"
shape = [3, 224, 224]
"""

CALLER = """
import sys
import numpy as np
from headway import Client
with Client(sys.argv[1]) as client:
    x = np.ones((3, 224, 224), np.float32)
    client.infer("double", {"x": x})
    print("busy", flush=True)
    while True:
        for future in [client.submit("double", {"x": x}) for _ in range(16)]:
            future.result()
"""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    folder = tmp_path_factory.mktemp("up")
    add_model(folder / "models", "double", TOML, DOUBLE)
    with serving(folder) as up:
        yield up
    assert segments(up) == [], "the gateway left its segment"


@pytest.fixture
def up(running: Up) -> Up:
    until(lambda: running.ready_copies("double") == 2, READY_S)
    return running


def segments(up: Up) -> list[Path]:
    return list((up.run_dir / "segments").glob("*"))


def image(value: float) -> np.ndarray:
    return np.full(SHAPE, value, np.float32)


@pytest.mark.parametrize("shm_bytes", [64 << 20, 2 << 20, 0], ids=["roomy", "tight", "off"])
def test_direct_requests_are_answered_right(up: Up, shm_bytes: int) -> None:
    with Client(up.direct, timeout_s=30.0, shm_bytes=shm_bytes) as client:
        for _ in range(3):  # from the second on, replies come in slots too
            futures = [client.submit("double", {"x": image(i)}) for i in range(40)]
            for i, future in enumerate(futures):
                y = future.result()["y"]
                assert y.shape == SHAPE and (y == 2 * i).all()
        if shm_bytes:
            until(lambda: client.lender.taken == 0)
            assert len(client.lender.reply_bytes) == 1


def test_answers_stay_what_they_were_when_slots_are_used_again(up: Up) -> None:
    with Client(up.direct, timeout_s=30.0, shm_bytes=4 << 20) as client:
        answers = [client.infer("double", {"x": image(i)})["y"] for i in range(20)]
    assert [float(answer.max()) for answer in answers] == [2.0 * i for i in range(20)]
    assert [float(answer.min()) for answer in answers] == [2.0 * i for i in range(20)]


def test_an_array_made_in_shared_memory_is_read_where_it_is(up: Up) -> None:
    with Client(up.direct, timeout_s=30.0) as client:
        x = client.empty(SHAPE, np.float32)
        for i in range(5):
            x[:] = i
            assert (client.infer("double", {"x": x})["y"] == 2 * i).all()
        assert client.lender.taken == 1


def test_raw_bodies_go_and_come_through_slots(up: Up) -> None:
    with Client(up.direct, timeout_s=30.0) as client:
        for i in range(3):
            body = client.predict("double", Body(image(i).tobytes()))
            assert (np.frombuffer(body.data, np.float32) == 2 * i).all()


def post_tensor(client: httpx.Client, value: float) -> np.ndarray:
    head = (
        b'{"inputs":[{"name":"x","shape":[1,3,224,224],"datatype":"FP32","parameters":'
        b'{"binary_data_size":602112}}],"parameters":{"binary_data_output":true}}'
    )
    answer = client.post(
        "/v2/models/double/infer",
        content=head + image(value).tobytes(),
        headers={"Inference-Header-Content-Length": str(len(head))},
    )
    assert answer.status_code == 200, answer.text
    tail = answer.content[int(answer.headers["Inference-Header-Content-Length"]) :]
    return np.frombuffer(tail, np.float32)


def test_http_bodies_are_answered_right_many_at_a_time(up: Up) -> None:
    with httpx.Client(base_url=f"http://{up.http}", timeout=30.0) as client, ThreadPoolExecutor(8) as pool:
        answers = pool.map(lambda i: post_tensor(client, i), range(64))
        assert all((answer == 2 * i).all() for i, answer in enumerate(answers))
        raw = client.post("/predictions/double", content=image(4).tobytes())
        assert (np.frombuffer(raw.content, np.float32) == 8).all()
    assert len(segments(up)) == 1


def test_a_worker_killed_under_load_costs_no_answer_and_no_slot(up: Up) -> None:
    with Client(up.direct, timeout_s=60.0, shm_bytes=32 << 20) as client:
        client.infer("double", {"x": image(0)})
        futures = [client.submit("double", {"x": image(i)}) for i in range(100)]
        os.kill(max(up.pids("headway_worker")), signal.SIGKILL)
        futures += [client.submit("double", {"x": image(i)}) for i in range(100, 200)]
        for i, future in enumerate(futures):
            assert (future.result()["y"] == 2 * i).all()
        until(lambda: client.lender.taken == 0)


def test_a_caller_killed_under_load_leaves_nothing(up: Up) -> None:
    before = set(segments(up))
    caller = subprocess.Popen([sys.executable, "-c", CALLER, up.direct], stdout=subprocess.PIPE, text=True)
    assert caller.stdout and caller.stdout.readline() == "busy\n"
    assert len(set(segments(up)) - before) == 1
    caller.kill()
    caller.communicate()
    with Client(up.direct, timeout_s=30.0) as client:  # the server goes on; the client's start sweeps
        assert (client.infer("double", {"x": image(3)})["y"] == 6).all()
    assert set(segments(up)) <= before
    assert sweep(up.run_dir / "segments") == 0


def test_a_cancelled_request_gives_its_slot_back(up: Up) -> None:
    with Client(up.direct, timeout_s=30.0) as client:
        client.infer("double", {"x": image(0)})
        futures = [client.submit("double", {"x": image(i)}) for i in range(30)]
        for future in futures[::2]:
            future.cancel()
        for i, future in list(enumerate(futures))[1::2]:
            assert (future.result()["y"] == 2 * i).all()
        until(lambda: client.lender.taken == 0)


def test_a_bad_reference_is_refused_for_that_request_alone(up: Up) -> None:
    with Client(up.direct, timeout_s=30.0) as client:
        good = client.submit("double", {"x": image(1)})
        for ref in (["../x", 0, 1, 64, 5], ["1-0123456789abcdef.seg", 0, 1, 64, 5], "x", [1]):
            with pytest.raises(InvalidInput, match="shared memory"):
                client._submit(Asked("double", "", 0, {"slot": ref}, b""), 5.0, raised).result()
        assert (good.result()["y"] == 2).all()


def raised(outcome: object) -> object:
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def test_threads_share_one_clients_memory(up: Up) -> None:
    wrong: list[int] = []

    def work(client: Client, value: int) -> None:
        for _ in range(10):
            if not (client.infer("double", {"x": image(value)})["y"] == 2 * value).all():
                wrong.append(value)

    with Client(up.direct, timeout_s=60.0, shm_bytes=8 << 20) as client:
        threads = [threading.Thread(target=work, args=(client, i)) for i in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []
