"""`headway torchserve` at three in the morning: its processes are killed while clients ask."""

from __future__ import annotations

import http.client
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.system.stack import command_of, until
from tests.system.test_torchserve_command import Server
from tests.worker.archives import needs_archiver

pytestmark = [pytest.mark.system, needs_archiver]

CLIENTS = 4
LATE_S = 10.0  # nobody waits longer: a worker has to start anew, on a host with much to do


class Load:
    """Clients that ask one after the other, each on a connection of its own. `failed` has what was no answer
    of the model, `longest_s` how long one waited at most."""

    def __init__(self, address: str, key: str) -> None:
        self._address = address
        self._headers = {"Authorization": f"Bearer {key}", "Content-Type": "text/plain"}
        self.failed: list[str] = []
        self.answered = 0
        self.longest_s = 0.0
        self._ending = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(CLIENTS)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join()

    def goes_on(self) -> None:
        """Wait until all clients have had answers again."""
        before = self.answered
        until(lambda: self.answered > before + 10 * CLIENTS, 60)

    def _run(self) -> None:
        while not self._ending.is_set():
            begun = time.monotonic()
            try:
                self._ask()
                self.answered += 1
            except (OSError, http.client.HTTPException, ValueError) as error:
                self.failed.append(repr(error))
                time.sleep(0.05)
            self.longest_s = max(self.longest_s, time.monotonic() - begun)

    def _ask(self) -> None:
        connection = http.client.HTTPConnection(self._address, timeout=LATE_S * 3)
        try:
            connection.request("POST", "/predictions/echo1", b"x", self._headers)
            reply = connection.getresponse()
            said = (reply.status, reply.read())
        finally:
            connection.close()
        if said != (200, b"1.0"):
            raise ValueError(str(said))


@contextmanager
def killed(server: Server, load: Load, name: str, is_child: bool = False) -> Iterator[None]:
    """Kill it under load. What follows is about the clients of that time alone."""
    load.failed.clear()
    load.longest_s = 0.0
    pid = processes(server, name, is_child)[0]
    os.kill(pid, signal.SIGKILL)
    until(lambda: pid not in processes(server, name, is_child) != [], 60)
    load.goes_on()
    yield
    assert load.longest_s < LATE_S


def processes(server: Server, name: str, is_child: bool = False) -> list[int]:
    """The living ones of this server. `is_child`: those whose parent is one of the same name."""
    mark = f"-m {name} --run-dir={server.run_dir} "
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()]
    found = {pid for pid in pids if mark in command_of(pid)}
    return sorted(pid for pid in found if (parent_of(pid) in found) == is_child)


def parent_of(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path)
    config = tmp_path / "c.cfg"
    config.write_text(config.read_text() + "\ndefault_workers_per_model=2")
    yield server
    server.close()


def test_clients_hardly_notice_what_is_killed_and_nothing_is_left(server: Server) -> None:
    started = server.start("--ts-config", "c.cfg", "--models", "echo1.mar")
    assert started.returncode == 0, started.stderr
    until(lambda: server.ready == {("echo1", "1.0"): 2}, 60)
    key = json.loads((server.folder / "key_file.json").read_text())["inference"]["key"]
    with Load(server.inference, key) as load:
        load.goes_on()
        assert load.failed == []
        assert len(processes(server, "headway_worker.agent")) == 1  # what is found now is found if it stays
        with killed(server, load, "headway_worker"):
            assert load.failed == []
        with killed(server, load, "headway_broker"):
            assert load.failed == []
        with killed(server, load, "headway_gateway", is_child=True):
            assert len(load.failed) <= CLIENTS  # what it was answering; the others wait for its successor
        with killed(server, load, "headway_gateway"):
            unheard = ("Connection", "Disconnected", "BrokenPipe")
            assert [said for said in load.failed if not any(word in said for word in unheard)] == []
    until(lambda: server.ready == {("echo1", "1.0"): 2}, 60)

    stopped = server.run("--stop")
    assert (stopped.returncode, stopped.stdout) == (0, "TorchServe has stopped.\n")
    parts = ("headway_worker", "headway_worker.agent", "headway_broker", "headway_gateway")
    assert [processes(server, part, is_child) for part in parts for is_child in (False, True)] == [[]] * 8
    assert not server.run_dir.exists()
    assert list((server.folder / "tmp").iterdir()) == []
