"""headway_gateway.torchserve.connection: nobody can tell which way a request went; replies in pieces."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest
import uvloop

from headway import errors
from headway.company import COMPANY
from headway_gateway.torchserve.app import create_doors
from headway_gateway.torchserve.connection import Connection
from tests.gateway.test_connection import LARGE, PING, looped, post, until
from tests.gateway.test_connection import Online as PlainOnline
from tests.gateway.torchserve_door import Handlers, fails, says, settings_of, shown, streams

ID = re.compile(rb"x-request-id: ([0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12})")
MODELS = {
    "m": shown,
    "set": says(
        status=201, phrase="Well done", headers={"Content-Type": "a/b", "X-Own": "v", "X-Request-Id": "no"}
    ),
    "teapot": says(status=418),
    "odd": says(status=799),
    "nothing": says(status=204),
    "large": says(LARGE),
    "too-large": says(bytes(300_001)),
    "cookie": says(headers={"Set-Cookie": "a=b", "connection": "x", "transfer-encoding": "y"}),
    "pieces": streams(b"p0", b"", b"p1", LARGE, b"end", headers={"content-type": "text/event-stream"}),
    "said-pieces": streams(b"p", b"q", headers={"ts_stream_next": "true"}),
    "bad-pieces": streams(b"p0", b"end", status=402),
    "one-piece": streams(b"whole"),
    "breaks": streams(b"p0", b"p1", b"p2", breaks=True),
    "breaks-at-once": streams(b"", breaks=True),
    "raises": fails(errors.ModelError("x"), status=503, message="Prediction failed"),
    "own-code": fails(errors.ModelError("x"), status=513, message="mine: \xe9"),
    "full": fails(errors.QueueFull("9")),
    "late": fails(errors.DeadlineExceeded("late")),
    "defect": fails(ValueError("secret")),
}


class Online(PlainOnline):
    create = staticmethod(create_doors)

    def __init__(self, client: Any, settings: Any) -> None:
        super().__init__(client, settings, Connection, date_header=False)


def ask(model: str, body: bytes = b"x", *headers: str, **more: Any) -> bytes:
    return post(f"/predictions/{model}", body, *headers, **more)


REQUESTS = {
    **{model: ask(model) for model in MODELS},
    "unknown": ask("nope"),
    "unknown version": ask("m/9"),
    "version": ask("m/1.0"),
    "large body": ask("m", LARGE),
    "no body": ask("m", b""),
    "PUT": ask("m", line="PUT {} HTTP/1.1"),
    "headers as they are written": ask("m", b"x", "X-Camel: \xe9", "lower: 2", "UPPER: 3"),
    "json": ask("m", b"{}", "Content-Type: application/json; charset=utf-8"),
    "urlencoded": ask("m", b"a=1", "Content-Type: application/x-www-form-urlencoded"),
    "close": ask("m", b"x", "Connection: close"),
    "close, pieces": ask("pieces", b"x", "Connection: close"),
    "at the limit": ask("m", b"x" * 300_000),
    "over the limit": ask("m", b"x" * 300_001),
}  # fmt: skip


def plain(data: bytes) -> bytes:
    return ID.sub(b"x-request-id: ?", data)


async def told(online: Online, request: bytes) -> list[Any]:
    """All bytes that a client sees of it and of a ping after it, and what was asked."""
    online.client.calls.clear()
    peer = await online.peer()
    peer.send(request)
    await asyncio.sleep(0.02)
    peer.send(PING)
    seen = plain(await peer.rest())
    changing = {"request_id": "?", COMPANY: "?"}
    asked = [call._replace(options={**call.options, **changing}) for call in online.client.calls]
    return [seen, *asked]


@pytest.fixture(scope="module")
def servers(tmp_path_factory):
    """What tells of a request how it is answered: with the short way, and without."""
    folder = tmp_path_factory.mktemp("run")
    said: dict[str, Any] = {
        "max_request_size": 300_000,
        "max_response_size": 300_000,
        "cors_allowed_origin": "*",
    }
    settings = settings_of(folder, **said)
    sites = [Online(Handlers(MODELS, folder / "store"), settings) for _ in range(2)]
    del sites[1].app.lane
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        for site in sites:
            runner.run(site.__aenter__())
        yield lambda request: [runner.run(asyncio.wait_for(told(site, request), 10)) for site in sites]
        for site in sites:
            runner.run(site.__aexit__())


@pytest.mark.parametrize("request_", REQUESTS.values(), ids=REQUESTS.keys())
def test_nobody_can_tell_which_way_a_request_went(servers, request_):
    short, long = servers(request_)
    assert short == long


HEAD = (b"x-request-id: ?\r\naccess-control-allow-origin: *\r\npragma: no-cache\r\n"
        b"cache-control: no-cache; no-store, must-revalidate, private\r\n"
        b"expires: Thu, 01 Jan 1970 00:00:00 UTC\r\n")  # fmt: skip
STAYS, CLOSES = b"connection: keep-alive\r\n\r\n", b"connection: close\r\n\r\n"
ONE = b"content-length: 1\r\n"
MINE = '{\n  "code": 513,\n  "type": "InternalServerException",\n  "message": "mine: \xe9"\n}\n'.encode()
ANSWERS = {
    "said-pieces": b"HTTP/1.1 200 \r\nts_stream_next: true\r\n" + HEAD + b"transfer-encoding: chunked\r\n",
    "set": b"HTTP/1.1 201 Well done\r\ncontent-type: a/b\r\nx-own: v\r\n" + HEAD + ONE + STAYS + b"x",
    "teapot": b"HTTP/1.1 418 \r\n" + HEAD + b"content-length: 1\r\n" + CLOSES + b"x",
    "odd": b"HTTP/1.1 799 \r\n" + HEAD + b"content-length: 1\r\n" + CLOSES + b"x",
    "nothing": b"HTTP/1.1 204 \r\n" + HEAD + STAYS,
    "cookie": b"HTTP/1.1 200 \r\nset-cookie: a=b\r\n" + HEAD + b"content-length: 1\r\n" + STAYS + b"x",
    "own-code": b"HTTP/1.1 513 Server Error (513)\r\ncontent-type: application/json\r\n" + HEAD
                + b"content-length: 80\r\n" + CLOSES + MINE,
    "breaks": b"HTTP/1.1 200 \r\nts_stream_next: true\r\n" + HEAD + b"transfer-encoding: chunked\r\n" + STAYS
              + b"2\r\np0\r\n2\r\np1\r\n",
    "over the limit": b"HTTP/1.1 413 Request Entity Too Large\r\ncontent-length: 0\r\n\r\n",
}  # fmt: skip


@pytest.mark.parametrize("name", ANSWERS)
def test_heads_are_those_of_torchserve(servers, name):
    assert servers(REQUESTS[name])[0][0].startswith(ANSWERS[name])


def test_pieces_are_chunks_and_the_connection_is_good_for_another_request(servers):
    seen = servers(REQUESTS["pieces"])[0][0]
    chunks = b"2\r\np0\r\n2\r\np1\r\n%x\r\n%s\r\n3\r\nend\r\n0\r\n\r\n" % (len(LARGE), LARGE)
    assert STAYS + chunks + b"HTTP/1.1 200 OK\r\n" in seen


def test_a_reply_that_breaks_off_has_no_end_and_the_connection_is_closed(servers):
    assert servers(REQUESTS["breaks"])[0][0] == ANSWERS["breaks"]


def test_a_response_has_the_id_that_the_handler_knows(tmp_path):
    @looped
    async def asked() -> None:
        async with Online(Handlers(MODELS, tmp_path), settings_of(tmp_path)) as online:
            for request in (ask("m"), ask("raises"), ask("m?long"), ask("raises?long")):
                headers = b"\r\n".join((await online.ask(request)).headers)
                assert ID.search(headers)[1].decode() == online.client.calls[-1].options["request_id"]
            ids = {call.options["request_id"] for call in online.client.calls}
            assert len(ids) == 4

    asked()


@pytest.mark.parametrize(
    ("request_", "shorts"),
    [(ask("m"), 1), (ask("m/1.0", line="PUT {} HTTP/1.1"), 1), (ask("pieces"), 1), (ask("m", LARGE), 1),
     (ask("m", line="GET {} HTTP/1.1"), 0), (ask("m?q"), 0), (ask("m/1.0/x"), 0),
     (post("/explanations/m", b"x"), 0), (ask("m", b"x", "Content-Type: multipart/form-data; boundary"), 0)],
)  # fmt: skip
@looped
async def test_plain_predictions_go_the_short_way(tmp_path, request_, shorts):
    async with Online(client := Handlers(MODELS, tmp_path), settings_of(tmp_path)) as online:
        await online.ask(request_)
        assert client.shorts == shorts


@pytest.mark.parametrize(
    "junk",
    [b"junk\r\n\r\n", b"GET /ping\r\n\r\n", b"POST /predictions/m HTTP/1.1\r\nContent-Length: x\r\n\r\n"],
)
@looped
async def test_what_is_no_http_is_told_so(tmp_path, junk):
    async with Online(Handlers(MODELS, tmp_path), settings_of(tmp_path)) as online:
        answer = await online.ask(junk)
        assert answer.status == b"HTTP/1.1 400 Bad Request"
        assert b'"Invalid HTTP message."' in answer.body


class Endless(Handlers):
    """Sends pieces until it is left. `left` counts that."""

    left = 0

    async def replies(self, asked: Any, timeout_s: float | None = None) -> Any:
        try:
            while True:
                for piece in streams(b"p", b"end")(asked):
                    yield piece._replace(meta={"more": 1})
                await asyncio.sleep(0.001)
        finally:
            self.left += 1


@pytest.mark.parametrize("path", ["endless", "endless?long"])
@looped
async def test_a_client_that_leaves_in_the_middle_of_the_pieces_ends_the_request(tmp_path, path):
    async with Online(client := Endless({"endless": shown}, tmp_path), settings_of(tmp_path)) as online:
        peer = await online.peer()
        peer.send(ask(path))
        await peer._reader.readuntil(b"1\r\np\r\n")
        assert not client.left
        await peer.leave()
        await until(lambda: client.left == 1)


@looped
async def test_an_expired_request_is_not_answered_if_that_is_wanted(tmp_path):
    settings = settings_of(tmp_path, headway_expired_answer=False)
    async with Online(Handlers(MODELS, tmp_path), settings) as online:
        for path in ("late", "late?long"):
            peer = await online.peer()
            peer.send(ask(path))
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(peer.answer(), 0.1)
            await peer.leave()
        await until(lambda: not online.connections)


@pytest.mark.parametrize("is_short", [True, False])
@looped
async def test_both_ways_are_counted_and_logged_alike(tmp_path, is_short):
    times = {"queue_us": 5, "worker_us": 9, "compute_us": 3}
    fast, failing = says(**times), fails(errors.ModelError("x"), status=503, message="no", **times)
    handlers = {"m": fast, "pieces": streams(b"a", b"b", **times), "raises": failing}
    async with Online(Handlers(handlers, tmp_path), settings_of(tmp_path)) as online:
        if not is_short:
            del online.app.lane
        for model in ("m/1.0", "pieces", "raises", "nope"):
            await online.ask(ask(model))
        async with asyncio.timeout(30):
            while (tmp_path / "access_log.log").read_text().count("\n") < 4:
                await asyncio.sleep(0.02)
    lines = (tmp_path / "access_log.log").read_text().splitlines()
    said = [re.fullmatch(r"\S+ - /127\.0\.0\.1:\d+ (.*) \d+", line) for line in lines]
    assert [line and line[1] for line in said] == [
        '"POST /predictions/m/1.0 HTTP/1.1" 200',
        '"POST /predictions/pieces HTTP/1.1" 200',
        '"POST /predictions/raises HTTP/1.1" 503',
        '"POST /predictions/nope HTTP/1.1" 404',
    ]
    told = (tmp_path / "ts_metrics.log").read_text()
    counted = re.findall(
        r"ts_inference_requests_total.Count:1.0\|#model_name:(\w+),model_version:(\S+?)\|", told
    )
    assert counted == [("m", "1.0"), ("pieces", "default"), ("raises", "default")]
    assert told.count("ts_queue_latency_microseconds.Microseconds:5.0") == 2, (
        "the one that failed is not in it"
    )
    assert [told.count(f"Requests{kind}XX.Count:1.0") for kind in "245"] == [2, 1, 1]
