"""The HTTP request as Falcon's routes see it: its body within limits, and whether its client is still there.

Knows: ASGI's events and the headers that every dialect shares. Must not know: models, dialects, errors
as HTTP.

Falcon's own stream is not used: it ends at a lost connection as if the body ended there, and a body half
received must not be run. Its media parsers are not used either: the protocol's clients send no
Content-Type, or a wrong one.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Awaitable
from time import perf_counter
from typing import Any, TypeVar

import falcon
import falcon.asgi

from headway.errors import Cancelled, InvalidInput, TooLarge
from headway.lent import Lender, Received
from headway.settings import GatewaySettings
from headway.tensors import Buffer
from headway_gateway.inference import Answer, Inference, Question, Target, check_names, timeout_s

T = TypeVar("T")
WATCH_AFTER_S = 0.05  # most requests are over by then, and watching costs a task
SPELLED = "headway.spelled"  # in a request's scope: its headers as the client wrote them
_WINDOW_BITS = {"gzip": 31, "deflate": 15}  # deflate is the zlib format, not raw DEFLATE


class Request(falcon.asgi.Request):
    """Falcon's request, which also keeps what ASGI gave: the first event and the way to further ones."""

    def __init__(
        self, scope: dict[str, Any], receive: Any, first_event: Any = None, options: Any = None
    ) -> None:
        self.started = perf_counter()
        self.receive = receive
        self.first_event: dict[str, Any] = first_event or {}
        self.received: Received | None = None  # where the body is, if that is shared memory
        if not scope["query_string"].isascii():  # Falcon would fail where no error handler reaches
            scope["query_string"] = b""
        super().__init__(scope, receive, first_event, options)

    @property
    def spelled(self) -> dict[str, str]:
        """All headers, their names as the client wrote them if the connection knows (`SPELLED`)."""
        headers = self.scope.get(SPELLED) or self.scope["headers"]
        return {name.decode("latin1"): value.decode("latin1") for name, value in headers}

    async def body(
        self, bytes_max: int, lender: Lender | None = None, before: int = 0, unpacks: bool = True
    ) -> Buffer:
        """The whole body, unpacked if it came compressed and `unpacks`. A large one is received into a slot
        of
        `lender`'s; its first `before` bytes are no tensor's.

        Raises: TooLarge, before a byte is read where Content-Length says so; InvalidInput; Cancelled
        when the client went before its end.
        """
        length = self.content_length
        _check_size(length or 0, bytes_max)
        encoding = self.get_header("Content-Encoding") if unpacks else None
        if encoding not in (None, "identity"):
            return inflated(await self._body(bytes_max), encoding or "", bytes_max)
        if lender and length and self.first_event.get("more_body"):
            self.received = lender.receive(length, before)
        return await (self._into(self.received.view) if self.received else self._body(bytes_max))

    async def _body(self, bytes_max: int) -> bytes:
        if not self.first_event.get("more_body"):  # PERF: the many small ones need no iterator
            body: bytes = self.first_event.get("body", b"")
            _check_size(len(body), bytes_max)
            self._check_length(len(body))
            return body
        chunks, size = [], 0
        async for chunk in self._chunks():
            chunks.append(chunk)
            size += len(chunk)
            _check_size(size, bytes_max)
        self._check_length(size)
        return b"".join(chunks)

    async def _into(self, room: memoryview) -> memoryview:
        size = 0
        async for chunk in self._chunks():
            if size + len(chunk) > len(room):
                raise InvalidInput(f"the body goes on after its {len(room)} bytes")
            room[size : size + len(chunk)] = chunk
            size += len(chunk)
        self._check_length(size)
        return room

    async def _chunks(self) -> AsyncIterator[bytes]:
        event = self.first_event
        yield event.get("body", b"")
        while event.get("more_body"):
            event = await self.receive()
            if event["type"] == "http.disconnect":
                raise Cancelled("the client left before the end of its body")
            yield event.get("body", b"")

    def _check_length(self, size: int) -> None:
        length = self.content_length
        if length is not None and length != size:
            raise InvalidInput(f"Content-Length says {length} bytes, the body has {size}")

    async def while_connected(self, answer: Awaitable[T]) -> T:
        """The answer. A client that leaves meanwhile cancels it. Raises: Cancelled, and what it raises."""
        watch = _Watch(self.receive)
        try:
            return await answer
        except asyncio.CancelledError:
            if watch.gone and watch.task.uncancel() == 0:
                raise Cancelled("the client left") from None
            raise
        finally:
            watch.stop()


class _Watch:
    """Cancels the task that made it once ASGI reports that the client is gone."""

    __slots__ = ("_receive", "_timer", "_watcher", "gone", "task")

    def __init__(self, receive: Any) -> None:
        self.gone = False
        task = asyncio.current_task()
        assert task is not None
        self.task = task
        self._receive = receive
        self._watcher: asyncio.Task[None] | None = None
        self._timer = task.get_loop().call_later(WATCH_AFTER_S, self._start)

    def stop(self) -> None:
        self._timer.cancel()
        if self._watcher:
            self._watcher.cancel()

    def _start(self) -> None:
        self._watcher = asyncio.create_task(self._run())

    async def _run(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.gone = True
        self.task.cancel()


async def respond(
    req: Request, resp: Any, dialect: Inference, target: Target, client: Any, settings: GatewaySettings
) -> None:
    """The whole of an inference route. Raises: what the dialect and the broker have to say."""
    check_names(target)
    timeout_s(req, settings)  # before a large body is read in vain
    body = await req.body(settings.body_bytes_max, client.lender, dialect.before(req))
    await exchange(req, resp, dialect.asks(target, req)(body, req.received), client)


async def exchange(req: Request, resp: Any, question: Question, client: Any) -> None:
    """Ask, and write the answer into the response."""
    reply = await req.while_connected(client.reply(question.asked, question.timeout_s))
    write(resp, question.answer(reply))


def write(resp: Any, answer: Answer) -> None:
    """Make it Falcon's response."""
    resp.status = answer.status
    resp.content_type = answer.content_type
    resp.data = answer.data
    for name, value in answer.headers:
        resp.set_header(name, value)


def inflated(body: bytes, encoding: str, bytes_max: int) -> bytes:
    """The body without its compression; never more than `bytes_max` is unpacked.

    Raises: InvalidInput, TooLarge, falcon.HTTPNotImplemented for another encoding.
    """
    if encoding not in _WINDOW_BITS:
        headers = {"Accept-Encoding": "gzip, deflate"}
        raise falcon.HTTPNotImplemented(
            description=f"Content-Encoding {encoding!r} is not supported", headers=headers
        )
    unpacker = zlib.decompressobj(_WINDOW_BITS[encoding])
    try:
        plain = unpacker.decompress(body, bytes_max + 1)
    except zlib.error as error:
        raise InvalidInput(f"the body is not {encoding}: {error}") from None
    _check_size(len(plain), bytes_max)
    if not unpacker.eof or unpacker.unused_data:
        raise InvalidInput(f"the body is not one whole {encoding} stream")
    return plain


def _check_size(size: int, bytes_max: int) -> None:
    if size > bytes_max:
        raise TooLarge(f"a body of {size} bytes is over the limit of {bytes_max}")
