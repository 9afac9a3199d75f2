"""One server of a group, the real TorchServe or Headway: started by the same command line, stopped cleanly.

Knows: `torchserve`'s command line, how either server is started, found ready and ended.
Must not know: cases, what is expected.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.ports import Ports
from tests.torchserve import archives
from tests.torchserve.wire import Browser

HEADWAY = [sys.executable, "-m", "headway.cli.main", "torchserve"]
PORTS = ("inference", "management", "metrics", "grpc_inference", "grpc_management")
READY_TIMEOUT_S = 90.0  # with what starts it takes seconds; below the time a test may take
STOP_TIMEOUT_S = 20.0
KEYS = ("management", "inference", "API")
ROOT = Path(__file__).parents[2]
ROOMS = ("common", "broker", "worker", "gateway")

Group = Mapping[str, Any]


class Server:
    """`command`: what is before `--start`. `folder`: where it works, with `store`, `workflows`, `tmp`."""

    def __init__(self, command: Sequence[str], group: Group, folder: Path, ports: dict[str, int]) -> None:
        self.command, self.group, self.folder = command, group, folder
        self.ports = {name: ports[group.get("same_ports", {}).get(name, name)] for name in ports}
        self.store, self.workflows = folder / "store", folder / "workflows"
        self.log = folder / "log.txt"
        self.mark = f"DIFFERENTIAL={secrets.token_hex(8)}"
        self.browser = Browser()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        for path in (self.store, self.workflows, self.folder / "tmp", self.folder / "run"):
            path.mkdir()
        archives.make(self.group["store"], self.store)
        archives.make_workflows(self.group.get("workflow_store", []), self.workflows)
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                self._arguments(),
                cwd=self.folder,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._await_ready()

    def _arguments(self) -> list[str]:
        config = self.folder / "config.properties"
        said = [*self.group["config"], *(self.group.get("headway", []) if self.command == HEADWAY else [])]
        config.write_text("\n".join(self.filled(line) for line in said) + "\n")
        options = ["--start", "--foreground", "--ncs", "--ts-config", str(config)]
        options += ["--model-store", str(self.store)]
        if self.group.get("workflow_store") is not None:
            options += ["--workflow-store", str(self.workflows)]
        options += self.group["flags"]
        if self.group["models"]:
            options += ["--models", *self.group["models"]]
        return [*self.command, *options]

    def _environment(self) -> dict[str, str]:
        tmp = str(self.folder / "tmp")
        run = {"HEADWAY_RUN_DIR": str(self.folder / "run"), "HEADWAY_STATE_DIR": str(self.folder / "state")}
        mark = dict([self.mark.split("=")])
        # Where Headway is not installed but on pytest's path, its processes shall find it, too.
        path = {"PYTHONPATH": os.pathsep.join(str(ROOT / room) for room in ROOMS)}
        mine = path if self.command == HEADWAY else {}
        kept = {k: v for k, v in os.environ.items() if k != "PYTHONPATH" and not k.startswith("TS_")}
        return {
            **kept,
            "TMPDIR": tmp,
            "TEMP": tmp,
            **run,
            **mark,
            **mine,
            **self.group.get("environment", {}),
        }

    def filled(self, text: str) -> str:
        """`{inference}` and so on are ports, `{store}` and `{folder}` paths, `{api_key}` and so on keys."""
        known: dict[str, str] = {name: str(port) for name, port in self.ports.items()}
        known |= {"store": str(self.store), "workflows": str(self.workflows), "folder": str(self.folder)}
        if "_key}" in text:
            known |= self.keys()
        for name, value in known.items():
            text = text.replace("{" + name + "}", value)
        return text

    def keys(self) -> dict[str, str]:
        said = json.loads((self.folder / "key_file.json").read_text())
        return {f"{kind.lower()}_key": said[kind]["key"] for kind in KEYS}

    def _await_ready(self) -> None:
        """Until it answers, and each model of the command line has the workers that it is to have."""
        give_up = time.monotonic() + READY_TIMEOUT_S
        while not self._is_ready():
            assert self._process
            assert self._process.poll() is None, f"it ended: {self.tail()}"
            assert time.monotonic() < give_up, f"it does not get ready: {self.tail()}"
            time.sleep(0.1)

    def _is_ready(self) -> bool:
        try:
            return all(self._has_workers(name) for name in self.group["ready"]) and self._answers()
        except (OSError, ValueError):  # it does not listen yet, or its file of keys is not written yet
            return False

    def _answers(self) -> bool:
        return bool(self.browser.ask(self.ports["inference"], "GET", "/ping", self.host("inference"), b""))

    def _has_workers(self, model: str) -> bool:
        reply = self.browser.ask(
            self.ports["management"], "GET", f"/models/{model}", self.host("management"), b""
        )
        if reply.status != 200:
            return False
        said = json.loads(reply.body)[0]
        states = [worker["status"] for worker in said["workers"]]
        return len(states) >= max(said["minWorkers"], 1) and set(states) == {"READY"}

    def host(self, port: str) -> list[tuple[str, str]]:
        """The headers of every request, with a key where the server wants one."""
        headers = [("Host", f"127.0.0.1:{self.ports[port]}")]
        if "--disable-token-auth" not in self.group["flags"] and port in ("inference", "management"):
            headers.append(("Authorization", f"Bearer {self.keys()[f'{port}_key']}"))
        return headers

    def logs(self) -> list[Path]:
        """What it printed, and the access log, which either server writes below its working folder."""
        return [path for path in (self.log, self.folder / "logs" / "access_log.log") if path.exists()]

    def tail(self) -> str:
        return self.log.read_text(errors="replace")[-3000:]

    def stop(self) -> None:
        self.browser.close()
        if self._process:
            self._end(self._process)
        for pid in marked(self.mark):
            os.kill(pid, signal.SIGKILL)

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        """Headway is told to stop; TorchServe's launcher tells nobody, so its whole session is."""
        tell = process.send_signal if self.command == HEADWAY else lambda n: os.killpg(process.pid, n)
        if process.poll() is None:
            tell(signal.SIGTERM)
        give_up = time.monotonic() + STOP_TIMEOUT_S
        while marked(self.mark) and time.monotonic() < give_up:
            process.poll()
            time.sleep(0.05)
        process.kill()
        process.wait()


def marked(mark: str) -> list[int]:
    """The living processes that inherited the mark."""
    return [int(entry.name) for entry in Path("/proc").glob("[0-9]*") if mark in environment_of(entry)]


def environment_of(process: Path) -> list[str]:
    try:
        return (process / "environ").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return []


@contextmanager
def serving(command: Sequence[str], group: Group, ports: dict[str, int] | None = None) -> Iterator[Server]:
    # A short path: sockets of either server lie below it, and their names may have 107 characters.
    folder = Path(tempfile.mkdtemp(prefix="ts-"))
    held = Ports(len(PORTS))
    server = Server(command, group, folder, ports or dict(zip(PORTS, held.numbers, strict=True)))
    try:
        server.start()
        yield server
    finally:
        server.stop()
        held.close()
        shutil.rmtree(folder, ignore_errors=True)
