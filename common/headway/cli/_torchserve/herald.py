"""Speaks to the broker for a start: orders the default versions, says when all is ready, writes snapshots.

Knows: the direct client, the address that the gateway answers at, a thread. Must not know: processes.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass

from headway.client import Client
from headway.errors import HeadwayError, NoRoom, SettingsError, WireError
from headway.settings import TOKEN_FILE, Shared, find_token
from headway.tcp import reachable
from headway.torchserve.addresses import Address
from headway.torchserve.properties import Properties
from headway.torchserve.snapshots import SHUTDOWN, STARTUP
from headway.torchserve.startup import Startup
from headway.torchserve.taking import take

LOOK_S = 0.1
ASK_TIMEOUT_S = 2.0


@dataclass(frozen=True)
class About:
    """What there is to speak of. `door`: where the gateway answers; `ports`: where others shall listen."""

    shared: Shared
    properties: Properties
    startup: Startup
    door: Address
    ports: tuple[Address, ...] = ()


class Herald:
    """A thread for as long as the block lasts. `on_ready` is called in it, once."""

    def __init__(self, about: About, say: Callable[[str], None], on_ready: Callable[[], None]) -> None:
        self._about = about
        self._say = say
        self._on_ready = on_ready
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="headway-herald", daemon=True)

    def __enter__(self) -> Herald:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._thread.join()

    def stopping(self) -> None:
        """The processes are about to be told to stop: write down what there was."""
        self._closing.set()
        self._thread.join()
        take(SHUTDOWN, self._about.shared, self._about.properties)

    def _run(self) -> None:
        while not self._closing.wait(LOOK_S):
            try:
                with self._client() as client:
                    self._order(client)
                break
            except (WireError, NoRoom, SettingsError):
                continue  # the broker is not there yet, or has made no token yet; the supervisor says why
            except HeadwayError as error:
                self._say(f"a default version could not be ordered: {error}")
                break
        while not self._closing.wait(LOOK_S):
            if answers(self._about.door) and all(map(listens, self._about.ports)):
                take(STARTUP, self._about.shared, self._about.properties)
                self._on_ready()
                return

    def _order(self, client: Client) -> None:
        """Raises: HeadwayError where the broker does not answer."""
        client.models(ASK_TIMEOUT_S)
        versions: dict[str, int] = {}
        for one in self._about.startup.registrations:
            versions[one.model] = versions.get(one.model, 0) + 1
        token = find_token(self._about.shared, self._about.shared.state_dir / TOKEN_FILE)
        for model, version in self._about.startup.defaults.items():
            if versions.get(model, 0) > 1:
                order = {"model": model, "version": version, "wait": False}
                client.command("default", order, token, ASK_TIMEOUT_S)

    def _client(self) -> Client:
        shared = self._about.shared
        return Client(shared.callers_address, timeout_s=ASK_TIMEOUT_S, shm_bytes=0, settings=shared)


def answers(door: Address) -> bool:
    """Whether an HTTP server is there: it says something to a line that is none."""
    try:
        with _connected(door) as connection:
            if door.tls:
                return True  # who listens is known; a greeting would need its keys
            connection.sendall(b"GET /ping HTTP/1.0\r\n\r\n")
            return connection.recv(5) == b"HTTP/"
    except OSError:
        return False


def listens(port: Address) -> bool:
    """Whether somebody takes connections there."""
    try:
        with _connected(port):
            return True
    except OSError:
        return False


def _connected(door: Address) -> socket.socket:
    if door.path:
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.settimeout(ASK_TIMEOUT_S)
            connection.connect(door.path)
        except OSError:
            connection.close()
            raise
        return connection
    return socket.create_connection((reachable(door.host.strip("[]")), door.port), ASK_TIMEOUT_S)
