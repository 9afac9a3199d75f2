"""One server with one model: started in a session of its own, measured from outside, stopped whole.

Knows: processes, the model's folder, the log file. Must not know: which servers there are.

It is ready when it has answered one request rightly: the same sign for all, and the only one that says
everything. Whatever it started is a descendant of it; `close` ends the whole session.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
import tomllib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks.dialects import http_request, split_answer
from benchmarks.inputs import EXAMPLES

ROOT = Path(__file__).parents[2]
MODELS = ROOT / "benchmarks" / "models"
READY_S, STOP_S = 120.0, 15.0
MB = 1e6


@dataclass(frozen=True)
class ServerSettings:
    """`delay_ms`: how long a partial batch waits, where the model says nothing else."""

    port: int
    delay_ms: int = 0
    quiet: bool = False


class Server:
    """`folder` is its own, and empty. `open` starts it and waits; whatever happens, `close` it."""

    name = ""  # its environment is .bench/NAME
    dialect = "oip"

    def __init__(self, settings: ServerSettings, model: str, folder: Path) -> None:
        self.settings, self.model, self.folder = settings, model, folder
        self.process: subprocess.Popen[bytes] | None = None

    # ---- what each server says of itself ----

    def prepare(self) -> list[str]:
        """Write what it needs into its folder; returns the command."""
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        return {}

    def stop(self, members: list[psutil.Process]) -> None:
        """Ask it to end; `members` are its processes, itself first."""
        for process in members[:1]:
            process.terminate()

    def clean(self) -> None:
        """Remove what it leaves behind outside its folder."""

    # ---- what is the same for all ----

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.settings.port}"

    @property
    def home(self) -> Path:
        return ROOT / ".bench" / self.name

    @property
    def is_installed(self) -> bool:
        return (self.home / ".installed").exists()

    @property
    def model_folder(self) -> Path:
        return MODELS / self.model / "1"

    @property
    def batch(self) -> tuple[int, int]:
        """Most rows in a batch, and the delay in milliseconds."""
        spec = tomllib.loads((self.model_folder / "model.toml").read_text())
        return spec["batch_size_max"], spec.get("batch_delay_ms", self.settings.delay_ms)

    def open(self) -> None:
        """Raises: OSError when its port is taken (or somebody else's server would be measured); RuntimeError
        with the end of its log when it does not answer."""
        with socket.create_server(("127.0.0.1", self.settings.port)):
            pass
        self.folder.mkdir(parents=True, exist_ok=True)
        one_thread = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        with (self.folder / "log").open("wb") as log:
            self.process = subprocess.Popen(
                self.prepare(),
                cwd=self.folder,
                env=os.environ | one_thread | self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._wait_until_ready(time.monotonic() + READY_S)

    def _wait_until_ready(self, until: float) -> None:
        assert self.process
        while time.monotonic() < until:
            if self.process.poll() is not None:
                break
            with suppress(OSError, ValueError):
                if self.answers():
                    return
            time.sleep(0.2)
        tail = (self.folder / "log").read_text(errors="replace").splitlines()[-30:]
        raise RuntimeError("\n".join([f"{self.name} does not answer; the end of its log:", *tail]))

    def answers(self) -> bool:
        """Ask once over HTTP; whether the answer is right. Raises: OSError."""
        example, data = EXAMPLES[self.model], b""
        host, _, port = self.address.rpartition(":")
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            connection.sendall(http_request(self.dialect, self.address, example))
            while (answer := split_answer(data)) is None:
                received = connection.recv(1 << 16)
                if not received:
                    return False
                data += received
        return answer[0] and example.is_right(answer[1])

    def processes(self) -> list[psutil.Process]:
        """All that live now, itself first."""
        if not self.process or self.process.poll() is not None:
            return []
        root = psutil.Process(self.process.pid)
        return [root, *root.children(recursive=True)]

    def cpu_s(self) -> float:
        """CPU seconds of all its processes so far."""
        total = 0.0
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                total += times.user + times.system
        return total

    def memory(self) -> dict[str, Any]:
        """`rss_mb` counts pages that processes share once for each of them, `pss_mb` once in all."""
        infos = []
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):
                infos.append(process.memory_full_info())
        rss, pss = sum(i.rss for i in infos) / MB, sum(i.pss for i in infos) / MB
        return {"processes": len(infos), "rss_mb": rss, "pss_mb": pss}

    def close(self) -> None:
        """Asks it to stop, then ends the session."""
        if self.process:
            members = self.processes()
            self.stop(members)
            psutil.wait_procs(members, timeout=STOP_S)
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            for member in members:
                with suppress(psutil.NoSuchProcess):
                    member.kill()  # those that began a session of their own
            self.process.wait()
        self.clean()
