"""TorchServe's gRPC interfaces over stubs, with real connections on loopback."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import grpc.aio
from google.protobuf.message_factory import GetMessageClass

from headway.body import Body
from headway.stub import AsyncStubClient
from headway.torchserve.properties import Properties
from headway.torchserve.registration import Registration
from headway_gateway.torchserve.grpc.server import Servers
from headway_gateway.torchserve.operations import Done
from headway_gateway.torchserve.refusal import no_model

TIMEOUT_S = 10.0
PROPERTIES = Properties(
    grpc_inference_port=0,
    grpc_management_port=0,
    disable_token_authorization=True,
    enable_model_api=True,
    ts_open_inference_protocol=True,
)
MODELS: dict[str, Callable[[Any], Any]] = {"echo": lambda body: Body(body.data, body.content_type)}


class FakeRegistry:
    """`registrations` by model and version; "" is the default version's."""

    def __init__(self, *registrations: Registration) -> None:
        self._of = {r.key: r for r in registrations} | {(r.model, ""): r for r in registrations}

    def of(self, model: str, version: str = "") -> Registration | None:
        return self._of.get((model, version))

    async def find(self, model: str, version: str = "") -> Registration | None:
        return self.of(model, version)


class FakeOperations:
    """Does nothing, and remembers what was ordered in `orders`."""

    def __init__(self, is_model_api_on: bool = True) -> None:
        self.is_model_api_on = is_model_api_on
        self.orders: list[tuple[Any, ...]] = []
        self.fails: Exception | None = None

    def __getattr__(self, verb: str) -> Callable[..., Awaitable[Any]]:
        async def ordered(*arguments: Any) -> Any:
            self.orders.append((verb, *arguments))
            if self.fails:
                raise self.fails
            if verb == "describe":
                if arguments[0] == "none":
                    raise no_model("none")
                return [{"modelName": arguments[0]}]
            return {"models": []} if verb == "list_models" else Done(200, f"{verb} done")

        return ordered


class Counted:
    """Remembers `predictions` and `accesses`."""

    def __init__(self) -> None:
        self.predictions: list[tuple[int, str, str]] = []
        self.accesses: list[tuple[str, int]] = []
        self.metas: list[Mapping[str, Any] | None] = []

    def count(
        self,
        status: int,
        model: str,
        version_named: str,
        took_s: float,
        meta: Mapping[str, Any] | None = None,
        timed: bool = True,
    ) -> None:
        assert took_s >= 0 and not timed
        self.predictions.append((status, model, version_named))
        self.metas.append(meta)

    def access(self, peer: str, line: str, status: int, took_s: float) -> None:
        assert peer.startswith("127.0.0.1:") and took_s >= 0
        self.accesses.append((line, status))


class Site:
    """Servers, and a client's way to call them. `client`, `operations` and `counted` are behind them."""

    def __init__(
        self,
        client: Any = None,
        properties: Properties = PROPERTIES,
        registry: FakeRegistry | None = None,
        operations: FakeOperations | None = None,
        **changed: Any,
    ) -> None:
        self.client = client or AsyncStubClient(MODELS)
        self.operations = operations or FakeOperations()
        self.counted = Counted()
        self._registry = registry or FakeRegistry()
        self._properties = dataclasses.replace(properties, **changed)
        self.credentials: grpc.ChannelCredentials | None = None

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Servers]:
        operations: Any = self.operations
        servers = Servers(self.client, self._properties, self._registry, operations, self.counted)
        await servers.start()
        try:
            yield servers
        finally:
            await servers.stop(0)

    def call(self, service: Any, method: str, request: Any, metadata: Iterable[tuple[str, str]] = ()) -> Any:
        """What comes of one call: its answer, or the list of its answers. Raises: AioRpcError."""

        async def run() -> Any:
            async with self.serving() as servers, self.channel(servers, service) as channel:
                called = stub_of(channel, service, method)(
                    request, timeout=TIMEOUT_S, metadata=tuple(metadata)
                )
                if service.methods_by_name[method].server_streaming:
                    return [answer async for answer in called]
                return await called

        return asyncio.run(run())

    def channel(self, servers: Servers, service: Any) -> grpc.aio.Channel:
        name = "management" if "management" in service.full_name else "inference"
        if self.credentials:
            return grpc.aio.secure_channel(servers.places[name], self.credentials)
        return grpc.aio.insecure_channel(servers.places[name])


def stub_of(channel: grpc.aio.Channel, service: Any, method: str) -> Any:
    described = service.methods_by_name[method]
    takes = "stream" if described.client_streaming else "unary"
    gives = "stream" if described.server_streaming else "unary"
    return getattr(channel, f"{takes}_{gives}")(
        f"/{service.full_name}/{method}",
        request_serializer=GetMessageClass(described.input_type).SerializeToString,
        response_deserializer=GetMessageClass(described.output_type).FromString,
    )
