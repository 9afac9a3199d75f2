"""headway_gateway.torchserve.gate and app: who may come in, at which address."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from headway.torchserve.keys import Keys
from tests.gateway.torchserve_door import Door

REFUSED = "Token Authorization failed. Token either incorrect, expired, or not provided correctly"


class Locked(Door):
    """Asks for keys."""

    def __init__(self, folder: Path, **more: bool) -> None:
        Keys(folder / "key_file.json", 60).make()
        super().__init__(folder, disable_token_authorization=False, **more)  # type: ignore[arg-type]
        found = json.loads((folder / "key_file.json").read_text())
        self.keys = {kind: found[kind]["key"] for kind in found}

    def status(
        self, method: str, path: str, kind: str = "", door: str = "http", scheme: str = "Bearer "
    ) -> int:
        key = self.keys.get(kind, kind)
        headers = {"Authorization": scheme + key} if key else {}
        return self.ask(method, path, door, headers=headers).status_code


@pytest.fixture
def door(tmp_path: Path) -> Locked:
    return Locked(tmp_path)


def test_without_a_key_nobody_learns_what_there_is(door: Locked) -> None:
    for path in ("/ping", "/predictions/m", "/predictions/nobody", "/nope"):
        response = door.post(path)
        assert response.status_code == 400
        assert response.json() == {"code": 400, "type": "InvalidKeyException", "message": REFUSED}
    assert not door.client.calls


def test_each_address_has_a_key_of_its_own(door: Locked) -> None:
    for kind, expected in (("inference", 200), ("management", 400), ("API", 400), ("wrong", 400)):
        assert door.status("POST", "/predictions/m", kind) == expected
        assert door.status("GET", "/ping", kind) == expected
    for kind, expected in (("management", 200), ("inference", 400)):
        assert door.status("GET", "/models", kind, "management") == expected
    assert door.status("GET", "/nope", "inference") == 404


def test_the_scheme_is_written_as_torchserve_wants_it(door: Locked) -> None:
    assert door.status("GET", "/ping", "inference", scheme="bearer ") == 400
    assert door.status("GET", "/ping", "inference", scheme="") == 400


def test_what_the_interface_is_and_whether_it_is_ready_anybody_may_ask(door: Locked) -> None:
    assert {door.status("OPTIONS", "/"), door.status("GET", "/api-description")} == {200}
    assert door.status("OPTIONS", "/predictions/m") == 400
    assert door.status("GET", "/metrics", door="metrics") == 200
    door.client.versions[0]["ready"] = 0
    assert door.get("/ready").json() == {"ready": False}
    known = door.get("/ready", headers={"Authorization": f"Bearer {door.keys['inference']}"})
    assert known.json() == {"ready": False, "not_ready": ["m/1.0"]}


def test_headway_s_own_routes_need_its_own_token(door: Locked) -> None:
    assert door.status("GET", "/state", door="management") == 401
    assert door.status("GET", "/state", "k" * 200, door="management") == 401  # it cannot be a token
    assert door.status("GET", "/state", "token", door="management") == 200
    assert door.client.commands[0][0] == "state"


def test_a_key_is_renewed_with_the_api_s_key(door: Locked, tmp_path: Path) -> None:
    assert door.status("GET", "/token?type=inference", "management", "management") == 400
    assert door.status("GET", "/token?type=inference", "API", "management") == 200
    assert door.status("GET", "/token?type=inference", "API") == 400  # inference's own, or nothing is said
    assert door.status("GET", "/ping", "inference") == 400  # the old one
    door.keys["inference"] = json.loads((tmp_path / "key_file.json").read_text())["inference"]["key"]
    assert door.status("GET", "/ping", "inference") == 200


# ---- addresses ----


def test_what_is_of_one_address_is_not_found_at_another(tmp_path: Path) -> None:
    door = Door(tmp_path)
    for path, home in (("/ping", "http"), ("/predictions/m", "http"), ("/models", "management")):
        found = {at: door.ask("GET", path, at).status_code for at in ("http", "management", "metrics")}
        assert found == {**dict.fromkeys(found, 404), home: 200}


def test_a_shared_listener_serves_everything_and_asks_each_route_s_own_key(tmp_path: Path) -> None:
    door = Locked(tmp_path, shared=True)
    inference = ("/ping", "/predictions/m", "/models/m/invoke")
    for path, kind in [*[(path, "inference") for path in inference], ("/models", "management")]:
        other = {"inference": "management", "management": "inference"}[kind]
        assert (door.status("GET", path, kind), door.status("GET", path, other)) == (200, 400)
    assert door.status("GET", "/metrics") == 200
    paths = door.ask("OPTIONS", "/").json()["paths"]
    assert "/predictions/{model_name}" in paths and "/models" in paths


def test_metrics_that_are_off_are_nowhere(tmp_path: Path) -> None:
    door = Door(tmp_path, enable_metrics_api=False)
    assert {door.ask("GET", "/metrics", at).status_code for at in ("http", "management")} == {404}


def test_a_trailing_slash_is_none(tmp_path: Path) -> None:
    assert Door(tmp_path).ask("GET", "/models/", "management").status_code == 200
