"""headway_gateway.connection: real sockets, bytes cut as no HTTP client would cut them.

`Online` and `Peer` are both ends, in one event loop; `test_lane` has them from here.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import logging
import random
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import uvicorn
import uvloop

from headway.body import Body
from headway.errors import QueueFull
from headway.lent import Lender
from headway.messages import OK, Reply
from headway.refs import SLOT
from headway.settings import GatewaySettings
from headway.shm import Mapped
from headway.stub import AsyncStubClient
from headway_gateway.app import create_doors
from headway_gateway.connection import Connection
from headway_gateway.doors import ADDRESSES, Place
from tests.gateway.conftest import MODELS

LARGE = bytes(range(251)) * 800  # 200,800 bytes
BIG = bytes(1 << 20)


def looped(test: Callable[..., Any]) -> Callable[..., None]:
    """A test that is a coroutine."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        uvloop.run(asyncio.wait_for(test(*args, **kwargs), 30))

    return run


async def until(condition: Callable[[], Any]) -> None:
    """For what no event tells."""
    while not condition():
        await asyncio.sleep(0.001)


class Online:
    """The gateway over `client` behind a real uvicorn, in the running event loop."""

    create = staticmethod(create_doors)

    def __init__(self, client: Any, settings: Any, http: type = Connection, **config: Any) -> None:
        self.client = client
        self._listeners = {name: socket.create_server(("127.0.0.1", 0)) for name in ADDRESSES}
        places = {name: Place(*at.getsockname()) for name, at in self._listeners.items()}
        self.doors = self.create(client, settings, places)
        self.app = self.doors.apps["http"]
        self._peers: list[Any] = []
        own: dict[str, Any] = {"lifespan": "on", "log_config": None, "proxy_headers": False, "ws": "none"}
        options = {**own, "loop": "uvloop", "server_header": False, **config}
        self.server = uvicorn.Server(uvicorn.Config(self.doors, http=http, **options))

    async def __aenter__(self) -> Online:
        self.serving = asyncio.create_task(self.server.serve([*self._listeners.values()]))
        await until(lambda: self.server.started)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.serving.cancel()  # a graceful end takes 0.2 s
        await asyncio.wait([self.serving])
        await self.server.lifespan.shutdown()
        for end in [connection.transport for connection in self.connections] + self._peers:
            end.abort()
        for listening in self.server.servers:
            listening.close()
        await until(lambda: not self.connections)
        if lane := getattr(self.app, "lane", None):
            company = lane.company
            assert (company.members, company.waiting) == (0, 0), "whatever became of connections and requests"

    @property
    def connections(self) -> list[Any]:
        return list(self.server.server_state.connections)

    async def peer(self, receive_bytes: int = 0, door: str = "http") -> Peer:
        plain = socket.socket()
        if receive_bytes:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        plain.connect(self._listeners[door].getsockname())  # it listens, so this does not wait
        reader, writer = await asyncio.open_connection(sock=plain)
        self._peers.append(writer.transport)
        return Peer(reader, writer)

    async def ask(self, request: bytes, door: str = "http") -> Answered:
        """One request on a connection of its own."""
        peer = await self.peer(door=door)
        peer.send(request)
        answer = await peer.answer()
        await peer.leave()
        return answer


class Answered(NamedTuple):
    """What came back; of `date`, that it is there."""

    status: bytes
    headers: list[bytes]
    body: bytes


class Peer:
    """The other end of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer

    def send(self, *requests: bytes) -> None:
        """In one packet, if they fit into one."""
        self.writer.write(b"".join(requests))

    async def send_pieces(self, data: bytes, cuts: list[int]) -> None:
        """Each on its own, with time for the other end to read it."""
        for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
            self.writer.write(data[start:end])
            await self.writer.drain()
            for _ in range(3):
                await asyncio.sleep(0)

    async def answer(self) -> Answered:
        head = await self._reader.readuntil(b"\r\n\r\n")
        status, *headers = head[:-4].split(b"\r\n")
        lengths = [int(h[15:]) for h in headers if h.startswith(b"content-length:")]
        body = await self._reader.readexactly(lengths[0] if lengths else 0)
        return Answered(status, sorted(h[:5] if h.startswith(b"date:") else h for h in headers), body)

    async def rest(self) -> bytes:
        """All that comes until the other end closes."""
        read = b""
        with contextlib.suppress(ConnectionError):
            while chunk := await self._reader.read(1 << 16):
                read += chunk
        return read

    async def leave(self) -> None:
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()


def post(path: str, body: bytes = b"", *headers: str, line: str = "POST {} HTTP/1.1") -> bytes:
    """A request; with its length, unless the headers say how long it is."""
    said = "".join(headers).lower()
    length = [] if "transfer-enc" in said or "content-length" in said else [f"Content-Length: {len(body)}"]
    return "\r\n".join([line.format(path), "Host: x", *length, *headers, "", ""]).encode("latin1") + body


def echo(body: bytes, *headers: str) -> bytes:
    return post("/predictions/echo", body, *headers)


def long_echo(body: bytes) -> bytes:
    """The same answer, the long way."""
    return post("/predictions/echo?q", body)


PING = post("/ping", b"", "Connection: close", line="GET {} HTTP/1.1")


class Ways(AsyncStubClient):
    """Counts the requests that came the short way."""

    shorts = 0

    def start(self, *args: Any) -> int:
        self.shorts += 1
        return super().start(*args)


class Lending(Ways):
    """Has shared memory, and reads requests from it as a worker does. `slots` counts those."""

    slots = 0

    def __init__(self, models: Any, run_dir: Path) -> None:
        super().__init__(models)
        self.lender = Lender(f"ipc://{run_dir}/broker.sock", 1 << 22)
        self._mapped = Mapped(run_dir / "segments")

    async def reply(self, asked: Any, timeout_s: float | None = None) -> Reply:
        if SLOT not in asked.options:
            return await super().reply(asked, timeout_s)
        self.slots += 1
        tensors = bytes(self._mapped.request(asked.options[SLOT]))
        options = {key: value for key, value in asked.options.items() if key != SLOT}
        return await super().reply(asked._replace(tensors=tensors, options=options, lent=()), timeout_s)

    async def close(self) -> None:
        self.lender.close()


class Desk(AsyncStubClient):
    """What comes the short way waits until the test answers it through `waiting`."""

    def __init__(self, lender: Lender | None = None) -> None:
        super().__init__(MODELS)
        self.lender = lender or self.lender
        self.waiting: asyncio.Queue[Callable[[Any], None]] = asyncio.Queue()
        self.abandoned: list[int] = []

    def start(self, asked: Any, timeout_s: float | None, done: Callable[[Any], None]) -> int:
        self.waiting.put_nowait(done)
        return 7

    def abandon(self, id: int) -> None:
        self.abandoned.append(id)
        if not self.waiting.empty():
            self.waiting.get_nowait()


DONE = Reply(0, OK, b"done", {})


@pytest.fixture
def settings(tmp_path: Path) -> GatewaySettings:
    return GatewaySettings(run_dir=tmp_path, body_bytes_max=300_000)


@pytest.fixture
def lender(tmp_path: Path):
    lender = Lender(f"ipc://{tmp_path}/broker.sock", 1 << 22)
    yield lender
    lender.close()


# ---- requests and answers ----

SHORT, LONG, REFUSED = echo, long_echo, functools.partial(post, "/v2/models/double/infer")


@pytest.mark.parametrize(
    "kinds",
    [(SHORT, SHORT), (SHORT, LONG), (LONG, SHORT), (REFUSED, SHORT), (SHORT, REFUSED),
     (REFUSED, LONG, REFUSED), (SHORT, LONG, SHORT), (LONG, SHORT, LONG), (SHORT, SHORT, SHORT)],
)  # fmt: skip
@looped
async def test_requests_in_one_packet_are_answered_in_order_and_once(settings, kinds):
    async with Online(AsyncStubClient(MODELS), settings) as online:
        peer = await online.peer()
        peer.send(*[kind(b"body%d" % i) for i, kind in enumerate(kinds)], PING)
        for i, kind in enumerate(kinds):
            answer = await peer.answer()
            assert answer.body == b"body%d" % i if kind is not REFUSED else b"not JSON" in answer.body
        assert (await peer.answer()).body == b'{"status": "Healthy"}'
        assert await peer.rest() == b""


@pytest.mark.parametrize("way", [SHORT, LONG])
@looped
async def test_a_body_for_which_there_is_no_room_is_refused_where_that_is_wished(settings, tmp_path, way):
    lender = Lender(f"ipc://{tmp_path}/broker.sock", 1 << 22, refuses=True)
    taken = []
    while (lent := lender.take(200_000)) is not None:
        taken.append(lent)
    async with Online(client := AsyncStubClient(MODELS), settings) as online:
        client.lender = lender
        peer = await online.peer()
        peer.send(way(LARGE))
        answer = await peer.answer()
        assert answer.status == b"HTTP/1.1 503 Service Unavailable" and b"retry-after: 1" in answer.headers
        assert not client.calls
        peer.send(SHORT(b"small"))
        assert (await peer.answer()).body == b"small"
    del taken, lent
    lender.close()


@looped
async def test_a_request_that_comes_byte_by_byte_is_answered_as_in_one_piece(settings):
    async with Online(stub := Ways(MODELS), settings) as online:
        peer = await online.peer()
        request = echo(b"x" * 100, "Content-Type: a/b")
        await peer.send_pieces(request, list(range(1, len(request))))
        assert await peer.answer() == await online.ask(request)
        assert stub.shorts == 2


def random_cuts(seed: int, data: bytes, body_bytes: int) -> list[int]:
    """Anywhere, and where it hurts: around the end of the head, and of the body."""
    chance = random.Random(seed)
    head = data.index(b"\r\n\r\n") + 4
    ends = [edge + chance.randint(-2, 2) for edge in (head, head + body_bytes) if chance.random() < 0.7]
    return sorted({*ends, *chance.sample(range(1, len(data)), chance.randint(0, 9))})


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("body", [b"y" * 100, LARGE, LARGE[: 1 << 16]], ids=["small", "large", "just large"])
@looped
async def test_a_request_in_random_pieces_is_answered_and_so_is_the_next(settings, tmp_path, body, seed):
    client = Lending(MODELS, tmp_path) if seed % 2 else Ways(MODELS)
    async with Online(client, settings) as online:
        peer = await online.peer()
        requests = echo(body) + echo(b"next") + PING
        await peer.send_pieces(requests, random_cuts(seed, requests, len(body)))
        assert [(await peer.answer()).body for _ in range(3)] == [body, b"next", b'{"status": "Healthy"}']
        assert await peer.rest() == b"" and client.shorts
        if isinstance(client, Lending):
            assert client.slots == (len(body) > 100)
            await until(lambda: client.lender.taken == 0)


@looped
async def test_large_bodies_on_one_connection_do_not_mix(settings, tmp_path):
    async with Online(client := Lending(MODELS, tmp_path), settings) as online:
        peer = await online.peer()
        bodies = [bytes([i]) * (1 << 16 + i % 2) for i in range(6)]
        for body in bodies:
            peer.send(echo(body))
            assert (await peer.answer()).body == body
        assert (client.slots, client.shorts) == (6, 6)


@pytest.mark.parametrize("size", [1 << 16, (1 << 16) + 1, 5 << 20])
@looped
async def test_a_large_answer_is_whole(settings, size):
    body = (b"0123456789abcdef" * (size // 16 + 1))[:size]
    async with Online(Ways({"big": lambda _: Body(body)}), settings) as online:
        peer = await online.peer()
        for _ in range(2):
            peer.send(post("/predictions/big"))
            assert (await peer.answer()).body == body


# ---- the end of a connection ----


@pytest.mark.parametrize("line", ["POST {} HTTP/1.1", "POST {} HTTP/1.0"])
@pytest.mark.parametrize("body", [b"x", LARGE], ids=["small", "large"])
@looped
async def test_an_answer_after_which_the_connection_closes_says_so(settings, line, body):
    async with Online(AsyncStubClient(MODELS), settings) as online:
        peer = await online.peer()
        peer.send(post("/predictions/echo", body, "Connection: close", line=line))
        answer = await peer.answer()
        assert b"connection: close" in answer.headers and answer.body == body
        assert await peer.rest() == b""


@pytest.mark.parametrize("first", [echo, long_echo, REFUSED])
@pytest.mark.parametrize("second", [echo, REFUSED])
@pytest.mark.parametrize("before", [b"", REFUSED(LARGE)], ids=["", "after a large body"])
@looped
async def test_nothing_is_answered_after_an_answer_that_closes(settings, first, second, before):
    async with Online(client := Ways(MODELS), settings) as online:
        peer = await online.peer()
        if before:
            peer.send(before)
            await peer.answer()
        peer.send(first(b"1").replace(b"Host: x", b"Connection: close"), second(b"2"))
        assert b"Invalid HTTP" not in (await peer.answer()).body
        assert await peer.rest() == b""
        assert (client.shorts, len(client.calls)) == (first is echo, first is not REFUSED)


@pytest.mark.parametrize("sent", [b"", b"POST /predi", echo(b"abc")[:-1], echo(LARGE)[:9000]], ids=range(4))
@looped
async def test_a_client_may_leave_before_its_request_is_whole(settings, caplog, sent):
    async with Online(client := Desk(), settings) as online:
        peer = await online.peer()
        peer.send(echo(b"") if sent else b"", sent)
        if sent:
            (await client.waiting.get())(DONE)
            await peer.answer()
        await until(lambda: online.connections)
        await peer.leave()
        await until(lambda: not online.connections)
        assert not client.abandoned and not client.calls
    assert [record for record in caplog.records if record.levelno > logging.INFO] == []


@pytest.mark.parametrize("behind", [b"", echo(b"2"), echo(b"2")[:30]], ids=["alone", "one waits", "half"])
@pytest.mark.parametrize("body", [b"x", LARGE], ids=["small", "large"])
@looped
async def test_a_request_in_flight_is_abandoned_once_when_its_client_leaves(settings, caplog, body, behind):
    async with Online(client := Desk(), settings) as online:
        peer = await online.peer()
        peer.send(echo(body) + behind)
        done = await client.waiting.get()
        written = online.connections[0].transport
        await peer.leave()
        await until(lambda: not online.connections)
        assert client.abandoned == [7] and written.is_closing()
        del done
        await asyncio.sleep(0.01)
        assert client.abandoned == [7] and not client.calls
    assert [record for record in caplog.records if record.levelno > logging.INFO] == []


@looped
async def test_a_request_in_flight_is_answered_when_the_server_ends(settings):
    async with Online(client := Desk(), settings) as online:
        idle, busy = await online.peer(), await online.peer()
        busy.send(echo(b"x"))
        done = await client.waiting.get()
        online.server.should_exit = True
        assert await idle.rest() == b""  # closed: the shutdown has begun
        done(DONE)
        answer = await busy.answer()
        assert answer.body == b"done" and b"connection: close" in answer.headers
        assert await busy.rest() == b""
        await online.serving


@pytest.mark.parametrize("is_fresh", [True, False])
@pytest.mark.parametrize("request_", [echo(b"x"), long_echo(b"x")], ids=["short", "long"])
@looped
async def test_a_request_on_its_way_when_the_server_ends_is_answered_as_the_last(
    settings, request_, is_fresh
):
    async with Online(AsyncStubClient(MODELS), settings) as online:
        peer = await online.peer()
        if not is_fresh:
            peer.send(request_)
            await peer.answer()
        await until(lambda: online.connections)
        online.connections[0].shutdown()
        await asyncio.sleep(0.05)
        peer.send(request_)
        answer = await peer.answer()
        assert b"200" in answer.status and b"connection: close" in answer.headers
        assert await peer.rest() == b""


@looped
async def test_a_connection_that_idles_is_closed(settings):
    async with Online(AsyncStubClient(MODELS), settings, timeout_keep_alive=0.1) as online:
        peer = await online.peer()
        peer.send(echo(LARGE))
        await peer.answer()
        started = asyncio.get_running_loop().time()
        assert await peer.rest() == b""
        assert 0.05 < asyncio.get_running_loop().time() - started < 2


@pytest.mark.parametrize("before", [b"", SHORT(b""), REFUSED(b"?"), LONG(b"")], ids=range(4))
@pytest.mark.parametrize("body", [b"x", LARGE], ids=["small", "large"])
@looped
async def test_a_connection_is_not_idle_while_a_request_is_in_flight(settings, before, body):
    """Whatever was answered just before, in the same packet too."""
    async with Online(client := Desk(), settings, timeout_keep_alive=0.05) as online:
        peer = await online.peer()
        peer.send(before, echo(body))
        if before == echo(b""):
            (await client.waiting.get())(DONE)
        if before:
            await peer.answer()
        await asyncio.sleep(0.15)
        if before in (b"", REFUSED(b"?")):
            (await client.waiting.get())(DONE)
        answer = await peer.answer()  # the others' second request waited, and so went the long way
        assert answer.status == b"HTTP/1.1 200 OK" and answer.body in (b"done", body)


# ---- what is wrong ----


@pytest.mark.parametrize("before", [b"", SHORT(b""), SHORT(LARGE), LONG(LARGE), REFUSED(LARGE)], ids=range(5))
@pytest.mark.parametrize("bad", [b"NONSENSE\r\n\r\n", post("/predictions/echo", b"", "Content-Length: x")])
@looped
async def test_what_is_not_http_is_400_and_the_end(settings, before, bad):
    async with Online(AsyncStubClient(MODELS), settings) as online:
        peer = await online.peer()
        if before:
            peer.send(before)
            await peer.answer()
        peer.send(bad)
        answer = await peer.answer()
        assert answer.status == b"HTTP/1.1 400 Bad Request"
        assert answer.body == b"Invalid HTTP request received."
        assert await peer.rest() == b""


@looped
async def test_a_client_that_does_not_read_is_not_answered_from_memory(settings):
    async with Online(client := Ways({"big": lambda _: Body(BIG)}), settings) as online:
        peer = await online.peer(receive_bytes=4096)
        await until(lambda: online.connections)
        (connection,) = online.connections
        while not connection.flow.write_paused:
            peer.send(post("/predictions/big"))
            answered = online.server.server_state.total_requests + 1
            await until(lambda answered=answered: online.server.server_state.total_requests == answered)
        sent = client.shorts
        assert online.server.server_state.total_requests == sent < 50
        for _ in range(4):
            peer.send(post("/predictions/big"))
            await asyncio.sleep(0.01)
        assert client.shorts == sent and connection.transport.get_write_buffer_size() < 2 * len(BIG)
        assert [(await peer.answer()).body == BIG for _ in range(sent + 4)] == [True] * (sent + 4)
        peer.send(post("/predictions/big"))
        assert (await peer.answer()).body == BIG
        assert client.shorts == sent + 1  # it may go the short way again


# ---- memory ----


async def refuse(peer: Peer, client: Desk) -> None:
    (await client.waiting.get())(QueueFull("full"))
    await peer.answer()


async def reply(peer: Peer, client: Desk) -> None:
    (await client.waiting.get())(DONE)
    await peer.answer()


async def leave_in_flight(peer: Peer, client: Desk) -> None:
    await until(lambda: not client.waiting.empty())
    await peer.leave()
    await until(lambda: client.abandoned)


async def read_refusal(peer: Peer, client: Desk) -> None:
    assert b"400" in (await peer.answer()).status


async def leave_in_the_body(peer: Peer, client: Desk) -> None:
    await until(lambda: client.lender.taken)
    await peer.leave()


@pytest.mark.parametrize(
    ("request_", "end"),
    [(echo(LARGE), reply), (echo(LARGE), refuse), (echo(LARGE), leave_in_flight),
     (REFUSED(LARGE), read_refusal), (echo(LARGE)[:-1], leave_in_the_body),
     (echo(LARGE)[:500], leave_in_the_body)],
    ids=["replied", "refused", "left in flight", "not JSON", "left in the body", "left at its beginning"],
)  # fmt: skip
@looped
async def test_a_slot_is_free_at_once(settings, lender, request_, end, without_gc):
    """Not with the next collection of cycles: until then large requests would find no room."""
    async with Online(client := Desk(lender), settings) as online:
        peer = await online.peer()
        peer.send(request_)
        await end(peer, client)
        if peer.writer.is_closing():
            await until(lambda: not online.connections)
        await asyncio.sleep(0.01)
        assert lender.taken == 0


@pytest.fixture
def without_gc():
    gc.collect()
    gc.disable()
    yield
    gc.enable()
