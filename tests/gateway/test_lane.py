"""headway_gateway.lane: nobody can tell which way a request went."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import uvloop
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from headway import errors
from headway.body import Body
from headway.company import COMPANY
from headway.lent import Lender
from headway.messages import OK, Reply
from headway.settings import GatewaySettings
from headway.stub import AsyncStubClient
from headway.tensors import pack
from headway_gateway.app import create_app
from headway_gateway.connection import Connection
from headway_gateway.inference import Answer
from headway_gateway.lane import URL_BYTES_MAX, Lane
from tests.gateway.conftest import MODELS, raising
from tests.gateway.test_connection import DONE, LARGE, PING, Desk, Online, Ways, echo, looped, post, until

FAILURES: list[Exception] = [
    errors.InvalidInput("x: \xe9\n"), errors.UnknownModel(), errors.TooLarge("9"), errors.Cancelled(),
    errors.QueueFull("full", 2.5), errors.QueueFull("full"), errors.NotReady("no"), errors.DeadlineExceeded(),
    errors.ModelError("boom"), errors.WorkerLost(), errors.InternalError(), errors.BrokerUnreachable(),
    errors.RemoteProtocolError("odd"), errors.LocalProtocolError(), errors.SettingsError("s"),
    ValueError("secret"), AssertionError(), RecursionError(),
]  # fmt: skip
ODD_REPLIES: dict[str, Any] = {
    "no content": Reply(0, OK, b"", {}),
    "no tensors": Reply(0, OK, b"junk", {"content_type": "a/b", "version": "3"}),
    "no meta": Reply(0, OK, b"junk", None),  # type: ignore[arg-type]
    "evil type": Reply(0, OK, b"x", {"content_type": "a/b\r\nx: y"}),
    "spaces": Reply(0, OK, b"x", {"content_type": "  a/b ", "version": 7}),
    "nothing": None,
    "loaded": Reply(0, OK, b"x", {"version": "2", "loading_ms": 1234}),
    "evil version": Reply(0, OK, b"x", {"version": "2\r\nx: y", "loading_ms": "1\r\nx: y"}),
    "version with spaces": Reply(0, OK, b"x", {"version": " 2 ", "loading_ms": None}),
    "no text": Reply(0, OK, b"x", {"version": ["2"]}),
    "tensors": Reply(0, OK, pack({"y": np.ones(1, np.float32)}), {"version": "2", "loading_ms": 0}),
}
STUFF: dict[str, Callable[[Any], Any]] = {
    **MODELS,
    **{f"bad{i}": raising(error) for i, error in enumerate(FAILURES)},
    "names": lambda inputs: {"s": np.array([b"a", b"\xff"], object), "f": np.float32([np.nan, 1])},
    "raw": lambda inputs: {"s": np.array([b"a", b"b"], object), "e": np.zeros((0, 2), np.int8)},
    "none": lambda inputs: {},
    "large": lambda body: Body(LARGE, "text/plain; charset=utf-8"),
    "array": lambda body: np.ones(3),
}


class Odd(Ways):
    """Replies what no worker should, for the models that `ODD_REPLIES` names."""

    async def reply(self, asked: Any, timeout_s: float | None = None) -> Any:
        odd = asked.model.replace("-", " ")
        return ODD_REPLIES[odd] if odd in ODD_REPLIES else await super().reply(asked, timeout_s)


@pytest.fixture
def settings(tmp_path) -> GatewaySettings:
    return GatewaySettings(run_dir=tmp_path, body_bytes_max=300_000)


# ---- the requests ----

INFER = "/v2/models/same/infer"
ECHO = "/predictions/echo"


def tensor(name: str = "x", datatype: str = "FP32", shape: Any = (1, 4), **more: Any) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape, **(more or {"data": [1, 2, 3, 4.5]})}


def binary(size: int, name: str = "x", datatype: str = "FP32", shape: Any = (1, 4)) -> dict[str, Any]:
    return tensor(name, datatype, shape, parameters={"binary_data_size": size})


def oip(
    *inputs: dict[str, Any], path: str = INFER, tail: bytes = b"", headers: Any = (), **more: Any
) -> bytes:
    text = json.dumps({"inputs": inputs, **more}).encode()
    said = [f"Inference-Header-Content-Length: {len(text)}"] if tail else []
    return post(path, text + tail, *said, *headers)


def headed(length: str, body: bytes = b"") -> bytes:
    return post(INFER, body or TEXT + RAW, f"Inference-Header-Content-Length: {length}")


def form(content_type: str = "multipart/form-data; boundary=B", headers: Any = ()) -> bytes:
    part = b'--B\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n--B--\r\n'
    return post("/predictions/parts", part, f"Content-Type: {content_type}", *headers)


X = tensor()
RAW = np.ones(4, np.float32).tobytes()
TEXT = json.dumps({"inputs": [binary(16)]}).encode()
WANT = {"parameters": {"binary_data_output": True}}
LENGTHS = ("0", "-1", "x", "", "1.5", "\xb2", "9" * 13, "999", "5", "007")
KEYS = ("user-7", "", " a b ", "\xe9", "k" * 128, "k" * 129)
TIMEOUTS = ("5", "0", "x", "", " 7 ", "\xb2", "9" * 9)
ODD_PATHS = (
    *(ECHO + more for more in ("/", "//", "?a=b", "#f", "/1/2")), "http://x" + ECHO, "/" + ECHO,
    "/predictions/", INFER + "/", INFER + "?", "/v2/models//infer", "/V2/models/same/infer",
)  # fmt: skip
FULL = {"name": "full", "parameters": {"binary_data": True}}
PATHS = ("nobody", "m" * 128, "m" * 129, "m" * 600, "%65cho", "a%2Fb", "\xe9", "a b", ".")
CHUNKED = b"3\r\nabc\r\n0\r\n\r\n"
LARGE_RAW = binary(len(LARGE), "x", "UINT8", (1, len(LARGE)))

REQUESTS: dict[str, bytes] = {
    # the Open Inference Protocol
    "JSON": oip(X),
    "version": oip(X, path="/v2/models/same/versions/1/infer"),
    "odd version": oip(X, path="/v2/models/same/versions/v_1.0-rc/infer"),
    "several tensors": oip(X, tensor("y", "INT64", (1, 1), data=[7]), path="/v2/models/double/infer"),
    "nested data": oip(tensor(shape=(2, 2), data=[[1, 2], [3, 4]])),
    "BYTES": oip(tensor("s", "BYTES", (1, 2), data=["a", "\xe9"])),
    "BYTES that are no text": oip(X, path="/v2/models/names/infer"),
    "BYTES, binary output": oip(X, path="/v2/models/names/infer", **WANT),
    "empty output": oip(X, path="/v2/models/raw/infer", **WANT),
    "no outputs": oip(X, path="/v2/models/none/infer"),
    "id": oip(X, id="a \xe9 1"),
    "id, binary output": oip(X, id="7", **WANT),
    "id is a number": oip(X, id=7),
    "outputs": oip(X, path="/v2/models/two/infer", outputs=[{"name": "half"}]),
    "an output is binary": oip(X, path="/v2/models/two/infer", outputs=[{"name": "half"}, FULL]),
    "no such output": oip(X, outputs=[{"name": "nothing"}]),
    "binary output": oip(X, **WANT),
    "binary": oip(binary(16), tail=RAW),
    "binary both ways": oip(binary(16), tail=RAW, **WANT),
    "two binary": oip(binary(16), binary(3, "b", "UINT8", (1, 3)), tail=RAW + b"abc", **WANT),
    "binary too short": oip(binary(16), tail=RAW[:9]),
    "binary too long": oip(binary(16), tail=RAW + b"x"),
    "large binary": oip(LARGE_RAW, tail=LARGE, **WANT),
    "large binary, version": oip(LARGE_RAW, path="/v2/models/same/versions/1/infer", tail=LARGE),
    "large nonsense": post(INFER, LARGE),
    "header length": headed(str(len(TEXT))),
    **{f"header length {n!r}": headed(n) for n in LENGTHS},
    "header length, large": headed("0", LARGE),
    "parameters": oip(X, parameters={"timeout": 1000, "priority": 1, "mine": "x"}),
    "bad parameter": oip(X, parameters={"shared_memory_offset": 1}),
    "a step": oip(X, parameters={"sequence_id": 7, "sequence_start": True}),
    "malformed JSON": post(INFER, b'{"inputs": ['),
    "not an object": post(INFER, b"[]"),
    "not UTF-8": post(INFER, b'{"\xff": 1}'),
    "deep JSON": post(INFER, b"[" * 9999),
    "no inputs": oip(),
    "bad datatype": oip(tensor(datatype="COMPLEX")),
    "empty body": post(INFER),
    "no length": post(INFER, b"", "Content-Length: 0"),
    # predictions
    "bytes": echo(b"\x00\xff"),
    "nothing": echo(b""),
    "json": echo(b'{"a": 1}', "Content-Type: application/json"),
    "octets": echo(b"abc", "Content-Type: application/octet-stream"),
    "text": echo(b"abc", "Content-Type: text/plain; charset=latin-1"),
    "empty type": echo(b"abc", "Content-Type:"),
    "odd type": echo(b"abc", "Content-Type: \xe9\xff"),
    "url-encoded": echo(b"a=b", "Content-Type: application/x-www-form-urlencoded"),
    "large": echo(LARGE),
    "large answer": post("/predictions/large"),
    "prediction, version": post(ECHO + "/2.1", b"abc"),
    "form": form(),
    "form, upper case": form("Multipart/Form-Data; boundary=B"),
    "form without boundary": form("multipart/form-data"),
    "mixed, no form": form("multipart/mixed; boundary=B"),
    "no tensors for a prediction": post("/predictions/array", b"x"),
    # both
    **{f"timeout {t!r}": echo(b"x", f"Headway-Timeout-Ms: {t}") for t in TIMEOUTS},
    **{f"oip timeout {t!r}": post(INFER, b"{", f"Headway-Timeout-Ms: {t}") for t in ("5", "0")},
    **{f"oip for {name[:9]} {len(name)}": oip(X, path=f"/v2/models/{name}/infer") for name in PATHS},
    **{f"for {name[:9]} {len(name)}": post(f"/predictions/{name}", b"x") for name in PATHS},
    **{f"oip raises {e!r} {i}": oip(X, path=f"/v2/models/bad{i}/infer") for i, e in enumerate(FAILURES)},
    **{f"raises {e!r} {i}": post(f"/predictions/bad{i}", b"x") for i, e in enumerate(FAILURES)},
    **{f"oip reply: {odd}": oip(X, path=f"/v2/models/{odd.replace(' ', '-')}/infer") for odd in ODD_REPLIES},
    **{f"reply: {odd}": post(f"/predictions/{odd.replace(' ', '-')}", b"x") for odd in ODD_REPLIES},
    **{f"sticky {len(k)} {k[:3]}": echo(b"x", f"Headway-Sticky-Key: {k}") for k in KEYS},
    **{f"oip sticky {len(k)} {k[:3]}": oip(X, headers=[f"Headway-Sticky-Key: {k}"]) for k in KEYS},
    "sticky form": form(headers=["Headway-Sticky-Key: user-7"]),
    "large and sticky": echo(LARGE, "Headway-Sticky-Key: user-7"),
    # HTTP
    **{f"{m} {p}": post(p, b"a", line=m + " {} HTTP/1.1") for m in ("PUT", "GET") for p in (ECHO, INFER)},
    **{f"path {p}": post(p, b"x") for p in ODD_PATHS},
    "chunked": post(ECHO, CHUNKED, "Transfer-Encoding: chunked"),
    "chunked, trailer": post(ECHO, b"1\r\nx\r\n0\r\nT: 1\r\n\r\n", "Transfer-Encoding: chunked"),
    "chunked and length": post(ECHO, CHUNKED, "Transfer-Encoding: chunked", "Content-Length: 3"),
    "gzip": echo(gzip.compress(b"abc"), "Content-Encoding: gzip"),
    "identity": echo(b"abc", "Content-Encoding: identity"),
    "br": echo(b"abc", "Content-Encoding: br"),
    "100": echo(b"abc", "Expect: 100-continue"),
    "another expectation": echo(b"abc", "Expect: wonders"),
    "upgrade": echo(b"abc", "Connection: upgrade", "Upgrade: h2c"),
    "upgrade, unsaid": echo(b"abc", "Upgrade: websocket"),
    "duplicate": echo(b"abc", "X: 1", "X: 2"),
    "duplicate timeout": echo(b"abc", "Headway-Timeout-Ms: 5", "Headway-Timeout-Ms: 6"),
    "duplicate type": echo(b"abc", "Content-Type: a/b", "Content-Type: c/d"),
    "two lengths": post(ECHO, b"abc", "Content-Length: 3", "Content-Length: 3"),
    "bad length": post(ECHO, b"abc", "Content-Length: 3x"),
    "spaced length": post(ECHO, b"abc", "Content-Length:  3 "),
    "long length": post(ECHO, b"abc", "Content-Length: " + "0" * 20 + "3"),
    "close": echo(b"abc", "Connection: close"),
    "close, large": echo(LARGE, "Connection: close"),
    "close, refused": post(INFER, b"x", "Connection: close"),
    "keep-alive": echo(b"abc", "Connection: keep-alive"),
    "odd connection": echo(b"abc", "Connection: close, te"),
    "HTTP/1.0": post(ECHO, b"abc", line="POST {} HTTP/1.0"),
    "HTTP/1.0, keep-alive": post(ECHO, b"abc", "Connection: keep-alive", line="POST {} HTTP/1.0"),
    "HTTP/2.0": post(ECHO, b"abc", line="POST {} HTTP/2.0"),
    "HTTP/1.7": post(ECHO, b"abc", line="POST {} HTTP/1.7"),
    "at the limit": echo(b"x" * 300_000),
    "over the limit": echo(b"x" * 300_001),
    "oip over the limit": post(INFER, b"x" * 300_001),
    "no host": b"POST /predictions/echo HTTP/1.1\r\nContent-Length: 1\r\n\r\nx",
    "no method": b"/predictions/echo\r\n\r\n",
    "lower-case method": post(ECHO, b"x", line="post {} HTTP/1.1"),
    "many headers": echo(b"abc", *[f"X-{i}: {i}" for i in range(200)]),
}  # fmt: skip


async def told(online: Online, request: bytes) -> list[Any]:
    """All that a client and a broker see of it, and whether the connection is good for another one."""
    online.client.calls.clear()
    peer = await online.peer()
    peer.send(request)
    seen: list[Any] = [await peer.answer()]
    while seen[-1].status.startswith(b"HTTP/1.1 1"):
        seen.append(await peer.answer())
    peer.send(PING)
    asked = [call._replace(options={**call.options, COMPANY: "?"}) for call in online.client.calls]
    return [*seen, re.sub(rb"\r\ndate: .*?\r\n", b"\r\ndate: ?\r\n", await peer.rest()), *asked]


@pytest.fixture(scope="module")
def servers(tmp_path_factory):
    """What tells of a request how each of three answers it: with the short way, without, uvicorn's own."""
    settings = GatewaySettings(run_dir=tmp_path_factory.mktemp("run"), body_bytes_max=300_000)
    sites = [Online(Odd(STUFF), settings, http=http) for http in (Connection, Connection, HttpToolsProtocol)]
    del sites[1].app.lane
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        for site in sites:
            runner.run(site.__aenter__())
        yield lambda request: [runner.run(asyncio.wait_for(told(site, request), 10)) for site in sites]
        for site in sites:
            runner.run(site.__aexit__())


@pytest.mark.parametrize("request_", REQUESTS.values(), ids=REQUESTS.keys())
def test_nobody_can_tell_which_way_a_request_went(servers, request_):
    short, long, plain = servers(request_)
    assert short == long
    assert short == plain


FACTS = {b"headway-version: 2", b"headway-loading-ms: 1234"}


def test_an_answer_says_which_version_served_it_and_what_it_waited(servers):
    for path in ("/predictions/loaded", "/v2/models/tensors/infer"):
        answer = servers(oip(X, path=path))[0][0]
        said = {h for h in answer.headers if h.startswith(b"headway-")}
        assert said == (FACTS if "loaded" in path else {b"headway-version: 2", b"headway-loading-ms: 0"})
    for odd in ("evil-version", "version-with-spaces", "no-meta"):
        answer = servers(post(f"/predictions/{odd}", b"x"))[0][0]
        assert not [h for h in answer.headers if h.startswith((b"headway-", b"x:"))]


def test_a_clients_key_travels_with_the_request(servers):
    for request in (echo(b"x", "Headway-Sticky-Key: user-7"), oip(X, headers=["Headway-Sticky-Key: user-7"])):
        for told_ in servers(request):
            assert told_[-1].options["sticky"] == "user-7"
    for request in (echo(b"x"), oip(X), echo(b"x", "Headway-Sticky-Key:")):
        assert "sticky" not in servers(request)[0][-1].options
    refused = servers(echo(b"x", f"Headway-Sticky-Key: {'k' * 129}"))[0][0]
    assert refused.status.startswith(b"HTTP/1.1 400") and b"128" in refused.body


# ---- who may go ----

LENGTH = (b"content-length", b"3")
MAY: dict[str, tuple[bytes, bytes, list[tuple[bytes, bytes]]]] = {
    "infer": (b"POST", b"/v2/models/m/infer", [LENGTH]),
    "infer, version": (b"POST", b"/v2/models/m.1-x_/versions/1.0/infer", [LENGTH]),
    "prediction": (b"POST", b"/predictions/m", [LENGTH]),
    "prediction, version": (b"POST", b"/predictions/m/2", [LENGTH, (b"content-type", b"image/png")]),
    "empty": (b"POST", b"/predictions/m", [(b"content-length", b"0")]),
    "at the limit": (b"POST", b"/predictions/m", [(b"content-length", b"300000")]),
    "longest": (b"POST", b"/predictions/" + b"m" * (URL_BYTES_MAX - 13), [LENGTH]),
}
MAY_NOT = {
    "PUT": (b"PUT", b"/predictions/m", [LENGTH]),
    "GET": (b"GET", b"/v2/models/m/infer", [LENGTH]),
    **{
        f"path {path}": (b"POST", path.encode(), [LENGTH])
        for path in ("/predictions/m?q", "/predictions/m%20", "/predictions/m/", "/predictions/m/1/2",
                     "/ping", "/predictions/", "/v2/models/m", "/v2/models/m/ready", "/v2/models/m/infer/",
                     "/v2/models/m/versions/infer", "http://x/predictions/m", "/predictions/m\n",
                     "/predictions/" + "m" * URL_BYTES_MAX)
    },
    **{
        f"length {length!r}": (b"POST", b"/predictions/m", [(b"content-length", length)])
        for length in (b"", b"x", b"-1", b"3 ", b"300001", b"0" * 13)
    },
    "no length": (b"POST", b"/predictions/m", []),
    "duplicate": (b"POST", b"/predictions/m", [LENGTH, (b"x", b"1"), (b"x", b"1")]),
    **{
        f"{name.decode()}: {value.decode()}": (b"POST", b"/predictions/m", [LENGTH, (name, value)])
        for name, value in ((b"transfer-encoding", b"chunked"), (b"content-encoding", b"gzip"),
                            (b"expect", b"100"), (b"upgrade", b"h2c"), (b"content-type", b"Multipart/mixed"))
    },
}  # fmt: skip


@pytest.fixture
def lane(settings) -> Lane:
    return create_app(AsyncStubClient(MODELS), settings).lane


@pytest.mark.parametrize("head", MAY.values(), ids=MAY.keys())
def test_a_plain_request_may_go_the_short_way(lane, head):
    assert lane.enter(*head)


@pytest.mark.parametrize("head", MAY_NOT.values(), ids=MAY_NOT.keys())
def test_all_else_goes_the_long_way(lane, head):
    assert lane.enter(*head) is None


@pytest.mark.parametrize(
    ("request_", "shorts"),
    [(echo(b"x"), 1), (oip(X), 1), (echo(LARGE), 1), (echo(b"x", "Connection: close"), 1),
     (post(ECHO, b"x", line="PUT {} HTTP/1.1"), 0), (post(ECHO, b"x", line="POST {} HTTP/1.0"), 0),
     (echo(b"x", "Expect: 100-continue"), 0), (echo(b"x", "Upgrade: h2c"), 0),
     (post(ECHO, CHUNKED, "Transfer-Encoding: chunked"), 0), (form(), 0), (echo(b"x") + echo(b"y"), 1)],
)  # fmt: skip
@looped
async def test_a_connection_offers_the_short_way_to_those_who_may(settings, request_, shorts):
    async with Online(client := Ways(MODELS), settings) as online:
        answers = (await told(online, request_))[0]
        assert answers.status in (b"HTTP/1.1 200 OK", b"HTTP/1.1 100 Continue")
        assert client.shorts == shorts and len(client.calls) >= 1


# ---- counters ----


async def counted(online: Online) -> tuple[set[tuple[str, str, float]], float]:
    """Requests by dialect and status, and the sum of their times in seconds."""
    text = (await online.ask(post("/metrics", line="GET {} HTTP/1.1"), "metrics")).body.decode()
    statuses = re.findall(r'http_requests_total{dialect="(\w+)",status="(\d+)"} (\S+)', text)
    times = re.findall(r"http_request_seconds_(sum|count){\S+} (\S+)", text)
    found = {(dialect, status, float(count)) for dialect, status, count in statuses}
    assert sum(float(n) for what, n in times if what == "count") == sum(count for *_, count in found)
    return found, sum(float(n) for what, n in times if what == "sum")


@looped
async def test_what_goes_the_short_way_is_counted_with_its_dialect_status_and_time(settings):
    async with Online(Ways(STUFF), settings) as online:
        for request in (oip(X), oip(X), post(INFER, b"{"), oip(X, path="/v2/models/bad4/infer")):
            await online.ask(request)
        await online.ask(post("/predictions/nobody"))
        found, _ = await counted(online)
        assert found == {("oip", "200", 2), ("oip", "400", 1), ("oip", "503", 1), ("predictions", "404", 1)}


@looped
async def test_the_time_of_a_request_begins_at_its_head(settings):
    async with Online(client := Desk(), settings) as online:
        peer = await online.peer()
        peer.send(echo(b"abc")[:-1])
        await asyncio.sleep(0.05)
        peer.send(b"c")
        (await client.waiting.get())(DONE)
        await peer.answer()
        assert 0.04 < (await counted(online))[1] < 5


@pytest.mark.parametrize("request_", [echo(b"abc"), echo(b"abc")[:-1], echo(LARGE)[:-1], echo(LARGE)])
@looped
async def test_a_client_that_leaves_is_counted_once_as_499(settings, request_):
    async with Online(client := Desk(), settings) as online:
        peer = await online.peer()
        peer.send(request_)
        if request_ in (echo(b"abc"), echo(LARGE)):
            await until(lambda: not client.waiting.empty())
        else:
            await until(lambda: online.connections and online.connections[0].cycle)
        await peer.leave()
        await until(lambda: not online.connections)
        assert (await counted(online))[0] == {("predictions", "499", 1)}
        assert len(client.abandoned) == (request_ in (echo(b"abc"), echo(LARGE)))


# ---- one answer ----


class Broken(Lender):
    """Fails in `ask`, once the body was read."""

    def place(self, pieces: Any) -> Any:
        raise RuntimeError("secret")


class Starting(AsyncStubClient):
    """Fails to start."""

    def __init__(self, error: Exception) -> None:
        super().__init__(MODELS)
        self.error = error

    def start(self, *args: Any) -> int:
        raise self.error


@pytest.mark.parametrize(
    ("client", "outcome", "status", "text"),
    [(lambda: Desk(Broken("", 0)), None, 500, b"internal error"),
     (lambda: Starting(errors.BrokerUnreachable("away")), None, 503, b"away"),
     (lambda: Starting(RuntimeError("secret")), None, 500, b"internal error"),
     (Desk, errors.QueueFull("full"), 503, b"full"),
     (Desk, RuntimeError("secret"), 500, b"internal error"),
     (Desk, Reply(0, OK, b"junk", {}), 500, b"holds no tensors"),
     (Desk, Reply(0, OK, b"junk", None), 500, b"internal error")],  # type: ignore[arg-type]
)  # fmt: skip
@looped
async def test_whatever_fails_there_is_exactly_one_answer(settings, client, outcome, status, text):
    made = client()
    lane = create_app(made, settings).lane
    errand = lane.enter(b"POST", INFER.encode(), [(b"content-length", b"%d" % len(BODY))])
    assert errand
    errand.feed(BODY[:9])
    errand.feed(BODY[9:])
    answers: list[Answer] = []
    errand.run(answers.append)
    if outcome is not None:
        assert not answers
        made.waiting.get_nowait()(outcome)
    assert [answer.status for answer in answers] == [status]
    assert text in answers[0].data


BODY = oip(X).split(b"\r\n\r\n", 1)[1]
