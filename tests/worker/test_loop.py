"""The worker's loop: real worker processes with a real model, a real broker, and signals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest

from headway import Client
from headway.exits import Exit

pytestmark = pytest.mark.system

WAIT_S = 30.0  # importing torch takes seconds on a busy machine
TOML = """
backend = "python"
response_timeout_s = {response_timeout_s}
copies = {copies}
inputs = [{{name = "x", dtype = "float32", shape = [1], warmup_shape = [1]}}]
outputs = [{{name = "y", dtype = "float32", shape = [1]}}]
"""
# Sleeps for as many seconds as it is told, twice that is the answer, and tells of itself in a file. The first
# FAULT breaks the device, as CUDA and torch would say it.
FAULT = 700.0
MODEL = """
import os, time, torch
from pathlib import Path
FAULT = 700.0

class Model:
    def load(self, folder, device):
        self.folder = Path(folder)

    def infer(self, x):
        (self.folder / f"runs-in-{os.getpid()}").touch()
        if x.max() == FAULT and not (self.folder / "faulted").exists():
            (self.folder / "faulted").touch()
            fault = torch.AcceleratorError("CUDA error: an illegal memory access was encountered\\n...")
            fault.error_code = 700
            raise fault
        time.sleep(float(x.max()) if x.max() < 100 else 0)
        return x * 2

"""


class Host:
    """A broker and workers, as processes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.model = folder / "models" / "m" / "1"
        self.model.mkdir(parents=True)
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(
        self, workers: int = 1, response_timeout_s: float = 60.0, more: str = ""
    ) -> list[subprocess.Popen[bytes]]:
        """Start everything, and wait until every worker has the model."""
        (self.model / "model.py").write_text(MODEL + more)
        toml = TOML.format(copies=workers, response_timeout_s=response_timeout_s)
        (self.model / "model.toml").write_text(toml)
        self.spawn("headway_broker", "--model-store", str(self.folder / "models"))
        started = [self.spawn("headway_worker", "--device", "cpu", "--threads", "1") for _ in range(workers)]
        self.client = Client(f"ipc://{self.folder}/broker.sock", timeout_s=WAIT_S)
        until(lambda: self.client.models()[0]["ready"] == workers)
        for file in self.model.glob("runs-in-*"):
            file.unlink()
        return started

    def spawn(self, module: str, *options: str) -> subprocess.Popen[bytes]:
        log = (self.folder / f"{module}-{len(self.processes)}.log").open("wb")
        path = ":".join(str(Path(p).absolute()) for p in sys.path if p)
        process = subprocess.Popen(
            [sys.executable, "-m", module, "--run-dir", str(self.folder), *options],
            env={**os.environ, "PYTHONPATH": path},
            stderr=log,
        )
        log.close()
        self.processes.append(process)
        return process

    def said(self, module: str) -> str:
        """What all processes of this kind have logged."""
        return "".join(file.read_text() for file in sorted(self.folder.glob(f"{module}-*.log")))

    def running(self) -> list[int]:
        """The workers in which the model ran, by pid."""
        return [int(file.name.rsplit("-", 1)[1]) for file in self.model.glob("runs-in-*")]

    def close(self) -> None:
        if hasattr(self, "client"):
            self.client.close()
        for process in reversed(self.processes):
            process.kill()
            process.wait()
        print(self.said("headway_*"))  # shown when a test fails


def until(true: Callable[[], object]) -> None:
    end = time.monotonic() + WAIT_S
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def x(seconds: float) -> dict[str, np.ndarray]:
    return {"x": np.array([seconds], np.float32)}


@pytest.fixture
def host() -> Iterator[Host]:
    with TemporaryDirectory(prefix="hw-") as folder:  # short: an `ipc` path has 107 characters
        made = Host(Path(folder))
        try:
            yield made
        finally:
            made.close()


def test_a_worker_told_to_stop_answers_what_it_has_and_exits_with_0(host: Host) -> None:
    [worker] = host.start()
    answer = host.client.submit("m", x(0.5))
    until(host.running)
    worker.send_signal(signal.SIGTERM)
    assert answer.result(WAIT_S)["y"] == 1.0
    assert worker.wait(WAIT_S) == Exit.OK


def test_a_worker_with_nothing_to_do_that_is_told_to_stop_is_gone_at_once(host: Host) -> None:
    [worker] = host.start()
    started = time.monotonic()
    worker.send_signal(signal.SIGINT)
    assert worker.wait(WAIT_S) == Exit.OK
    assert time.monotonic() - started < 5.0
    until(lambda: not host.client.stats()["workers"])


def test_what_a_model_does_at_the_end_of_its_process_is_done(host: Host) -> None:
    said = host.folder / "said"
    more = f"""
import atexit, threading, time
atexit.register(lambda: Path({str(said)!r}).write_text("the end"))
threading.Thread(target=time.sleep, args=[600]).start()
"""
    [worker] = host.start(more=more)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(WAIT_S) == Exit.OK, "and a thread that does not end is not waited for"
    assert said.read_text() == "the end"


def test_the_request_of_a_worker_that_was_killed_is_answered_by_another(host: Host) -> None:
    workers = host.start(workers=2)
    answer = host.client.submit("m", x(0.5))
    until(host.running)
    [pid] = host.running()
    os.kill(pid, signal.SIGKILL)
    assert answer.result(WAIT_S)["y"] == 1.0
    [other] = [worker.pid for worker in workers if worker.pid != pid]
    assert set(host.running()) == {pid, other}


def test_a_worker_whose_model_is_stuck_is_given_up_and_exits_as_stuck(host: Host) -> None:
    [worker] = host.start(response_timeout_s=1.0)
    host.client.submit("m", x(60))
    assert worker.wait(WAIT_S) == Exit.STUCK
    assert host.client.stats()["workers"] == []


def test_workers_join_a_new_broker_with_the_copies_they_have(host: Host) -> None:
    host.start()
    broker = host.processes[0]
    broker.kill()
    broker.wait()
    host.spawn("headway_broker", "--model-store", str(host.folder / "models"))
    assert host.client.infer("m", x(0.0))["y"] == 0.0
    assert host.client.models()[0]["ready"] == 1


def test_what_a_stuck_worker_ends_with_is_said_by_whoever_knows_its_device() -> None:
    code = """
import threading
from headway.exits import Exit
from headway_worker.exchange import Exchange
from headway_worker.loop import Loop
from headway_worker.session import About, Leaving, Session

exchange = Exchange(Session(About("w", "h", 1, "cpu")), "ipc:///nobody", b"w.1")
loop = Loop(exchange, lambda: Exit.DEVICE_FAULT)
loop.exchange.open(None)
loop._end(Leaving("its time is over", stuck=True), None, threading.current_thread())
"""
    path = ":".join(path for path in sys.path if path)
    ended = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path}, timeout=WAIT_S
    )
    assert ended.returncode == Exit.DEVICE_FAULT


def test_a_worker_whose_device_broke_ends_at_once_and_others_answer_what_it_had(host: Host) -> None:
    workers = host.start(workers=2)
    answers = [host.client.submit("m", x(seconds)) for seconds in (FAULT, 0.0, 0.25)]
    assert [answer.result(WAIT_S)["y"].item() for answer in answers] == [2 * FAULT, 0.0, 0.5]
    until(lambda: any(worker.poll() is not None for worker in workers))
    [ended] = [worker for worker in workers if worker.poll() is not None]
    assert ended.wait() == Exit.DEVICE_FAULT
    until(
        lambda: [w["pid"] for w in host.client.stats()["workers"]] == [w.pid for w in workers if w != ended]
    )
    said = host.said("headway_worker")
    assert "ERROR headway.worker the device is broken, the worker ends" in said
    assert 'reason="CUDA error: an illegal memory access was encountered" code=DEVICE_FAULT' in said


def test_a_device_that_breaks_while_a_model_is_loaded_ends_the_worker(host: Host) -> None:
    host.start()
    other = host.model.with_name("2")
    other.mkdir()
    code = "import torch\nclass Model:\n    def load(self, folder, device):\n"
    (other / "model.py").write_text(
        f"{code}        raise torch.AcceleratorError('CUDA error: unknown error')\n"
    )
    (other / "model.toml").write_text(TOML.format(copies=1, response_timeout_s=9))
    broker, worker = host.processes
    broker.kill()
    broker.wait()
    host.spawn("headway_broker", "--model-store", str(host.folder / "models"))
    assert worker.wait(WAIT_S) == Exit.DEVICE_FAULT
