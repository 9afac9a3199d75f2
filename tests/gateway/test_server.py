"""headway_gateway.server: real gunicorn processes, with a stub where the broker would be."""

from __future__ import annotations

import mmap
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import httpx
import pytest

from headway.errors import SettingsError
from headway.exits import Exit
from headway_gateway.server import bind
from tests.ear import Ear

ROOT = Path(__file__).parents[2]
PROGRAM = """
import asyncio, sys
from pathlib import Path
import headway.aio
from headway import logs
from headway.settings import GatewaySettings
from headway.stub import AsyncStubClient
from headway_gateway.server import serve

class Stub(AsyncStubClient):
    def __init__(self, address, **options):
        super().__init__({"echo": lambda body: body, "slow": lambda body: body})
    async def open(self):
        while Path(sys.argv[2], "not-yet").exists():
            await asyncio.sleep(0.02)
        await super().open()
    async def reply(self, asked, timeout_s=None):
        if asked.model == "slow":
            Path(sys.argv[2], "in-flight").touch()
            await asyncio.sleep(0.5)
        return await super().reply(asked)

headway.aio.AsyncClient = Stub
logs.setup("info", "text")
addresses = dict(zip(("http", "management", "metrics"), sys.argv[1].split(",")))
settings = GatewaySettings(run_dir=Path(sys.argv[2]), processes=int(sys.argv[3]), **addresses)
sys.exit(serve(settings))
"""


ANY = "127.0.0.1:0,127.0.0.1:0,127.0.0.1:0"  # http, management, metrics
# Each request on a connection of its own, and without the 25 ms that reading all certificates takes.
get, post = partial(httpx.get, verify=False), partial(httpx.post, verify=False)


class Gateway:
    """A gateway's processes."""

    def __init__(
        self,
        run_dir: Path,
        http: str = ANY,
        processes: int = 1,
        environment: dict[str, str] | None = None,
    ) -> None:
        paths = [str(ROOT / "common"), str(ROOT / "gateway")]
        variables = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), **(environment or {})}
        variables.pop("PROMETHEUS_MULTIPROC_DIR", None)
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, http, str(run_dir), str(processes)],
            stderr=subprocess.PIPE,
            text=True,
            env=variables,
        )
        self.log = ""
        self.ports: dict[str, int] = {}

    @property
    def port(self) -> int:
        return self.ports["http"]

    def wait(self) -> int:
        """Its exit code; what it logged is then in `log`."""
        self.log += self.process.communicate(timeout=20)[1]
        return self.process.returncode

    def wait_for(self, text: str) -> str:
        """The first line of the log that has `text`."""
        assert self.process.stderr
        for line in self.process.stderr:
            self.log += line
            if text in line:
                return line
        raise AssertionError(f"it ended without saying {text!r}: {self.log}")

    def url(self, path: str, door: str = "http") -> str:
        return f"http://127.0.0.1:{self.ports[door]}{path}"


@pytest.fixture
def run(tmp_path: Path) -> Iterator:
    started: list[Gateway] = []

    def start(processes: int = 1, environment: dict[str, str] | None = None) -> Gateway:
        gateway = Gateway(tmp_path, processes=processes, environment=environment)
        started.append(gateway)
        said = re.findall(r"(http|management|metrics)=\S*?:(\d+)", gateway.wait_for("listening"))
        gateway.ports = {name: int(port) for name, port in said}
        return gateway

    yield start
    for gateway in started:
        if gateway.process.poll() is None:
            gateway.process.kill()
        gateway.process.wait()


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_it_serves_counts_over_all_processes_and_ends_when_told(run, tmp_path):
    gateway = run(processes=2)
    for _ in range(20):  # each on a connection of its own, so that both processes have some
        assert post(gateway.url("/predictions/echo"), content=b"hi").content == b"hi"
    answer = get(gateway.url("/metrics", "metrics"))
    assert 'headway_http_requests_total{dialect="predictions",status="200"} 20.0' in answer.text
    assert "server" not in answer.headers
    folder = tmp_path / f"metrics-{gateway.port}"
    assert list(folder.glob("counter_*.db"))
    gateway.process.terminate()
    assert gateway.wait() == 0
    assert len(gateway.log.splitlines()) == 2, gateway.log  # listening, stopped; no access log
    assert not list(tmp_path.glob("*.ctl"))


def test_a_request_in_flight_is_answered_before_the_end(run, tmp_path):
    gateway = run()
    answers: list[httpx.Response] = []

    def ask() -> None:
        answers.append(post(gateway.url("/predictions/slow"), content=b"hi"))

    asking = threading.Thread(target=ask)
    asking.start()
    while not (tmp_path / "in-flight").exists():
        time.sleep(0.01)
    gateway.process.terminate()
    asking.join()
    assert (answers[0].status_code, answers[0].content) == (200, b"hi")
    assert gateway.wait() == 0


def test_a_worker_process_that_lost_its_arbiter_ends(run):
    gateway = run()
    assert get(gateway.url("/v2/health/live")).status_code == 200
    gateway.process.send_signal(signal.SIGKILL)
    gateway.wait_for("arbiter is gone")
    gateway.wait()  # until the last process has closed the log
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", gateway.port))


@pytest.mark.parametrize("busy", ["http", "management", "metrics"])
def test_a_busy_address_ends_with_one_line_and_its_exit_code(tmp_path, busy):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        names = ("http", "management", "metrics")
        gateway = Gateway(tmp_path, ",".join(address if name == busy else "127.0.0.1:0" for name in names))
        assert gateway.wait() == Exit.LOCKED
    assert len(gateway.log.splitlines()) == 1
    assert "another program listens" in gateway.log and f"{busy}={address}" in gateway.log


def test_every_process_serves_every_address_and_each_only_its_own(run):
    gateway = run(processes=2)
    for _ in range(10):  # each on a connection of its own
        bearer = {"Authorization": "Bearer t"}
        assert get(gateway.url("/state", "management"), headers=bearer).status_code == 200
        assert get(gateway.url("/state", "management")).status_code == 401
        assert get(gateway.url("/metrics", "metrics")).status_code == 200
        assert get(gateway.url("/state"), headers=bearer).status_code == 404
        assert get(gateway.url("/metrics")).status_code == 404
        assert post(gateway.url("/predictions/echo", "metrics"), content=b"").status_code == 404


def test_a_reload_replaces_the_processes_and_keeps_every_address(run):
    gateway = run()
    statuses = [get(gateway.url("/ping")).status_code]
    [before] = children(gateway.process.pid)
    gateway.process.send_signal(signal.SIGHUP)
    end = time.monotonic() + 20
    while before in children(gateway.process.pid):
        assert time.monotonic() < end, "the old process stays"
        for door, path in (("http", "/ping"), ("metrics", "/metrics"), ("management", "/state")):
            answer = get(gateway.url(path, door), headers={"Authorization": "Bearer t"})
            statuses.append(answer.status_code)
    statuses.append(get(gateway.url("/ping")).status_code)  # and this is the new one
    assert set(statuses) == {200} and gateway.process.poll() is None


def test_an_address_that_is_switched_off_is_not_listened_on(tmp_path):
    gateway = Gateway(tmp_path, "127.0.0.1:0,,")
    try:
        said = gateway.wait_for("listening")
        assert "management" not in said and "metrics" not in said
    finally:
        gateway.process.kill()
        gateway.process.wait()


@pytest.mark.parametrize("http", ["127.0.0.1:port", "127.0.0.1:70000", "unix:x", "fd://3"])
def test_an_address_that_is_none_is_a_wrong_setting(http):
    with pytest.raises(SettingsError, match="http"):
        bind(http)
    with pytest.raises(SettingsError, match=r"^metrics: "):
        bind(http, "metrics")


def test_what_an_earlier_run_counted_is_forgotten(tmp_path, settings, monkeypatch):
    from headway_gateway.server import share_metrics

    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "")
    with bind("127.0.0.1:0") as listener:
        folder = tmp_path / f"metrics-{listener.getsockname()[1]}"
        folder.mkdir()
        (folder / "counter_1.db").touch()
        share_metrics(settings, listener)
    assert os.environ["PROMETHEUS_MULTIPROC_DIR"] == str(folder)
    assert list(folder.iterdir()) == []


def test_what_a_living_process_counts_is_kept_when_another_starts(tmp_path, settings, monkeypatch):
    from headway_gateway.server import share_metrics

    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "")
    own, reused = tmp_path / f"counter_{os.getpid()}.db", tmp_path / f"gauge_{os.getppid()}.db"
    for file in (own, reused):
        file.write_bytes(bytes(8))
    settings = replace(settings, metrics_dir=str(tmp_path))
    with own.open("rb") as opened, mmap.mmap(opened.fileno(), 0, prot=mmap.PROT_READ):
        with bind("127.0.0.1:0") as listener:
            share_metrics(settings, listener)
        assert [file for file in (own, reused) if file.exists()] == [own]


def pids_of(gateway: Gateway) -> set[int]:
    pid = gateway.process.pid
    return set(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


def until(true) -> None:
    end = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def test_systemd_hears_that_it_is_ready_when_a_process_serves_and_no_more_when_none_does(run, tmp_path):
    ear = Ear(tmp_path / "notify")
    gateway = run(environment=ear.environment(watchdog_s=1.0))
    said = ear.wait_for("READY=1")
    assert said.count("READY=1") == 1 and "arbiter booted" not in said
    assert f"STATUS=processes that serve 127.0.0.1:{gateway.port}: 1" in said
    assert get(gateway.url("/v2/health/live")).status_code == 200
    ear.wait_for("WATCHDOG=1", count=2)
    gateway.process.terminate()
    ear.wait_for("STOPPING=1")
    assert gateway.wait() == 0
    ear.close()


def test_it_is_not_ready_before_a_process_has_opened_its_client(run, tmp_path):
    (tmp_path / "not-yet").touch()
    ear = Ear(tmp_path / "notify")
    gateway = run(environment=ear.environment(watchdog_s=1.0))
    said = ear.wait_for(": 0\n")
    time.sleep(1.5)  # a turn of gunicorn's, or two
    assert not any(word in said + "".join(ear.heard()) for word in ("READY", "WATCHDOG"))
    (tmp_path / "not-yet").unlink()
    ear.wait_for("READY=1")
    gateway.process.terminate()
    assert gateway.wait() == 0
    ear.close()


def test_a_reload_replaces_the_processes_and_the_old_ones_serve_until_the_new_ones_do(run, tmp_path):
    ear = Ear(tmp_path / "notify")
    gateway = run(processes=2, environment=ear.environment(watchdog_s=30.0))
    ear.wait_for(": 2\n")
    old = pids_of(gateway)
    gateway.process.send_signal(signal.SIGHUP)
    until(lambda: len(pids_of(gateway)) == 4)
    while pids_of(gateway) & old:
        assert post(gateway.url("/predictions/echo"), content=b"hi").content == b"hi"
    assert len(pids_of(gateway)) == 2
    gateway.process.terminate()
    said = ear.wait_for("STOPPING=1").split("STOPPING")[0]
    assert min(map(int, re.findall(r": (\d+)\n", said)), default=2) >= 2, "too few served meanwhile"
    assert gateway.wait() == 0
    ear.close()
