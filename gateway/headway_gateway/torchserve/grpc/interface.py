"""One gRPC service: how each of its calls is taken, whatever it does.

    interface = Interface(Guard(keys, "inference"), counts)
    server.add_generic_rpc_handlers([interface.serving(SERVICE, {"Ping": self.ping, ...})])

A method is `async def method(request, context)` and returns its answer, or is an asynchronous generator of
answers where the service says that it streams. What it raises becomes the call's status. A method of the
service that is not given here is `Missing`.

A client that leaves, or whose deadline is over, cancels the method: gRPC does so.

Knows: grpc. Must not know: what the methods do, addresses.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import Any
from urllib.parse import unquote

import grpc
import grpc.aio
from google.protobuf.message_factory import GetMessageClass

from headway import logs
from headway.errors import HeadwayError
from headway_gateway.inference import Target
from headway_gateway.torchserve.asking import refusal_of
from headway_gateway.torchserve.door_metrics import DoorMetrics
from headway_gateway.torchserve.grpc.guard import Guard
from headway_gateway.torchserve.grpc.status import code_of, details_of
from headway_gateway.torchserve.refusal import Refusal

_log = logs.get("headway.grpc")
Method = Callable[[Any, Any], Any]


class Interface:
    """`counts` is told of every call when it has ended."""

    def __init__(self, guard: Guard, counts: DoorMetrics) -> None:
        self._guard = guard
        self._counts = counts

    def serving(self, service: Any, methods: Mapping[str, Method]) -> grpc.GenericRpcHandler:
        """The handlers of a service, as its descriptor says it; for a server to add."""
        taken = {
            name: self._handler(service.methods_by_name[name], method) for name, method in methods.items()
        }
        return grpc.method_handlers_generic_handler(service.full_name, taken)

    def _handler(self, described: Any, method: Method) -> grpc.RpcMethodHandler:
        name = f"{described.containing_service.full_name}/{described.name}"
        takes = "stream" if described.client_streaming else "unary"
        gives = "stream" if described.server_streaming else "unary"
        make = getattr(grpc, f"{takes}_{gives}_rpc_method_handler")
        behaviour = (
            self._streaming(name, method) if described.server_streaming else self._single(name, method)
        )
        return make(
            behaviour,
            request_deserializer=GetMessageClass(described.input_type).FromString,
            response_serializer=GetMessageClass(described.output_type).SerializeToString,
        )

    def _single(self, name: str, method: Method) -> Method:
        async def call(request: Any, context: Any) -> Any:
            async with self._taken(name, context):
                return await method(request, context)

        return call

    def _streaming(self, name: str, method: Method) -> Method:
        async def call(request: Any, context: Any) -> AsyncIterator[Any]:
            async with self._taken(name, context), aclosing(method(request, context)) as answers:
                async for answer in answers:
                    yield answer

        return call

    @asynccontextmanager
    async def _taken(self, name: str, context: Any) -> AsyncIterator[None]:
        """A call, from its token to its status."""
        began, code = time.monotonic(), grpc.StatusCode.OK
        peer = peer_of(context)  # now: of a client that has left nobody knows the address any more
        try:
            self._guard.admit(context.invocation_metadata() or ())
            yield
        except (asyncio.CancelledError, GeneratorExit):
            code = grpc.StatusCode.CANCELLED
            raise
        except Exception as error:
            refusal = _refused(error, name)
            code = code_of(refusal)
            await context.abort(code, details_of(refusal))
        finally:
            took_s = time.monotonic() - began
            self._counts.access(peer, f"gRPC {name} HTTP/2.0", code.value[0], took_s)


class Missing(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpc has no types
    """What no service answers, in the words of TorchServe's gRPC. To be added after all others.
    `services`: the full names of those that are there."""

    def __init__(self, services: Collection[str]) -> None:
        self._services = services

    def service(self, details: Any) -> grpc.RpcMethodHandler:
        name = details.method.lstrip("/")
        is_known = name.rpartition("/")[0] in self._services
        text = f"Method {name} is unimplemented" if is_known else f"Method not found: {name}"

        async def refuse(request: Any, context: Any) -> None:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, text)

        return grpc.unary_unary_rpc_method_handler(refuse)


def peer_of(context: Any) -> str:
    """ADDRESS:PORT of the client."""
    return unquote(context.peer()).partition(":")[2]


def _refused(error: Exception, name: str) -> Refusal:
    if isinstance(error, Refusal):
        return error
    if isinstance(error, HeadwayError):
        return refusal_of(error, Target("", ""))
    _log.exception("unexpected error", method=name)
    return Refusal(500, "InternalServerException", "internal error")
