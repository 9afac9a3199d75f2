"""headway_gateway.management: from a route to a command, and its answer or error back."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import pytest

from headway import errors as e
from headway.aio import AsyncClient
from headway.stub import AsyncStubClient
from headway_gateway import models
from tests.common.echo import EchoBroker
from tests.gateway.conftest import Site
from tests.gateway.test_connection import Online, looped, post, until


class Ordered(AsyncStubClient):
    """Keeps what was ordered, with the token and the time it has. `fails` with the error, if there is one."""

    def __init__(self, fails: Exception | None = None, answer: Any = None) -> None:
        super().__init__({"m": lambda body: body})
        self.orders: list[tuple[str, dict[str, Any], str]] = []
        self.limits_s: list[float] = []
        self.fails = fails
        self.answer = answer

    async def command(self, verb, arguments, token, timeout_s=0):
        self.orders.append((verb, arguments, token))
        self.limits_s.append(timeout_s)
        if self.fails:
            raise self.fails
        return self.answer or await super().command(verb, arguments, token)


ROUTES = [
    ("GET", "/state", None, "state", {}),
    ("GET", "/admin/models", None, "describe", {}),
    ("GET", "/admin/models/m", None, "describe", {"model": "m"}),
    ("GET", "/admin/models/m/versions/2", None, "describe", {"model": "m", "version": "2"}),
    ("POST", "/admin/models", {"path": "m/2"}, "register", {"path": "m/2"}),
    ("POST", "/admin/models", {"path": "m", "wait": True}, "register", {"path": "m", "wait": 1}),
    ("DELETE", "/admin/models/m", None, "unregister", {"model": "m"}),
    ("DELETE", "/admin/models/m/versions/2", None, "unregister", {"model": "m", "version": "2"}),
    ("POST", "/admin/models/m/scale", {"min": 1}, "scale", {"model": "m", "min": 1}),
    (
        "POST",
        "/admin/models/m/scale",
        {"min": 1, "max": 4, "version": "2", "wait": True, "timeout_ms": 7000},
        "scale",
        {"model": "m", "min": 1, "max": 4, "version": "2", "wait": 1, "timeout_ms": 7000},
    ),
    ("POST", "/admin/models/m/scale", {"min": 1, "wait": False}, "scale", {"model": "m", "min": 1}),
    ("POST", "/admin/models/m/default", {"version": "2"}, "default", {"model": "m", "version": "2"}),
    ("POST", "/admin/models/m/split", {"weights": {}}, "split", {"model": "m", "weights": {}}),
    (
        "POST",
        "/admin/models/m/split",
        {"weights": {"1": 90, "2": 10}},
        "split",
        {"model": "m", "weights": {"1": 90, "2": 10}},
    ),
    ("POST", "/admin/rescan", None, "rescan", {}),
    ("POST", "/admin/workers/w0/drain", {"wait": True}, "drain", {"worker": "w0", "wait": 1}),
    ("PUT", "/admin/hosts/gpu-1", {"workers": 4}, "workers", {"host": "gpu-1", "count": 4}),
    ("PUT", "/admin/hosts/gpu-1", {"workers": None}, "workers", {"host": "gpu-1"}),
]


@pytest.mark.parametrize(("method", "path", "body", "verb", "arguments"), ROUTES)
def test_each_route_is_a_command_with_the_callers_token(over, method, path, body, verb, arguments):
    site = over(client := Ordered(answer={"done": [1, 2]}))
    answer = site.manage(method, path, "secret", content=json.dumps(body).encode() if body else b"")
    assert (answer.status_code, answer.json()) == (200, {"done": [1, 2]})
    assert answer.headers["content-type"] == "application/json"
    assert client.orders == [(verb, arguments, "secret")]


@pytest.mark.parametrize("path", ["/state", "/admin/models", "/nothing"])
@pytest.mark.parametrize("said", ["", "Basic abc", "Bearer", "Bearer ", "secret", f"Bearer {'x' * 129}"])
def test_without_a_token_there_is_nothing_on_any_path(over, path, said):
    site = over(client := Ordered())
    answer = site.manage("GET", path, headers={"Authorization": said})
    assert (answer.status_code, answer.json()["error"]) == (401, "Unauthorized")
    assert answer.headers["www-authenticate"] == "Bearer"
    assert client.orders == []


def test_a_token_that_the_broker_refuses_is_401_too(over):
    answer = over(Ordered(e.Unauthorized("wrong token"))).manage("GET", "/state", "wrong")
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert answer.json()["message"] == "wrong token"


@pytest.mark.parametrize("cls", [*e.ERROR_OF_CODE.values(), e.BrokerUnreachable])
def test_an_error_has_the_tables_status_and_its_own_name(over, cls):
    site = over(Ordered(cls("because")))
    answer = site.manage("POST", "/admin/models/m/scale", content=b'{"min": 1}')
    predicted = over(AsyncStubClient({"m": lambda _: (_ for _ in ()).throw(cls("because"))}))
    assert answer.status_code == predicted.post("/predictions/m", content=b"x").status_code
    assert (answer.json()["error"], answer.json()["message"]) == (cls.__name__, "because")


@pytest.mark.parametrize(
    ("path", "body", "named"),
    [
        ("/admin/models/m/scale", {"min": -1}, "min is"),
        ("/admin/models/m/scale", {"max": 1}, "min is missing"),
        ("/admin/models/m/scale", {"min": 2, "max": 1}, "max: 1 is below min"),
        ("/admin/models/m/scale", {"min": 2, "mxa": 1}, "'mxa' is not known"),
        ("/admin/models/m/default", {}, "version is missing"),
        ("/admin/models/m/split", {"weights": [1]}, "weights is"),
        ("/admin/models", {}, "one of path and url"),
        ("/admin/models", {"path": "m", "url": "http://x/m.zip"}, "one of path and url"),
        ("/admin/models", {"path": "m", "name": "n"}, "go with url"),
        ("/admin/rescan", {"wait": True}, "'wait' is not known"),
        ("/admin/workers/w0/drain", {"force": True}, "'force' is not known"),
    ],
)
def test_a_wrong_order_is_refused_by_name_and_not_given(over, path, body, named):
    site = over(client := Ordered())
    answer = site.manage("POST", path, content=json.dumps(body).encode())
    assert (answer.status_code, answer.json()["error"]) == (400, "InvalidInput")
    assert named in answer.json()["message"]
    assert client.orders == []


def test_a_body_has_a_limit(over):
    site = over(client := Ordered())
    answer = site.manage("POST", "/admin/rescan", content=b" " * 70_000)
    assert (answer.status_code, client.orders) == (413, [])


@pytest.mark.parametrize("name", ["m" * 129, "%0a", "%ff%00"])
def test_a_name_that_nothing_can_have_is_unknown(over, name):
    site = over(client := Ordered())
    assert site.manage("GET", f"/admin/models/{name}").status_code == 404
    assert client.orders == []


def test_unknown_routes_and_methods_are_told_as_json(site):
    unknown, wrong = site.manage("GET", "/admin/nothing"), site.manage("PUT", "/admin/models")
    assert (unknown.status_code, unknown.json()["code"]) == (404, 404)
    assert (wrong.status_code, wrong.json()["type"]) == (405, "MethodNotAllowedException")
    assert "POST" in wrong.headers["allow"]


def test_who_waits_gets_the_time_said_and_a_little_more(over):
    site = over(client := Ordered())
    for body in (b'{"min": 1}', b'{"min": 1, "wait": true}', b'{"min": 1, "wait": true, "timeout_ms": 9000}'):
        site.manage("POST", "/admin/models/m/scale", content=body)
    assert client.limits_s == [20.0, 65.0, 14.0]


def test_a_broker_that_is_away_is_503_at_once(over, monkeypatch):
    monkeypatch.setattr(models, "ANSWER_S", 0.01)

    class Silent(AsyncStubClient):
        async def command(self, *order, timeout_s=0):
            await asyncio.Event().wait()

    answer = over(Silent({})).manage("GET", "/state")
    assert (answer.status_code, answer.json()["error"]) == (503, "BrokerUnreachable")


def test_orders_are_counted_as_management_and_their_routes_are_nowhere_else(site):
    site.manage("GET", "/state")
    assert site.get("/state").status_code == site.get("/admin/models").status_code == 404
    assert site.get("/metrics").status_code == site.manage("GET", "/metrics").status_code == 404
    text = site.metrics().text
    assert 'headway_http_requests_total{dialect="management",status="200"} 1.0' in text


@pytest.fixture
def broker():
    with tempfile.TemporaryDirectory(prefix="headway-") as folder:  # a socket's path must be short
        broker = EchoBroker(Path(folder)).start()
        yield broker
        broker.stop()


@looped
async def test_an_order_goes_over_the_wire_and_its_refusal_comes_back(settings, broker):
    async with Online(AsyncClient(broker.address, shm_bytes=0), settings) as online:
        order = post("/admin/models/m/scale", b'{"min": 1, "wait": true}', "Authorization: Bearer t")
        answer = await online.ask(order, "management")
        assert answer.status == b"HTTP/1.1 200 OK"
        assert json.loads(answer.body) == {"verb": "scale", "model": "m", "min": 1, "wait": 1}
        wrong = await online.ask(order.replace(b"Bearer t", b"Bearer u"), "management")
        assert wrong.status == b"HTTP/1.1 401 Unauthorized"
        assert b"www-authenticate: Bearer" in wrong.headers


@looped
async def test_a_client_that_leaves_is_not_waited_for(settings):
    class Slow(AsyncStubClient):
        left = False

        async def command(self, *order, timeout_s=0):
            started.set()
            try:
                await asyncio.Event().wait()
            finally:
                self.left = True

    started = asyncio.Event()
    async with Online(client := Slow({}), settings) as online:
        peer = await online.peer(door="management")
        peer.send(post("/admin/workers/w0/drain", b'{"wait": true}', "Authorization: Bearer t"))
        await started.wait()
        await peer.leave()
        await until(lambda: client.left)


# ---- by URL ----


@pytest.fixture
def shop(tmp_path, settings):
    """A folder that models may be fetched from, and a site over a store."""
    (tmp_path / "shop").mkdir()
    (tmp_path / "store").mkdir()
    source = tmp_path / "source"
    source.mkdir()
    (source / "model.toml").write_text('backend = "python"\n')
    (source / "model.py").write_text("class Model: ...\n")
    with tarfile.open(tmp_path / "shop" / "doubler-2.tar.gz", "w:gz") as tar:
        tar.add(source, "doubler")

    class Stored(Ordered):
        async def command(self, verb, arguments, token, timeout_s=0):
            answer = await super().command(verb, arguments, token, timeout_s)
            return {"broker": {"model_store": str(tmp_path / "store")}} if verb == "state" else answer

    allowed = dataclasses.replace(settings, register_urls=f"http://no.where/, file://{tmp_path}/shop")
    return Site(Stored(), allowed), f"file://{tmp_path}/shop/doubler-2.tar.gz", tmp_path / "store"


def post_url(site, url: str, **more: Any):
    return site.manage("POST", "/admin/models", content=json.dumps({"url": url, **more}).encode())


def test_a_model_is_fetched_into_the_store_and_then_registered(shop):
    site, url, store = shop
    assert post_url(site, url, wait=True).status_code == 200
    assert (store / "doubler" / "2" / "model.toml").is_file()
    assert [path.name for path in store.iterdir()] == ["doubler"]
    orders = [order[:2] for order in site.client.orders]
    assert orders == [("state", {}), ("register", {"path": "doubler/2", "wait": 1})]


def test_a_fetched_model_may_have_another_name_and_version(shop):
    site, url, store = shop
    assert post_url(site, url, name="other", version="7.1").status_code == 200
    assert (store / "other" / "7.1" / "model.toml").is_file()
    assert site.client.orders[-1][1] == {"path": "other/7.1"}


def test_a_version_that_is_there_is_not_replaced(shop):
    site, url, store = shop
    post_url(site, url)
    (store / "doubler" / "2" / "mine").touch()
    answer = post_url(site, url)
    assert (answer.status_code, "already" in answer.json()["message"]) == (400, True)
    assert (store / "doubler" / "2" / "mine").exists()
    assert [verb for verb, *_ in site.client.orders].count("register") == 1


def test_nothing_is_fetched_for_a_wrong_token_or_from_elsewhere(shop):
    site, url, store = shop
    elsewhere = post_url(site, "http://elsewhere/m.zip")
    assert (elsewhere.status_code, "register_urls" in elsewhere.json()["message"]) == (400, True)
    site.client.fails = e.Unauthorized("no")
    assert post_url(site, url).status_code == 401
    assert list(store.iterdir()) == []


@looped
async def test_for_a_client_that_leaves_nothing_more_is_fetched(settings, tmp_path):
    """The sender never ends; the fetch does, and tidies up."""
    (tmp_path / "store").mkdir()
    began = asyncio.Event()

    async def endless(reader, writer):
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            while not writer.is_closing():
                writer.write(b"x")
                await writer.drain()
                began.set()
                await asyncio.sleep(0.01)

    class Stored(AsyncStubClient):
        async def command(self, verb, arguments, token, timeout_s=0):
            return {"broker": {"model_store": str(tmp_path / "store")}}

    source = await asyncio.start_server(endless, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{source.sockets[0].getsockname()[1]}/"
    allowed = dataclasses.replace(settings, register_urls=url)
    async with Online(Stored({}), allowed) as online:
        peer = await online.peer(door="management")
        body = json.dumps({"url": f"{url}m.zip"}).encode()
        peer.send(post("/admin/models", body, "Authorization: Bearer t"))
        await began.wait()
        assert [p.name.startswith(".fetch-") for p in (tmp_path / "store").iterdir()] == [True]
        await peer.leave()
        await until(lambda: not list((tmp_path / "store").iterdir()))
    source.close()


def test_without_the_setting_no_url_is_taken(over):
    answer = post_url(over(Ordered()), "http://x/m.zip")
    assert answer.status_code == 400 and "register_urls" in answer.json()["message"]


def test_a_store_that_is_not_on_this_host_is_said(shop, tmp_path):
    site, url, store = shop
    store.rmdir()
    answer = post_url(site, url)
    assert (answer.status_code, "model store" in answer.json()["message"]) == (500, True)
