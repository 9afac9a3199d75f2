"""The gRPC process: two listeners over one client of the broker, from its start to its end.

Knows: the properties that say where and how to listen, signals, the client's life. Must not know: messages,
what calls do.

An address that is taken is found out before gRPC is told of it, which would log the error of its own and say
little. Told to end, it takes no new calls, and what is in flight may end within GRACEFUL_S.
"""

from __future__ import annotations

import asyncio
import errno
import signal
import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import uvloop

from headway import logs
from headway.aio import AsyncClient
from headway.errors import SettingsError
from headway.exits import Exit
from headway.notify import Notifier
from headway.settings import TOKEN_FILE, GatewaySettings, find_token
from headway.torchserve.keys import INFERENCE, MANAGEMENT, Keys
from headway.torchserve.properties import Properties, load_properties
from headway_gateway.torchserve.door_metrics import DoorMetrics
from headway_gateway.torchserve.grpc import oip
from headway_gateway.torchserve.grpc.guard import Guard
from headway_gateway.torchserve.grpc.inference import SERVICE as INFERENCE_SERVICE
from headway_gateway.torchserve.grpc.inference import Inference
from headway_gateway.torchserve.grpc.interface import Interface, Missing
from headway_gateway.torchserve.grpc.management import SERVICE as MANAGEMENT_SERVICE
from headway_gateway.torchserve.grpc.management import Management
from headway_gateway.torchserve.listening import pair_of
from headway_gateway.torchserve.operations import Operations
from headway_gateway.torchserve.registry import Registry

_log = logs.get("headway.grpc")
GRACEFUL_S = 10.0
TOKEN_S = 30.0
TOKEN_POLL_S = 0.1


@dataclass(frozen=True)
class Listener:
    """One of the two addresses, and how long its connections may live (0: as long as they like)."""

    name: str
    host: str
    port: int
    age_ms: int
    age_grace_ms: int

    @property
    def address(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def serve(settings: GatewaySettings) -> int:
    """Run until told to end; returns the exit code. Raises: SettingsError."""
    if not settings.torchserve:
        raise SettingsError("torchserve: the file of properties is needed; `headway torchserve` writes one")
    properties = load_properties(Path(settings.torchserve))
    try:
        for listener in listeners_of(properties):
            check_free(listener)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise SettingsError(
                f"grpc_{listener.name}_address: cannot listen on {listener.address}: {error.strerror}"
            ) from None
        _log.error("another program listens on the address", **{listener.name: listener.address})
        return Exit.LOCKED
    uvloop.run(_run(settings, properties))
    return Exit.OK


async def _run(settings: GatewaySettings, properties: Properties) -> None:
    notifier = Notifier.from_environment()
    told = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, told.set)
    client = AsyncClient(
        settings.callers_address, shm_bytes=settings.shm_bytes, shm_full=settings.shm_full, settings=settings
    )
    registry = Registry(client)
    async with client:
        token = await _token(settings, told)
        operations = Operations(client, registry, properties, token)
        metrics = DoorMetrics(properties)
        servers = Servers(client, properties, registry, operations, metrics)
        metrics.open()
        try:
            await servers.start()
            notifier.ready(f"listening on {', '.join(servers.places.values())}")
            await told.wait()
            notifier.stopping()
            await servers.stop()
        finally:
            metrics.close()


async def _token(settings: GatewaySettings, told: asyncio.Event) -> str:
    """The broker's management token, which a broker that starts for the first time makes: a stack starts all
    its processes at once. Raises: SettingsError when there is none after TOKEN_S, or when told to end."""
    give_up = time.monotonic() + TOKEN_S
    while True:
        try:
            return find_token(settings, settings.state_dir / TOKEN_FILE)
        except SettingsError:
            if told.is_set() or time.monotonic() >= give_up:
                raise
        with suppress(TimeoutError):
            await asyncio.wait_for(told.wait(), TOKEN_POLL_S)


class Servers:
    """Both listeners, over an open client (or stub)."""

    def __init__(
        self,
        client: Any,
        properties: Properties,
        registry: Registry,
        operations: Operations,
        counts: DoorMetrics,
    ) -> None:
        keys = None if properties.disable_token_authorization else _keys(properties)
        inference = Inference(client, registry, properties, counts)
        own = Interface(Guard(keys, INFERENCE), counts)
        serving = [own.serving(INFERENCE_SERVICE, inference.methods)]
        if properties.ts_open_inference_protocol:
            serving.append(own.serving(oip.SERVICE, oip.OpenInference(client, inference).methods))
        other = Interface(Guard(keys, MANAGEMENT), counts)
        managing = [other.serving(MANAGEMENT_SERVICE, Management(operations).methods)]
        self._properties = properties
        self._handlers = {INFERENCE: serving, MANAGEMENT: managing}
        self._servers: list[grpc.aio.Server] = []
        self.places: dict[str, str] = {}

    async def start(self) -> None:
        """Listen. Raises: SettingsError where that cannot be."""
        credentials = credentials_of(self._properties)
        for listener in listeners_of(self._properties):
            handlers = self._handlers[listener.name]
            server = grpc.aio.server(options=options_of(self._properties, listener))
            server.add_generic_rpc_handlers((*handlers, Missing({h.service_name() for h in handlers})))
            port = _add_port(server, listener, credentials)
            await server.start()
            self._servers.append(server)
            self.places[listener.name] = f"{listener.address.rpartition(':')[0]}:{port}"
        _log.info("listening", **self.places, tls=credentials is not None)

    async def stop(self, grace_s: float = GRACEFUL_S) -> None:
        """Take no new calls; what is in flight may end in time."""
        await asyncio.gather(*(server.stop(grace_s) for server in self._servers))
        _log.info("stopped", **self.places)


def listeners_of(properties: Properties) -> list[Listener]:
    """Inference and management."""
    return [
        Listener(
            name,
            getattr(properties, f"grpc_{name}_address"),
            getattr(properties, f"grpc_{name}_port"),
            getattr(properties, f"grpc_{name}_max_connection_age_ms"),
            getattr(properties, f"grpc_{name}_max_connection_age_grace_ms"),
        )
        for name in (INFERENCE, MANAGEMENT)
    ]


def options_of(properties: Properties, listener: Listener) -> list[tuple[str, int]]:
    """gRPC's own words. A reply's size is looked at where its status can still be said."""
    options = [
        ("grpc.so_reuseport", 0),
        ("grpc.max_receive_message_length", properties.max_request_size),
        ("grpc.max_send_message_length", -1),
    ]
    if listener.age_ms > 0:
        options.append(("grpc.max_connection_age_ms", listener.age_ms))
    if listener.age_grace_ms > 0:
        options.append(("grpc.max_connection_age_grace_ms", listener.age_grace_ms))
    return options


def credentials_of(properties: Properties) -> grpc.ServerCredentials | None:
    """The certificate and its key; None without `enable_grpc_ssl`. Here the two files count before the
    keystore, which TorchServe's gRPC does not read at all. Raises: SettingsError."""
    if not properties.enable_grpc_ssl:
        return None
    if properties.keystore and not (properties.private_key_file and properties.certificate_file):
        return grpc.ssl_server_credentials([pair_of(properties)])
    pair = tuple(_pem(properties, name) for name in ("private_key_file", "certificate_file"))
    return grpc.ssl_server_credentials([pair])


def _pem(properties: Properties, name: str) -> bytes:
    path = getattr(properties, name)
    if not path:
        raise SettingsError(f"{name}: enable_grpc_ssl needs one")
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise SettingsError(f"{name}: {path}: {error.strerror}") from None


def check_free(listener: Listener) -> None:
    """Raises: OSError where nobody can listen there."""
    try:
        found = socket.getaddrinfo(listener.host, listener.port, type=socket.SOCK_STREAM)
    except UnicodeError as error:
        raise OSError(errno.EINVAL, str(error)) from None
    family, kind, _, _, place = found[0]
    with socket.socket(family, kind) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(place)
        probe.listen()  # only now is a busy one told, where both reuse addresses


def _add_port(server: grpc.aio.Server, listener: Listener, credentials: grpc.ServerCredentials | None) -> int:
    try:
        if credentials is None:
            return int(server.add_insecure_port(listener.address))
        return int(server.add_secure_port(listener.address, credentials))
    except RuntimeError as error:
        what = f" with {listener.name}'s certificate" if credentials else ""
        raise SettingsError(
            f"grpc_{listener.name}_address: cannot listen on {listener.address}{what}: {error}"
        ) from None


def _keys(properties: Properties) -> Keys:
    if not properties.key_file:
        raise SettingsError("key_file: token authorization needs one")
    return Keys(Path(properties.key_file), properties.token_expiration_min)
