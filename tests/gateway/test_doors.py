"""headway_gateway.doors: the local address decides, and nothing that a request says."""

from __future__ import annotations

import asyncio

import pytest

from headway.errors import SettingsError
from headway.settings import GatewaySettings
from headway_gateway.app import places_of
from headway_gateway.doors import Doors, Place
from tests.gateway.conftest import MODELS
from tests.gateway.test_connection import PING, Online, Ways, echo, looped, post

APPS = {"http": "inference", "management": "orders", "metrics": "numbers"}


def doors(**places: tuple[str, int]) -> Doors:
    return Doors(APPS, {name: Place(*place) for name, place in places.items()})


def test_the_app_is_that_of_the_connections_local_address():
    found = doors(http=("127.0.0.1", 1), management=("127.0.0.1", 2), metrics=("10.0.0.1", 2))
    assert found.at(("127.0.0.1", 1)) == "inference"
    assert found.at(("127.0.0.1", 2)) == "orders"
    assert found.at(("10.0.0.1", 2)) == "numbers"


@pytest.mark.parametrize("server", [None, ("/run/x.sock", None), ("127.0.0.1", 9), ("10.0.0.9", 2)])
def test_what_comes_to_no_known_address_is_inference(server):
    assert doors(http=("127.0.0.1", 1), management=("127.0.0.1", 2)).at(server) == "inference"


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_who_listens_everywhere_is_known_by_the_port(host):
    found = doors(http=("127.0.0.1", 1), management=(host, 2))
    assert found.at(("192.168.7.7", 2)) == found.at(("::ffff:10.0.0.1", 2)) == "orders"
    assert found.at(("192.168.7.7", 1)) == "inference"


def test_a_place_is_written_as_in_a_url():
    assert [str(Place("127.0.0.1", 1)), str(Place("::1", 2))] == ["127.0.0.1:1", "[::1]:2"]


def test_settings_name_the_places_and_an_empty_one_is_none(tmp_path):
    said = GatewaySettings(run_dir=tmp_path, http="127.0.0.1:80", management="[::1]:81", metrics="")
    assert places_of(said) == {"http": ("127.0.0.1", 80), "management": ("::1", 81)}


@pytest.mark.parametrize("address", ["nowhere", "127.0.0.1:x", "127.0.0.1:99999999"])
def test_an_address_that_is_none_is_named_with_its_setting(tmp_path, address):
    with pytest.raises(SettingsError, match="management"):
        places_of(GatewaySettings(run_dir=tmp_path, management=address))


def test_the_servers_life_is_told_to_the_app_that_opens_the_client():
    told = []

    async def inference(scope, receive, send):
        told.append(scope["type"])

    asyncio.run(Doors({"http": inference}, {})({"type": "lifespan"}, None, None))
    assert told == ["lifespan"]


def get(path: str, *headers: str) -> bytes:
    return post(path, b"", *headers, line="GET {} HTTP/1.1")


OK = b"HTTP/1.1 200 OK"
BEARER = "Authorization: Bearer t"


@looped
async def test_each_address_serves_its_own_and_nothing_else(settings):
    async with Online(client := Ways(MODELS), settings) as online:
        served = {
            door: [(await online.ask(request, door)).status == OK for request in asked.values()]
            for door in APPS
        }
        assert served == {
            "http": [True, True, False, False],
            "management": [False, False, True, False],
            "metrics": [False, False, False, True],
        }
        assert client.shorts == 1


asked = {
    "predict": echo(b"x"),
    "ping": get("/ping"),
    "state": get("/state", BEARER),
    "metrics": get("/metrics"),
}


@looped
async def test_a_host_header_opens_no_other_door(settings):
    async with Online(Ways(MODELS), settings) as online:
        host = "{}:{}".format(*online._listeners["management"].getsockname())
        request = f"GET /state HTTP/1.1\r\nHost: {host}\r\n{BEARER}\r\nX-Forwarded-Host: {host}\r\n\r\n"
        assert (await online.ask(request.encode())).status == b"HTTP/1.1 404 Not Found"


@looped
async def test_the_short_way_is_for_inference_only(settings):
    async with Online(client := Ways(MODELS), settings) as online:
        for door in ("management", "metrics"):
            peer = await online.peer(door=door)
            peer.send(echo(b"x"), PING)
            assert (await peer.answer()).status != OK
        assert client.shorts == 0 and not client.calls
