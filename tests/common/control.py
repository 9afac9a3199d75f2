"""A management server for the tests of its clients: real HTTP, and a broker that is a dict.

It does what it is told at once: a worker that is drained is gone and, where `replaces` is set, another one of
the same name is there; a model that is registered is ready unless its path is in `failing`. `orders` lists
all that changed anything as (method, path, body).
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

TOKEN = "secret-token"


def histogram(*counts: int) -> dict[str, Any]:
    return {"bounds": [0.001, 0.01, 0.1], "counts": list(counts), "sum": 1.0}


def model(name: str, version: str, **facts: Any) -> dict[str, Any]:
    stats = {"queue": 0, "queue_bytes": 0, "outcomes": {"ok": 0}, "total_s": histogram(0, 0, 0, 0)}
    plain = {"default": False, "state": "ready", "wanted": 1, "ready": 1, "min": 1, "max": 1, "traffic": 0.0}
    return {"name": name, "version": version, "error": "", "scaling": "", **plain, "stats": stats, **facts}


def worker(name: str, host: str = "h1", **facts: Any) -> dict[str, Any]:
    plain = {"pid": 1, "device": "cpu", "device_id": "cpu", "state": "idle", "draining": False, "batches": 0}
    return {"name": name, "host": host, **plain, "copies": ["m/1"], "busy": 0.25, **facts}


class Control(ThreadingHTTPServer):
    """The server. Change `state` as you like."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Asked)
        self.address = f"127.0.0.1:{self.server_port}"
        self.orders: list[tuple[str, str, Any]] = []
        self.answers: dict[str, tuple[int, Any]] = {}  # by "METHOD path": a status and what to say instead
        self.failing: set[str] = set()
        self.replaces = True
        self.looks = 0
        self.state: dict[str, Any] = {
            "broker": {"host": "h1", "pid": 7, "version": "0.1.0", "uptime_s": 5.0, "callers": 2},
            "models": [model("m", "1", default=True, traffic=1.0), model("n", "1", default=True)],
            "workers": [worker("w0"), worker("w1"), worker("x0", "h2")],
            "devices": [{"host": "h1", "device_id": "cpu", "device": "cpu", "name": "", "workers": ["w0"]}],
            "agents": [{"name": "a1", "host": "h1", "wanted": 2, "workers_max": 8, "workers": []}],
            "events": [[1_700_000_000.0, "model ready", {"model": "m"}]],
        }

    def versions(self, name: str) -> list[dict[str, Any]]:
        return [m for m in self.state["models"] if m["name"] == name]

    def do(self, method: str, path: str, body: Any) -> dict[str, Any]:
        """What the broker would say."""
        parts = [unquote(part) for part in path.strip("/").split("/")]
        if method == "GET":
            self.looks += 1
            if path == "/state":
                return self.state
            return {"models": self.versions(parts[2]) if len(parts) > 2 else self.state["models"]}
        self.orders.append((method, path, body))
        match parts[1:]:
            case ["models"]:
                return self._register(body)
            case ["models", name, "default"]:
                for m in self.versions(name):
                    m["default"] = m["version"] == body["version"]
                return {"model": name, "version": body["version"], "serving": True}
            case ["models", name, "split"]:
                return {"model": name, "weights": body["weights"], "serving": True}
            case ["models", name, "scale"]:
                return {"model": name, "version": body.get("version", "1"), **body, "ready": body["min"]}
            case ["models", name, *version]:
                return {"model": name, "versions": version[1:] or ["1"]}
            case ["rescan"]:
                return {"added": ["m/2"], "changed": [], "gone": [], "broken": {"o/1": "no TOML"}}
            case ["workers", name, "drain"]:
                if not self.replaces:
                    self.state["workers"] = [w for w in self.state["workers"] if w["name"] != name]
                return {"worker": name, "gone": True}
            case ["hosts", host]:
                return {"host": host, "count": body["workers"]}
        raise AssertionError(path)

    def _register(self, body: dict[str, Any]) -> dict[str, Any]:
        path = body.get("path") or f"{body.get('name', 'fetched')}/{body.get('version', '1')}"
        name, _, version = path.partition("/")
        if path in self.failing:
            self.state["models"].append(model(name, version, state="failed", ready=0, error="boom"))
            raise Refused(503, "NotReady", f"{path} failed to load: boom")
        if not any(m["version"] == version for m in self.versions(name)):
            self.state["models"].append(model(name, version))
        return {"model": name, "versions": [version]}


class Refused(Exception):
    """Becomes an error's response."""


class _Asked(BaseHTTPRequestHandler):
    server: Control

    def do_GET(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._answer(401, {"error": "Unauthorized", "message": "wrong token"})
        elif found := self.server.answers.get(f"{self.command} {self.path}"):
            self._answer(*found)
        else:
            try:
                self._answer(200, self.server.do(self.command, self.path, body))
            except Refused as refused:
                status, error, message = refused.args
                self._answer(status, {"error": error, "message": message})

    do_POST = do_DELETE = do_PUT = do_GET

    def _answer(self, status: int, body: Any) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        if status == 503:
            self.send_header("Retry-After", "3")
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        """Quiet."""


@contextmanager
def controlled() -> Iterator[Control]:
    """A `Control` that serves for as long as the block lasts."""
    with Control() as server:
        serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        serving.start()
        try:
            yield server
        finally:
            server.shutdown()
            serving.join()
