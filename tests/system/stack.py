"""The whole server as real processes, for the system tests."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from headway import Client
from tests.ports import Ports

HEADWAY = [sys.executable, "-m", "headway"]
READY_TIMEOUT_S = 60.0  # two processes import torch


def add_model(store: Path, name: str, toml: str, code: str, version: str = "1") -> None:
    folder = store / name / version
    folder.mkdir(parents=True)
    (folder / "model.py").write_text(code)
    (folder / "model.toml").write_text(toml)  # last: now it is complete


class Up:
    """One `headway up` with `more` options. `said`: what it printed so far, its processes' logs included."""

    def __init__(self, folder: Path, *more: str, workers: int = 2) -> None:
        self.folder = folder
        self.run_dir = folder / "run"
        self.direct = f"ipc://{self.run_dir}/broker.sock"
        self._ports = Ports(3)
        self.http, self.management, self.metrics = self._ports.addresses
        options = ["--model-store", folder / "models", "--workers", workers, "--device", "cpu", *more]
        options += ["--http", self.http, "--management", self.management, "--metrics", self.metrics]
        options += ["--run-dir", self.run_dir]
        self._mark = f"TESTED_UP={secrets.token_hex(8)}"  # `pids` finds its processes by it
        self.process = subprocess.Popen(
            [*HEADWAY, "up", *map(str, options)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            env={**os.environ, **dict([self._mark.split("=")])},
        )
        self.said: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout
        with self.process.stdout as lines:
            for line in lines:
                self.said.append(line.rstrip())

    def hear(self, text: str, after: int = 0) -> int:
        """Wait for a line with `text` in it; returns how many lines there are up to it."""

        def heard() -> int:
            return next((i for i, line in enumerate(self.said[after:], after + 1) if text in line), 0)

        until(lambda: bool(heard()) or self.process.poll() is not None, READY_TIMEOUT_S)
        assert heard(), "\n".join(self.said)
        return heard()

    def pids(self, word: str = "") -> list[int]:
        """The living processes of this `up`, itself among them, with `word` in their command line; also those
        that an agent started, which have sessions of their own."""
        found = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()]
        return [pid for pid in found if self._mark in environment_of(pid) and word in command_of(pid)]

    def ready_copies(self, model: str) -> int:
        with Client(self.direct, timeout_s=5.0, shm_bytes=0) as client:
            return sum(m["ready"] for m in client.models(timeout_s=20.0) if m["name"] == model)

    def kill_worker_of(self, model: str) -> None:
        """Those that have it. The others live: one of them loads it, and nobody waits for a process to
        start."""
        with Client(self.direct, timeout_s=5.0, shm_bytes=0) as client:
            pids = {worker["name"]: worker["pid"] for worker in client.stats()["workers"]}
            found = [copy for m in client.models() if m["name"] == model for copy in m["copies"]]
        for copy in found:
            os.kill(pids[copy["worker"]], signal.SIGKILL)

    def end(self, number: int) -> int:
        self.process.send_signal(number)
        code = self.process.wait(15)
        self._reader.join()
        return code

    def close(self) -> None:
        for pid in self.pids():
            os.kill(pid, signal.SIGKILL)
        self.process.wait()
        self._reader.join()
        self._ports.close()


@contextmanager
def serving(folder: Path, workers: int = 2) -> Iterator[Up]:
    """An `Up` on the models in `folder`, stopped afterwards and checked to have left no process."""
    up = Up(folder, workers=workers)
    try:
        up.hear("ready: http://")
        yield up
        assert up.end(signal.SIGINT) == 0
        assert up.pids() == []
    finally:
        up.close()


def environment_of(pid: int) -> list[str]:
    """Of a living process: that of a dead one, and a kernel thread's, is empty."""
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace").split("\0")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return []


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def until(true: Callable[[], bool], timeout_s: float = 15.0) -> None:
    give_up = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < give_up
        time.sleep(0.05)
