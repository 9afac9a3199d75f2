"""Two hosts, as two network namespaces joined by a cable (a veth pair): everything over TCP with keys, and
the cable cut and mended under load. All processes are real.

`near` has the broker, a gateway, a worker and a caller in the run directory; `far` has a worker with a
store of its own, a gateway and a direct client.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest

from headway import Client, keys
from headway.errors import HeadwayError
from tests.system.stack import add_model, until

pytestmark = pytest.mark.system

SHAPE = (3, 224, 224)  # 602,112 bytes
NEAR_IP, FAR_IP = "10.213.77.1", "10.213.77.2"
CALLERS, WORKERS = f"tcp://{NEAR_IP}:7401", f"tcp://{NEAR_IP}:7402"
HTTP, FAR_HTTP = f"{NEAR_IP}:8080", f"{FAR_IP}:8080"
READY_S = 40.0
TIMEOUT_S = 8.0
CUT_S = 6.0

# Doubles, and a half in the answer tells that it came from the far worker.
MODEL = """
import os, time
class Model:
    def infer(self, x):
        time.sleep(0.01)
        return {"y": x * 2 + 0.5 * int(os.environ["FAR"])}

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
batch_size_max = 4
copies = 2
queue_size_max = 5000
response_timeout_s = 20

[[inputs]]
name = "x"
dtype = "float32"
shape = [3, 224, 224]
"""
# Prints what the answers were: twice the input, and from which worker.
ASK_HTTP = """
import sys, json, httpx, numpy as np
from concurrent.futures import ThreadPoolExecutor
def one(i):
    body = np.full((3, 224, 224), i, np.float32).tobytes()
    answer = http.post(f"http://{sys.argv[1]}/predictions/double", content=body,
                       headers={"content-type": "application/octet-stream"}, timeout=30)
    assert answer.status_code == 200, answer.text
    y = np.frombuffer(answer.content, np.float32)
    assert y.size == 150528 and (y == y[0]).all(), y
    return float(y[0]) - 2 * i
with httpx.Client() as http, ThreadPoolExecutor(8) as pool:
    print(json.dumps(list(pool.map(one, range(48)))))
"""
ASK_DIRECT = """
import sys, json, time, numpy as np
from headway import Client
from headway.errors import HeadwayError
end = time.monotonic() + float(sys.argv[2])
with Client(sys.argv[1], timeout_s=3.0) as client:
    i = 0
    while time.monotonic() < end:
        i += 1
        start = time.monotonic()
        try:
            y = client.infer("double", {"x": np.full((3, 224, 224), i, np.float32)})["y"]
            said = float(y.min()) - 2 * i if (y == y.flat[0]).all() else "mixed"
        except HeadwayError as error:
            said = type(error).__name__
        print(json.dumps([said, time.monotonic() - start]), flush=True)
"""


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True, timeout=20)


def why_not() -> str:
    """Why there can be no namespaces here, or ""."""
    if os.geteuid():
        return "needs root, to make network namespaces"
    if not shutil.which("ip"):
        return "there is no `ip` (package iproute2)"
    name = f"hw{secrets.token_hex(3)}"
    try:
        ip("netns", "add", name)
        try:
            ip("-n", name, "link", "add", f"{name}v", "type", "veth", "peer", "name", f"{name}w")
        finally:
            ip("netns", "del", name)
    except subprocess.CalledProcessError as error:
        return f"no network namespaces with veth here: {error.stderr.strip()}"
    return ""


class Hosts:
    """The two namespaces, and the processes in them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.run_dir = folder / "run"
        self.direct = f"ipc://{self.run_dir}/broker.sock"
        nonce = secrets.token_hex(3)
        self.near, self.far = f"hw{nonce}n", f"hw{nonce}f"
        self.cable = {host: f"{host}v" for host in (self.near, self.far)}
        self.processes: dict[str, subprocess.Popen[str]] = {}
        self.logs = folder / "logs"

    def open(self) -> None:
        self.logs.mkdir()
        for host in (self.near, self.far):
            ip("netns", "add", host)
            ip("-n", host, "link", "set", "lo", "up")
        near, far = self.cable[self.near], self.cable[self.far]
        ip("-n", self.near, "link", "add", near, "type", "veth", "peer", "name", far, "netns", self.far)
        for host, address in ((self.near, NEAR_IP), (self.far, FAR_IP)):
            ip("-n", host, "address", "add", f"{address}/24", "dev", self.cable[host])
        self.mend()
        self._add_stores()
        self._make_keys()

    def _add_stores(self) -> None:
        for store in ("near", "far"):
            add_model(self.folder / store, "double", TOML, MODEL)

    def _make_keys(self) -> None:
        """As an operator does: pairs where they belong, public keys carried to the other host."""
        near, far = self.folder / "near-keys", self.folder / "far-keys"
        _, broker = keys.make(near, "broker", keys.BROKER)
        for name, role in (("far-worker", keys.WORKER), ("far-caller", keys.CALLER)):
            keys.allow(near, keys.make(far, name, role)[1])
        shutil.copy(broker, far)

    def cut(self) -> None:
        ip("-n", self.far, "link", "set", self.cable[self.far], "down")

    def mend(self) -> None:
        for host, cable in self.cable.items():
            ip("-n", host, "link", "set", cable, "up")

    def start(self, name: str, host: str, module: str, *options: str, **environment: str) -> None:
        with (self.logs / name).open("w") as log:
            self.processes[name] = subprocess.Popen(
                ["ip", "netns", "exec", host, sys.executable, "-m", module, *options],
                stdout=log,
                stderr=log,
                text=True,
                env={**os.environ, "XDG_RUNTIME_DIR": str(self.folder / "xdg"), **environment},
            )

    def script(self, host: str, code: str, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["ip", "netns", "exec", host, sys.executable, "-c", code, *arguments],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "HEADWAY_KEYS_DIR": str(self.folder / "far-keys")},
        )

    def serve(self) -> None:
        run_dir, cpu = f"--run-dir={self.run_dir}", ("--device=cpu", "--threads=1")
        tcp = [f"--callers-tcp={CALLERS}", f"--workers-tcp={WORKERS}"]
        near_keys, far_keys = (f"--keys-dir={self.folder / name}-keys" for name in ("near", "far"))
        store = f"--model-store={self.folder / 'near'}"
        self.start("broker", self.near, "headway_broker", run_dir, store, near_keys, *tcp)
        self.start("near", self.near, "headway_worker", run_dir, *cpu, "--name=near", FAR="0")
        far = [f"--broker={WORKERS}", far_keys, f"--model-store={self.folder / 'far'}"]
        self.start("far", self.far, "headway_worker", *far, *cpu, "--name=far", FAR="1")
        self.start("gateway", self.near, "headway_gateway", run_dir, f"--http={HTTP}")
        far = [f"--broker={CALLERS}", far_keys, f"--run-dir={self.folder / 'far-run'}"]
        self.start("far-gateway", self.far, "headway_gateway", *far, f"--http={FAR_HTTP}")

    def ready(self) -> int:
        with Client(self.direct) as client:
            try:
                return int(client.models(timeout_s=2.0)[0]["ready"])
            except HeadwayError:
                return 0

    def said(self) -> str:
        return "\n".join(f"--- {log.name}\n{log.read_text()}" for log in sorted(self.logs.iterdir()))

    def end(self) -> dict[str, int]:
        """Stop everything in order; the exit codes."""
        for name in ("gateway", "far-gateway", "near", "far", "broker"):
            self.processes[name].send_signal(signal.SIGTERM)
            self.processes[name].wait(20)
        return {name: process.returncode for name, process in self.processes.items()}

    def close(self) -> None:
        for process in self.processes.values():
            if process.poll() is None:
                process.kill()
            process.wait()
        for host in (self.near, self.far):
            subprocess.run(["ip", "netns", "del", host], capture_output=True, timeout=20, check=False)


class Load:
    """Callers at the run directory, who ask without pause, with tensors in shared memory."""

    def __init__(self, address: str, callers: int) -> None:
        self.outcomes: list[tuple[float, float, Any]] = []  # when asked, when answered, what
        self._stopping = False
        self._client = Client(address, timeout_s=TIMEOUT_S)
        self._threads = [threading.Thread(target=self._ask) for _ in range(callers)]
        for thread in self._threads:
            thread.start()

    def _ask(self) -> None:
        while not self._stopping:
            i, asked = len(self.outcomes) % 1000, time.monotonic()
            try:
                y = self._client.infer("double", {"x": np.full(SHAPE, i, np.float32)})["y"]
                said: Any = float(y.min()) - 2 * i if y.min() == y.max() else "mixed"
            except HeadwayError as error:
                said = repr(error)
            self.outcomes.append((asked, time.monotonic(), said))

    def between(self, start: float, end: float) -> list[Any]:
        return [said for asked, _, said in self.outcomes if start <= asked < end]

    def stop(self) -> None:
        self._stopping = True
        for thread in self._threads:
            thread.join()
        self._client.close()


@pytest.fixture(scope="module")
def hosts() -> Iterator[Hosts]:
    if reason := why_not():
        pytest.skip(reason)
    with TemporaryDirectory(prefix="hw-") as folder:
        made = Hosts(Path(folder))
        try:
            made.open()
            made.serve()
            until(lambda: made.ready() == 2, READY_S)
            yield made
            assert made.end() == dict.fromkeys(made.processes, 0), made.said()
            assert not list(made.run_dir.glob("*.sock"))
        finally:
            made.close()


@pytest.mark.parametrize("address", [HTTP, FAR_HTTP], ids=["here", "there"])
def test_http_requests_with_large_bodies_are_answered_by_both_workers(hosts: Hosts, address: str) -> None:
    """Through the gateway of either host, asked from this one."""
    out, _ = hosts.script(hosts.near, ASK_HTTP, address).communicate(timeout=60)
    answers = json.loads(out)
    assert len(answers) == 48
    assert set(answers) == {0.0, 0.5}, "twice the input, some from here and some from there"


def test_large_tensors_in_shared_memory_reach_the_far_worker_too(hosts: Hosts) -> None:
    with Client(hosts.direct, timeout_s=30.0) as client, ThreadPoolExecutor(8) as pool:

        def ask(i: int) -> float:
            y = client.infer("double", {"x": np.full(SHAPE, i, np.float32)})["y"]
            assert (y == y.flat[0]).all()
            return float(y.flat[0]) - 2 * i

        assert set(pool.map(ask, range(60))) == {0.0, 0.5}
        until(lambda: client.lender.taken == 0)


def test_a_direct_client_on_the_other_host_is_answered(hosts: Hosts) -> None:
    out, _ = hosts.script(hosts.far, ASK_DIRECT, CALLERS, "1.0").communicate(timeout=60)
    said = [json.loads(line)[0] for line in out.splitlines()]
    assert said
    assert set(said) <= {0.0, 0.5}


def test_a_cut_cable_costs_those_here_time_and_no_answer_and_heals_by_itself(hosts: Hosts) -> None:
    far = hosts.script(hosts.far, ASK_DIRECT, CALLERS, str(1.5 + CUT_S + 6))
    assert far.stdout
    first = far.stdout.readline()  # it takes a while to start
    load = Load(hosts.direct, callers=16)
    try:
        time.sleep(1.5)
        assert 0.5 in load.between(0, time.monotonic()), "the far worker has its part"
        cut = time.monotonic()
        hosts.cut()
        time.sleep(CUT_S)
        hosts.mend()
        mended = time.monotonic()
        until(lambda: hosts.ready() == 2, 15.0)
        until(lambda: 0.5 in load.between(mended, time.monotonic()), 15.0)
        out, _ = far.communicate(timeout=60)
    finally:
        far.kill()
        far.wait()
        load.stop()
    late = [o for o in load.outcomes if o[1] - o[0] > TIMEOUT_S + 1]
    assert not late
    assert {said for _, _, said in load.outcomes} == {0.0, 0.5}, "every request here was answered"
    assert set(load.between(cut + 4.5, mended)) == {0.0}, "by the worker here, once the other was given up"
    assert len(load.between(cut + 0.5, mended)) > 50
    beyond = [json.loads(line) for line in [first, *out.splitlines()]]
    assert all(took < 3.0 + 1.0 for _, took in beyond)
    assert beyond[0][0] in (0.0, 0.5)
    assert beyond[-1][0] in (0.0, 0.5), "the client beyond the cable is answered again"
    print(
        f"here {len(load.outcomes)} asked and answered; beyond {len(beyond)}:",
        sorted({str(b[0]) for b in beyond}),
    )


def test_nobody_without_keys_gets_through(hosts: Hosts) -> None:
    """Plain bytes, and a client that does not use keys, from the other host."""
    code = """
import sys, socket
from headway import Client
from headway.errors import BrokerUnreachable
from headway.settings import ClientSettings
host, port = sys.argv[1].removeprefix("tcp://").split(":")
with socket.create_connection((host, int(port)), 5) as plain:
    plain.sendall(b"GET / HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n" * 50)
with Client(sys.argv[1], settings=ClientSettings(tcp_security="plain")) as client:
    try:
        client.models(timeout_s=1.0)
    except BrokerUnreachable:
        print("unreachable")
"""
    out, _ = hosts.script(hosts.far, code, CALLERS).communicate(timeout=30)
    assert out == "unreachable\n"
    with Client(hosts.direct) as client:
        assert client.stats()["refused_messages"] == {"callers": 0, "workers": 0}
