"""headway_gateway.request: bodies within limits, timeouts, and clients that leave."""

from __future__ import annotations

import asyncio
import gzip
import socket
import zlib
from typing import Any

import falcon
import pytest
import uvicorn

from headway.errors import Cancelled, InvalidInput, TooLarge
from headway.lent import Lender
from headway.messages import OK, Reply
from headway.stub import AsyncStubClient
from headway_gateway.app import create_app
from headway_gateway.request import Request, inflated


def scope(*headers: tuple[bytes, bytes], query: bytes = b"") -> dict[str, Any]:
    return {"type": "http", "method": "POST", "path": "/", "query_string": query, "headers": [*headers]}


def body_of(events: list[dict[str, Any]], bytes_max: int = 10, *headers: tuple[bytes, bytes]) -> bytes:
    """What a request with these ASGI events has as its body."""
    waiting = iter(events[1:])

    async def receive() -> dict[str, Any]:
        return next(waiting)

    return asyncio.run(Request(scope(*headers), receive, events[0]).body(bytes_max))


def chunk(data: bytes, more: bool = False) -> dict[str, Any]:
    return {"type": "http.request", "body": data, "more_body": more}


def test_a_body_in_several_events_is_one_body():
    assert body_of([chunk(b"ab", True), chunk(b"", True), chunk(b"c", True), chunk(b"")]) == b"abc"


def test_an_announced_length_over_the_limit_is_refused_before_anything_is_read():
    with pytest.raises(TooLarge, match="11 bytes is over the limit of 10"):
        body_of([chunk(b"", True)], 10, (b"content-length", b"11"))  # a read would end in StopIteration


def test_a_body_without_length_is_refused_at_the_first_byte_over_the_limit():
    with pytest.raises(TooLarge):
        body_of([chunk(b"12345", True), chunk(b"678901", True)])
    assert body_of([chunk(b"12345", True), chunk(b"67890")]) == b"1234567890"


@pytest.mark.parametrize("length", [b"-1", b"x", b"1.5"])
def test_a_malformed_length_is_the_clients_fault(length):
    with pytest.raises(falcon.HTTPBadRequest):
        body_of([chunk(b"")], 10, (b"content-length", length))


def test_a_length_that_lies_is_refused():
    with pytest.raises(InvalidInput, match="says 5 bytes, the body has 3"):
        body_of([chunk(b"abc")], 10, (b"content-length", b"5"))


def test_half_a_body_is_not_a_body():
    with pytest.raises(Cancelled):
        body_of([chunk(b"ab", True), {"type": "http.disconnect"}])


LARGE = 1 << 17


def received(tmp_path, *events: dict[str, Any], length: int = LARGE) -> tuple[Request, Any]:
    """A request whose body goes into shared memory, and its body."""
    waiting = iter(events[1:])

    async def receive() -> dict[str, Any]:
        return next(waiting)

    lender = Lender(f"ipc://{tmp_path}/broker.sock", 1 << 20)
    request = Request(scope((b"content-length", b"%d" % length)), receive, events[0])
    try:
        return request, asyncio.run(request.body(1 << 20, lender))
    finally:
        lender.close()


def test_a_large_body_is_received_into_a_slot(tmp_path):
    half = bytes(range(256)) * (LARGE // 512)
    request, body = received(tmp_path, chunk(half, True), chunk(b"", True), chunk(half))
    assert request.received and body is request.received.view
    assert body == half + half


def test_a_large_body_that_is_there_already_is_not_received_again(tmp_path):
    request, body = received(tmp_path, chunk(bytes(LARGE)))
    assert request.received is None and body == bytes(LARGE)


@pytest.mark.parametrize("last", [bytes(LARGE), b""])
def test_a_body_in_a_slot_that_is_longer_or_shorter_than_announced_is_refused(tmp_path, last):
    with pytest.raises(InvalidInput):
        received(tmp_path, chunk(b"x", True), chunk(last))


def test_a_client_that_leaves_within_a_body_in_a_slot_is_noticed(tmp_path):
    with pytest.raises(Cancelled):
        received(tmp_path, chunk(b"x", True), {"type": "http.disconnect"})


def test_a_query_that_is_not_text_is_dropped():
    assert Request(scope(query=b"\xff=1"), None, {}).query_string == ""


def test_a_chunked_upload_over_the_limit_is_413_in_both_dialects(site):
    async def upload():
        for _ in range(3):
            yield b"x" * 400

    plain = site.post("/predictions/echo", content=upload())
    assert (plain.status_code, plain.json()["code"]) == (413, 413)
    v2 = site.post("/v2/models/double/infer", content=upload())
    assert (v2.status_code, v2.json()) == (413, {"error": "a body of 1200 bytes is over the limit of 1000"})
    assert not site.client.calls


def test_a_body_within_the_limit_may_be_chunked(site):
    async def upload():
        yield b"x" * 400
        yield b"y" * 600

    assert site.post("/predictions/echo", content=upload()).content == b"x" * 400 + b"y" * 600


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "x", "", "3600001", "9" * 30, "²"])
@pytest.mark.parametrize("path", ["/predictions/echo", "/v2/models/double/infer"])
def test_a_timeout_that_is_none_is_400(site, path, text):
    answer = site.post(path, headers={"Headway-Timeout-Ms": text.encode()}, content=b"")
    assert answer.status_code == 400
    assert "Headway-Timeout-Ms is an integer from 1 to 3600000" in answer.text


def test_compressed_bodies_are_unpacked(site):
    for encoding, packed in (
        ("gzip", gzip.compress(b"hello", mtime=0)),
        ("deflate", zlib.compress(b"hello")),
    ):
        answer = site.post("/predictions/echo", content=packed, headers={"Content-Encoding": encoding})
        assert answer.content == b"hello"
    identity = site.post("/predictions/echo", content=b"hello", headers={"Content-Encoding": "identity"})
    assert identity.content == b"hello"


def test_another_encoding_is_501_and_says_which_there_are(site):
    answer = site.post("/v2/models/double/infer", content=b"x", headers={"Content-Encoding": "br"})
    assert (answer.status_code, answer.headers["accept-encoding"]) == (501, "gzip, deflate")
    assert answer.json() == {"error": "Content-Encoding 'br' is not supported"}


def test_a_compressed_body_is_never_unpacked_beyond_the_limit():
    with pytest.raises(TooLarge):
        inflated(gzip.compress(bytes(1 << 24)), "gzip", 1000)


@pytest.mark.parametrize(
    "body", [b"", b"not gzip", gzip.compress(b"x" * 99, mtime=0)[:-9], gzip.compress(b"x", mtime=0) + b"y"]
)
def test_a_broken_compressed_body_is_the_clients_fault(body):
    with pytest.raises(InvalidInput):
        inflated(body, "gzip", 1000)


def test_a_name_that_no_model_can_have_is_unknown(site):
    for path in ("/predictions/", "/v2/models/"):
        suffix = "/infer" if "v2" in path else ""
        assert site.post(path + "m" * 129 + suffix, content=b"{}").status_code == 404


class SlowStub(AsyncStubClient):
    """Answers when `answer` is set; notes when its caller gave up."""

    def __init__(self) -> None:
        super().__init__({})
        self.asked, self.cancelled, self.answer = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def reply(self, asked, timeout_s=None) -> Reply:
        self.asked.set()
        try:
            await self.answer.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return Reply(0, OK, b"late", {})


async def served(settings, client):
    """A real uvicorn for the app: (server, its task, its port)."""
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(create_app(client, settings), lifespan="on", log_level="error")
    server = uvicorn.Server(config)
    return server, asyncio.create_task(server.serve([listener])), listener.getsockname()[1]


REQUEST = b"POST /predictions/slow HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx"


def test_a_client_that_leaves_withdraws_its_request(settings):
    async def run():
        client = SlowStub()
        server, serving, port = await served(settings, client)
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(REQUEST)
        await client.asked.wait()
        writer.close()
        await asyncio.wait_for(client.cancelled.wait(), 30)
        server.should_exit = True
        await serving
        counted = b"".join(str(f.samples).encode() for f in server_metrics(server))
        assert b"'status': '499'" in counted

    asyncio.run(run())


def server_metrics(server: uvicorn.Server) -> list[Any]:
    middleware = server.config.app._unprepared_middleware
    return list(next(m for m in middleware if hasattr(m, "collect")).collect())


def test_a_client_that_stays_longer_than_the_watch_gets_its_answer(settings, monkeypatch):
    monkeypatch.setattr("headway_gateway.request.WATCH_AFTER_S", 0.0)

    async def run():
        client = SlowStub()
        server, serving, port = await served(settings, client)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(2):  # the connection is still good afterwards
            writer.write(REQUEST)
            await client.asked.wait()
            await asyncio.sleep(0.02)  # the watcher is running
            client.answer.set()
            assert b"200 OK" in await reader.readuntil(b"late")
            client.asked.clear(), client.answer.clear()
        writer.close()
        assert not client.cancelled.is_set()
        server.should_exit = True
        await serving

    asyncio.run(run())


def test_a_cancellation_from_elsewhere_stays_one(settings):
    async def run():
        request = Request(scope(), asyncio.Event().wait, chunk(b""))
        task = asyncio.create_task(request.while_connected(asyncio.Event().wait()))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())
