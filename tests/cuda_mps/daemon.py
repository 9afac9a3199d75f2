"""The stand-in daemon as a test's own, and the processes that are its clients."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from headway_worker.cuda_mps import Control

PROGRAMS = Path(__file__).parent
PROGRAM = PROGRAMS / "nvidia-cuda-mps-control"
# Ignores SIGTERM, as a process does that is stuck inside the driver.
STUCK = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("on", flush=True)
time.sleep(300)
"""


def until(true: Callable[[], object], timeout_s: float = 10.0) -> None:
    end = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


class Daemon:
    """`start` it; `stop` ends it and all clients."""

    def __init__(self, pipe_dir: Path) -> None:
        self.pipe_dir = pipe_dir
        self.control = Control(pipe_dir, PROGRAM, timeout_s=5.0)
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        self.pipe_dir.mkdir(parents=True, exist_ok=True)
        environment = {**os.environ, "CUDA_MPS_PIPE_DIRECTORY": str(self.pipe_dir)}
        self.daemon = subprocess.Popen([PROGRAM, "-f"], env=environment)
        until(lambda: self.control.daemon_pid() is not None)

    def stop(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()
            assert process.stdout
            process.stdout.close()
        if hasattr(self, "daemon"):
            self.daemon.terminate()
            self.daemon.wait(10)

    def tell(self, **files: str) -> None:
        """`state="FAULT"`, `on_terminate_client="hang"`; see the stand-in."""
        for name, text in files.items():
            (self.pipe_dir / "standin" / name).write_text(text)

    def add(self, pid: int) -> None:
        """This process is a client from now on, as when CUDA starts in it."""
        (self.pipe_dir / "standin" / "clients" / str(pid)).touch()

    def stuck_client(self) -> subprocess.Popen[bytes]:
        process = self.stuck()
        self.add(process.pid)
        return process

    def stuck(self) -> subprocess.Popen[bytes]:
        """A process that does not end when it is told to."""
        process = subprocess.Popen([sys.executable, "-c", STUCK], stdout=subprocess.PIPE)
        self.processes.append(process)
        assert process.stdout and process.stdout.readline() == b"on\n"
        return process

    def commands(self) -> list[str]:
        """The names of the commands that came so far."""
        text = (self.pipe_dir / "standin" / "commands").read_text()
        return [line.split()[0] for line in text.splitlines()]
