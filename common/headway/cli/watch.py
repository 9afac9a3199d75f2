"""Looks at the running server and tells people what they wait for: models, and that all is ready.

Knows: the direct client, the gateway's `/ping`, a thread. Must not know: processes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from http.client import HTTPConnection, HTTPException

from headway.cli.progress import Progress, settled
from headway.client import Client
from headway.errors import HeadwayError
from headway.tcp import reachable

FAST_S = 0.2  # between looks until everything is ready
SLOW_S = 1.0  # later on
ASK_TIMEOUT_S = 1.0


class Watch:
    """A thread that prints changes for as long as the block lasts.

    `host` and `port` are the gateway's; `workers` says how many are expected.
    """

    def __init__(self, address: str, host: str, port: int, workers: int, say: Callable[[str], None]) -> None:
        self._address = address
        self._host = reachable(host)
        self._port = port
        self._workers = workers
        self._say = say
        self._progress = Progress(time.monotonic())
        self._joined = False
        self._ready = False
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="headway-watch", daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._thread.join()

    def close_soon(self) -> None:
        """Say nothing more; leaving the block waits for the thread."""
        self._closing.set()

    def _run(self) -> None:
        with Client(self._address) as client:
            while not self._closing.wait(SLOW_S if self._ready else FAST_S):
                try:
                    self._look(client)
                except HeadwayError:
                    continue  # the broker is away; the supervisor says why

    def _look(self, client: Client) -> None:
        self._joined = self._joined or len(client.stats(ASK_TIMEOUT_S)["workers"]) >= self._workers
        models = client.models(ASK_TIMEOUT_S)
        if self._closing.is_set():
            return
        for line in self._progress.news(models, time.monotonic(), self._joined):
            self._say(line)
        if not self._ready and settled(models, self._joined) and pings(self._host, self._port):
            self._ready = True
            self._say(f"ready: {url(self._host, self._port)}")


def url(host: str, port: int) -> str:
    """Where a browser finds it."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def pings(host: str, port: int) -> bool:
    """Whether the gateway answers."""
    connection = HTTPConnection(host, port, timeout=ASK_TIMEOUT_S)
    try:
        connection.request("GET", "/ping")
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()
