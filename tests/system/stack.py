"""The whole server as real processes, for the system tests.

`Stack` runs `headway up` on a store made for the test; `find` tells the processes of a room apart.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

import psutil

from headway import Client
from tests.system.ports import free_port

READY_S = 60.0

ECHO = '''
import time


class Model:
    """Doubles x, and takes a while."""

    def infer(self, x):
        time.sleep(0.02)
        return {"y": x * 2}
'''

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

[[outputs]]
name = "y"
dtype = "float32"
shape = [1]
"""


def write_model(store: Path, name: str, toml: str, code: str) -> None:
    folder = store / name / "1"
    folder.mkdir(parents=True)
    (folder / "model.py").write_text(code)
    (folder / "model.toml").write_text(toml)


def wait_until(true: Callable[[], bool], seconds: float, what: str) -> None:
    """Raises: AssertionError when it does not become true in time."""
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, f"{what}: not within {seconds} s"
        time.sleep(0.05)


class Stack:
    """A running server. As a context manager it is stopped, and checked to have left nothing."""

    def __init__(self, store: Path, workers: int = 2) -> None:
        # Not under tmp_path: an ipc path has at most 107 characters.
        self.run_dir = Path(tempfile.mkdtemp(prefix="hw-")) / "run"
        self.address = f"ipc://{self.run_dir}/broker.sock"
        self.http = f"127.0.0.1:{free_port()}"
        self.url = f"http://{self.http}"
        where = ["--http", self.http, "--run-dir", str(self.run_dir), "--workers", str(workers)]
        command = [sys.executable, "-m", "headway", "up", "--model-store", str(store), *where]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.output: list[str] = []

    def __enter__(self) -> Stack:
        assert self.process.stdout
        for line in self.process.stdout:
            self.output.append(line)
            if line.startswith("ready:"):
                break
        else:
            raise AssertionError("the server ended:\n" + "".join(self.output))
        self._drain()
        return self

    def _drain(self) -> None:
        self._reader = threading.Thread(target=self.output.extend, args=(self.process.stdout,), daemon=True)
        self._reader.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        family = self.family()
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(20)
        finally:
            for process in family:
                if process.is_running():
                    process.kill()
        self._reader.join(5)
        if kind is None:
            assert self.process.returncode == 0, "".join(self.output)
            assert not self.run_dir.exists(), list(self.run_dir.iterdir())
            assert not list(Path("/dev/shm").glob(f"*{self.run_dir.parent.name}*"))
        os.rmdir(self.run_dir.parent)

    def family(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def find(self, room: str) -> list[psutil.Process]:
        """The processes of `headway_broker`, `headway_worker` or `headway_gateway`, oldest first."""
        found = [p for p in self.family() if room in " ".join(p.cmdline())]
        return sorted(found, key=lambda process: process.create_time())

    def ready_copies(self, model: str) -> int:
        with Client(self.address, timeout_s=5.0) as client:
            return sum(m["ready"] for m in client.models() if m["name"] == model)
