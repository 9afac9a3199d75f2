"""headway.manage: each method is its route, and each error comes back as itself."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from headway import errors as e
from headway.manage import Management
from tests.common.control import TOKEN, Control, controlled


@pytest.fixture
def control() -> Iterator[Control]:
    with controlled() as server:
        yield server


@pytest.fixture
def management(control: Control) -> Management:
    return Management(control.address, TOKEN, 5.0)


WAIT = {"wait": True, "timeout_ms": 1500}
ORDERS = [
    (lambda m: m.register("m/2"), "POST", "/admin/models", {"path": "m/2"}),
    (lambda m: m.register("m/2", wait_s=1.5), "POST", "/admin/models", {"path": "m/2", **WAIT}),
    (lambda m: m.register_url("http://x/m.zip"), "POST", "/admin/models", {"url": "http://x/m.zip"}),
    (
        lambda m: m.register_url("http://x/m.zip", "n", "3", 1.5),
        "POST",
        "/admin/models",
        {"url": "http://x/m.zip", "name": "n", "version": "3", **WAIT},
    ),
    (lambda m: m.unregister("m"), "DELETE", "/admin/models/m", None),
    (lambda m: m.unregister("m", "1"), "DELETE", "/admin/models/m/versions/1", None),
    (lambda m: m.rescan(), "POST", "/admin/rescan", {}),
    (lambda m: m.scale("m", 2), "POST", "/admin/models/m/scale", {"min": 2, "max": 2}),
    (
        lambda m: m.scale("m", 0, 4, "2", 1.5),
        "POST",
        "/admin/models/m/scale",
        {"min": 0, "max": 4, "version": "2", **WAIT},
    ),
    (lambda m: m.default("m", "2"), "POST", "/admin/models/m/default", {"version": "2"}),
    (
        lambda m: m.split("m", {"1": 90, "2": 10}),
        "POST",
        "/admin/models/m/split",
        {"weights": {"1": 90, "2": 10}},
    ),
    (lambda m: m.split("m", {}), "POST", "/admin/models/m/split", {"weights": {}}),
    (lambda m: m.drain("w 0/1", 1.5), "POST", "/admin/workers/w%200%2F1/drain", WAIT),
    (lambda m: m.workers("h1", 3), "PUT", "/admin/hosts/h1", {"workers": 3}),
    (lambda m: m.workers("h1", None), "PUT", "/admin/hosts/h1", {"workers": None}),
]


@pytest.mark.parametrize(("order", "method", "path", "body"), ORDERS)
def test_each_order_is_one_request(control, management, order, method, path, body):
    assert isinstance(order(management), dict)
    assert control.orders == [(method, path, body)]


def test_questions_are_answered_with_what_the_broker_knows(control, management):
    assert management.state() == control.state
    assert [m["name"] for m in management.describe()] == ["m", "n"]
    assert [m["name"] for m in management.describe("m")] == ["m"]
    assert control.orders == []


ERRORS = [*e.ERROR_OF_CODE.values(), e.BrokerUnreachable]


@pytest.mark.parametrize("cls", ERRORS)
def test_an_error_is_raised_as_the_one_that_it_was(control, management, cls):
    control.answers["GET /state"] = (503, {"error": cls.__name__, "message": "because"})
    with pytest.raises(cls, match="because") as caught:
        management.state()
    assert type(caught.value) is cls and caught.value.retry_after_s == 3.0


@pytest.mark.parametrize(
    ("status", "cls"),
    [(400, e.InvalidInput), (401, e.Unauthorized), (404, e.UnknownModel), (413, e.TooLarge),
     (503, e.NotReady), (504, e.DeadlineExceeded), (500, e.InternalError), (418, e.InternalError)],
)  # fmt: skip
@pytest.mark.parametrize("body", [b"<html>proxy</html>", b"[]", b'{"error": "New"}', b"[" * 5000, b""])
def test_an_error_of_another_make_is_raised_by_its_status(control, management, status, cls, body):
    control.answers["GET /state"] = (status, body)
    with pytest.raises(cls, match=str(status)):
        management.state()


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"3", b""])
def test_an_answer_that_is_none_is_a_protocol_error(control, management, body):
    control.answers["GET /state"] = (200, body)
    control.answers["GET /admin/models"] = (200, {"models": 3})
    with pytest.raises(e.RemoteProtocolError):
        management.state()
    with pytest.raises(e.RemoteProtocolError):
        management.describe()


def test_a_wrong_token_is_said(control):
    with pytest.raises(e.Unauthorized):
        Management(control.address, "wrong").state()
    with pytest.raises(e.Unauthorized):
        Management(control.address, "a\nb: c").state()


def test_nobody_there_is_unreachable_with_the_address():
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(e.BrokerUnreachable, match=address):
        Management(address, TOKEN).state()


def test_who_does_not_answer_or_hangs_up_is_unreachable():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(e.BrokerUnreachable, match=r"0\.1 s"):
            Management(address, TOKEN, 0.1).state()
        silent.accept()[0].close()

        def hang_up() -> None:
            peer, _ = silent.accept()
            peer.recv(100)
            peer.close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        with pytest.raises(e.BrokerUnreachable):
            Management(address, TOKEN, 5.0).state()
        thread.join()


@pytest.mark.parametrize("address", ["", "8081", "host:", "host:x", "host:0", "host:65536", ":8081"])
def test_an_address_that_is_none_is_a_wrong_setting(address: Any):
    with pytest.raises(e.SettingsError, match="management"):
        Management(address, TOKEN)


def test_an_address_that_is_everywhere_is_also_here(control):
    everywhere = Management(f"0.0.0.0:{control.server_port}", TOKEN)
    assert everywhere.state()["broker"]["pid"] == 7
