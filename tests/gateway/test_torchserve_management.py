"""headway_gateway.torchserve.management: from a route to an operation, and its answer back."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import falcon
import falcon.asgi
import httpx
import pytest

from headway.torchserve.keys import Keys, parse_keys
from headway_gateway.request import Request
from headway_gateway.torchserve.management import ManagementRoutes
from headway_gateway.torchserve.refusal import Refusal
from tests.gateway.torchserve_broker import Yard


class Site(Yard):
    """The routes on an app that writes refusals."""

    def __init__(self, folder: Path, keys: Keys | None = None, **properties: Any) -> None:
        super().__init__(folder, **properties)
        self.app: falcon.asgi.App[Any, Any] = falcon.asgi.App(request_type=Request)
        self.app.req_options.strip_url_path_trailing_slash = True
        self.app.add_error_handler(Refusal, _refuse)
        routes = ManagementRoutes(self.operations, keys, self.properties, _describe_api)
        routes.add_routes(self.app)

    def ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        return asyncio.run(self._ask(method, path, more))

    async def _ask(self, method: str, path: str, more: dict[str, Any]) -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url="http://test") as http:
            return await http.request(method, path, **more)


async def _refuse(req: Any, resp: Any, refusal: Any, params: Any) -> None:
    resp.status, resp.data, resp.content_type = refusal.status, refusal.body, "application/json"


async def _describe_api(model: str) -> bytes:
    return json.dumps({"of": model}).encode()


@pytest.fixture
def site(tmp_path: Path) -> Site:
    site = Site(tmp_path)
    for version in ("1.0", "2.0"):
        assert site.ask("POST", f"/models?url={site.archive(version=version)}").status_code == 200
    return site


def test_a_model_is_registered_by_a_query_string(tmp_path: Path) -> None:
    site = Site(tmp_path)
    answer = site.ask("POST", f"/models?url={site.archive()}&model_name=n&initial_workers=2&batch_size=x")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    text = 'Model \\"n\\" Version: 1.0 registered with 2 initial workers'
    assert answer.text == f'{{\n  "status": "{text}"\n}}\n'


def test_a_model_is_registered_by_a_json_body(tmp_path: Path) -> None:
    site = Site(tmp_path)
    body = {"url": site.archive(), "initial_workers": 1, "synchronous": False}
    headers = {"Content-Type": "Application/JSON; charset=utf-8"}
    answer = site.ask("POST", "/models?url=another", content=json.dumps(body), headers=headers)
    assert (answer.status_code, answer.json()) == (202, {"status": "Processing worker updates..."})


def test_a_body_of_another_type_is_not_read(tmp_path: Path) -> None:
    site = Site(tmp_path)
    answer = site.ask("POST", "/models", content=b'{"url": "m.mar"}', headers={"Content-Type": "text/plain"})
    assert answer.json()["message"] == "Parameter url is required."


def test_json_that_is_none_is_500(tmp_path: Path) -> None:
    answer = Site(tmp_path).ask("POST", "/models", content=b"{", headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["type"]) == (500, "JsonSyntaxException")


def test_a_name_with_half_a_letter_is_answered(tmp_path: Path) -> None:
    body = b'{"url": "\\ud800.mar"}'
    answer = Site(tmp_path).ask("POST", "/models", content=body, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["message"]) == (404, "Model not found at: ?.mar")


@pytest.mark.parametrize(
    "path", ["/models/m", "/models/m/", "/models/m?junk=1", "/models/%6d", "/models/m/1.0"]
)
def test_a_version_is_described_however_its_path_is_written(site: Site, path: str) -> None:
    assert [one["modelVersion"] for one in site.ask("GET", path).json()] == ["1.0"]


def test_all_versions_are_described(site: Site) -> None:
    answer = site.ask("GET", "/models/m/all")
    assert [one["modelVersion"] for one in answer.json()] == ["1.0", "2.0"]
    assert answer.text.startswith('[\n  {\n    "modelName": "m",\n')


def test_a_models_own_description_is_asked_for_with_the_word_true_only(site: Site) -> None:
    site.ask("PUT", "/models/m?min_worker=1")
    assert "customizedMetadata" in site.ask("GET", "/models/m?customized=TRUE").json()[0]
    assert "customizedMetadata" not in site.ask("GET", "/models/m?customized=1").json()[0]


@pytest.mark.parametrize(
    ("path", "status", "workers"),
    [
        ("/models/m", 202, {"1.0": 1, "2.0": 0}),
        ("/models/m/2.0?min_worker=2&max_worker=3", 202, {"1.0": 0, "2.0": 2}),
        ("/models/m?min_worker=2&synchronous=true&model_version=2.0", 200, {"1.0": 0, "2.0": 2}),
        ("/models/m/?min_worker=many&number_gpu=4", 202, {"1.0": 1, "2.0": 0}),
        ("/models/m?max_worker=-1", 400, {"1.0": 0, "2.0": 0}),
        ("/models/m?min_worker=-1&max_worker=1", 400, {"1.0": 0, "2.0": 0}),
    ],
)
def test_workers_are_scaled_as_the_query_says(
    site: Site, path: str, status: int, workers: dict[str, int]
) -> None:
    assert site.ask("PUT", path).status_code == status
    assert {version: copies for (_, version), copies in site.broker.versions.items()} == workers


def test_a_default_is_set_and_the_other_version_goes(site: Site) -> None:
    assert site.ask("PUT", "/models/m/2.0/set-default").status_code == 200
    assert site.ask("GET", "/models/m/1.0/set-default").json()[0]["modelVersion"] == "2.0"
    assert site.ask("DELETE", "/models/m/1.0/").status_code == 200
    assert site.ask("DELETE", "/models/m?junk=1").status_code == 200
    assert site.ask("GET", "/models").json() == {"models": []}


def test_models_are_listed_with_numbers_that_make_sense(site: Site) -> None:
    models = [{"modelName": "m", "modelUrl": "m-1.0.mar"}]
    assert site.ask("GET", "/models?limit=many&next_page_token=x").json() == {"models": models}
    assert site.ask("GET", "/models/?limit=1").json() == {"nextPageToken": "1", "models": models}


def test_kserve_is_told_whether_a_model_is_ready(site: Site) -> None:
    assert site.ask("GET", "/v1/models/m").text == '{\n  "name": "m",\n  "ready": false\n}\n'
    site.ask("PUT", "/models/m")
    assert site.ask("GET", "/v1/models/m").json()["ready"] is True
    assert site.ask("GET", "/v1/models/x").json()["message"] == "Model not found: x"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PUT", "/models"),
        ("DELETE", "/models"),
        ("HEAD", "/models"),
        ("OPTIONS", "/models"),
        ("POST", "/models/m"),
        ("PATCH", "/models/m"),
        ("DELETE", "/models/m/1.0/set-default"),
        ("POST", "/v1/models/m"),
        ("OPTIONS", "/v1/models/m"),
    ],
)
def test_other_methods_are_405(site: Site, method: str, path: str) -> None:
    assert site.ask(method, path).status_code == 405
    assert len(site.broker.versions) == 2


@pytest.mark.parametrize(
    "path", ["/models/m%2Fx", "/models/x%2f1.0", "/models/m/1.0/more", "/models/m/1/2/3"]
)
def test_a_name_has_no_slash_and_a_path_no_more_parts(site: Site, path: str) -> None:
    for method in ("GET", "DELETE"):
        assert site.ask(method, path).status_code == 404
    assert len(site.broker.versions) == 2


@pytest.mark.parametrize(("method", "path"), [("POST", "/models?url=m.mar"), ("DELETE", "/models/m")])
def test_without_the_model_api_nothing_is_registered_or_unregistered(
    tmp_path: Path, method: str, path: str
) -> None:
    site = Site(tmp_path, enable_model_api=False)
    answer = site.ask(method, path)
    assert (answer.status_code, answer.json()["type"]) == (405, "MethodNotAllowedException")
    assert site.ask("GET", "/models").status_code == 200


def test_a_models_management_is_described_where_it_is(site: Site) -> None:
    assert site.ask("OPTIONS", "/models/m").json() == {"of": "m"}
    assert site.ask("OPTIONS", "/models/x").status_code == 404


# ---- keys ----


def test_a_new_key_is_in_the_file_and_not_in_the_answer(tmp_path: Path) -> None:
    keys = Keys(tmp_path / "key_file.json", 60)
    keys.make()
    site = Site(tmp_path, keys)
    before = parse_keys(keys.path.read_bytes())
    headers = {"Authorization": f"Bearer {before['API'].key}"}
    answer = site.ask("GET", "/token?type=inference", headers=headers)
    assert (answer.status_code, answer.content) == (200, b"\n")
    after = parse_keys(keys.path.read_bytes())
    assert after["inference"].key != before["inference"].key
    assert (after["management"], after["API"]) == (before["management"], before["API"])


@pytest.mark.parametrize("kind", ["?type=API", "?type=", "", "?type=INFERENCE"])
def test_there_are_no_other_kinds_of_keys(tmp_path: Path, kind: str) -> None:
    keys = Keys(tmp_path / "key_file.json", 60)
    keys.make()
    key = parse_keys(keys.path.read_bytes())["API"].key
    answer = Site(tmp_path, keys).ask("GET", f"/token{kind}", headers={"Authorization": f"Bearer {key}"})
    assert (answer.status_code, answer.json()["type"]) == (400, "InvalidKeyException")


@pytest.mark.parametrize("given", ["management", "API "])
def test_only_the_api_key_makes_new_ones(tmp_path: Path, given: str) -> None:
    keys = Keys(tmp_path / "key_file.json", 60)
    keys.make()
    before = keys.path.read_bytes()
    key = parse_keys(before)[given.strip()].key
    scheme = "Bearer" if given == "management" else "Basic"
    answer = Site(tmp_path, keys).ask(
        "GET", "/token?type=inference", headers={"Authorization": f"{scheme} {key}"}
    )
    text = "Token Authentication failed. Token either incorrect, expired, or not provided correctly"
    assert (answer.status_code, answer.json()["message"]) == (400, text)
    assert keys.path.read_bytes() == before


def test_without_keys_there_is_no_such_route(site: Site) -> None:
    assert site.ask("GET", "/token?type=inference").status_code == 404
