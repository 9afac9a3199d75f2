"""headway_gateway.torchserve.inference: routes, over handlers that are functions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from headway import errors
from headway.torchserve.registration import Registration
from tests.gateway.torchserve_door import Door, fails, register, says, shown

MULTIPART = {"Content-Type": "multipart/form-data; boundary=B"}


def form(**parts: str) -> bytes:
    shown = "".join(
        f'--B\r\nContent-Disposition: form-data; name="{n}"\r\n\r\n{d}\r\n' for n, d in parts.items()
    )
    return f"{shown}--B--\r\n".encode()


@pytest.fixture
def door(tmp_path: Path) -> Door:
    return Door(tmp_path)


def told(response: Any) -> dict[str, Any]:
    assert response.status_code == 200, response.text
    found: dict[str, Any] = json.loads(response.content)
    return found


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "PATCH"])
def test_any_method_predicts(door: Door, method: str) -> None:
    assert told(door.ask(method, "/predictions/m", content=b"x"))["parts"] == {"body": ["", "x"]}


def test_a_prediction_s_head_has_no_phrase_and_no_type_that_the_handler_did_not_set(door: Door) -> None:
    response = door.post("/predictions/m/1.0")
    assert "content-type" not in response.headers
    assert list(response.headers) == ["x-request-id", "pragma", "cache-control", "expires", "content-length"]


@pytest.mark.parametrize(
    ("path", "more"),
    [
        ("/predictions/m/1.0/a/b%20c?x=1", {"explain": "false", "url_path": "a/b c"}),
        ("/explanations/m", {"explain": "true", "url_path": ""}),
        ("/explanations/m/1.0/z", {"explain": "true", "url_path": "z"}),
        ("/v1/models/m:predict?x=1", {"explain": "false"}),
        ("/v1/models/m:explain", {"explain": "true"}),
        ("/v2/models/m/infer?x=1", {"explain": "false"}),
        ("/v2/models/m/explain", {"explain": "true"}),
        ("/predictions/%6d", {"explain": "false", "url_path": ""}),
        ("/m/predict", {}),
        ("/models/m/invoke", {}),
        ("/invocations?model_name=m", {}),
    ],
)
def test_what_the_path_says_reaches_the_handler_and_what_the_query_says_does_not(door, path, more) -> None:
    found = told(door.post(path, b"x"))
    del found["headers"]
    assert found.pop("parts")["body"] == ["", "x"]
    assert found == more


def test_that_the_client_waits_to_be_told_to_go_on_is_not_the_handler_s_to_know(door: Door) -> None:
    headers = told(door.post("/predictions/m", b"x", headers={"Expect": "100-continue"}))["headers"]
    assert "expect" not in {name.lower() for name in headers}


@pytest.mark.parametrize("path", ["/m/predict", "/m/1.0/predict", "/models/m/invoke"])
def test_on_old_routes_the_query_s_fields_are_inputs(door: Door, path: str) -> None:
    assert told(door.post(f"{path}?a=1&a=2", b"x"))["parts"] == {"a": ["", "2"], "body": ["", "x"]}


def test_headers_reach_the_handler_and_a_missing_length_is_added(door: Door) -> None:
    headers = told(door.get("/predictions/m", headers={"X-A": "1"}))["headers"]
    assert headers["x-a"] == "1" and headers["content-length"] == "0"


def test_a_form_s_parts_reach_the_handler_by_name(door: Door) -> None:
    assert told(door.post("/predictions/m", form(a="1", b="2"), headers=MULTIPART))["parts"] == {
        "a": ["", "1"], "b": ["", "2"]
    }  # fmt: skip
    refused = door.post("/predictions/m", b"junk", headers=MULTIPART)
    assert (refused.status_code, refused.json()["type"]) == (400, "BadRequestException")


def test_a_compressed_body_reaches_the_handler_as_it_is(door: Door) -> None:
    response = door.post("/predictions/m", b"no gzip", headers={"Content-Encoding": "gzip"})
    assert told(response)["parts"] == {"body": ["", "no gzip"]}


# ---- SageMaker ----


def test_invocations_name_their_model_in_the_query_or_in_a_form(door: Door) -> None:
    by_query = door.post("/invocations?model_name=m&z=1", b"x")
    assert told(by_query)["parts"] == {"model_name": ["", "m"], "z": ["", "1"], "body": ["", "x"]}
    by_form = door.post("/invocations", form(model_name="m"), headers=MULTIPART)
    assert told(by_form)["parts"] == {"model_name": ["", "m"]}


def test_invocations_without_a_name_are_for_the_only_model_of_the_start(tmp_path: Path) -> None:
    door = Door(tmp_path, {"m": shown, "n": says()})
    refused = door.post("/invocations", b"x")
    assert (refused.status_code, refused.json()["message"]) == (400, "Parameter model_name is required.")
    register(door.client.store, Registration("m", "1.0", "m.mar", "/m.mar", at_startup=True))
    assert told(door.post("/invocations", b"x"))["parts"] == {"body": ["", "x"]}
    register(door.client.store, Registration("n", "1.0", "n.mar", "/n.mar", at_startup=True))
    assert door.post("/invocations", b"x").status_code == 400


# ---- errors ----


def test_an_error_is_json_indented_with_a_newline_and_closes_the_connection(door: Door) -> None:
    response = door.post("/predictions/nobody")
    assert response.status_code == 404 and response.headers["connection"] == "close"
    assert response.headers["content-type"] == "application/json"
    assert response.content == (
        b'{\n  "code": 404,\n  "type": "ModelNotFoundException",\n  "message": "Model not found: nobody"\n}\n'
    )


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({}, 'Model "full" has no room for one more inference request: 9 wait'),
        (
            {"headway_telling_messages": False},
            'Model "full" has no worker to serve inference request. Please',
        ),
    ],
)
def test_a_full_queue_says_so_unless_torchserve_s_one_text_is_wanted(tmp_path, said, message) -> None:
    response = Door(tmp_path, {"full": fails(errors.QueueFull("9 wait"))}, **said).post("/predictions/full")
    assert response.status_code == 503
    assert response.json()["type"] == "ServiceUnavailableException"
    assert response.json()["message"].startswith(message)


NOT_THERE = {
    404: ("ResourceNotFoundException", "resource is not found"),
    405: ("MethodNotAllowedException", "method is not allowed"),
}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 405),
        ("POST", "/", 405),
        ("GET", "/nope", 404),
        ("GET", "/models", 404),
        ("OPTIONS", "/nope", 404),
        ("GET", "/v2", 404),
        ("GET", "/api-description/x", 404),
        ("POST", "/predictions/", 404),
    ],
)
def test_what_is_not_there_is_told_in_torchserve_s_words(door, method, path, status) -> None:
    response = door.ask(method, path)
    type, text = NOT_THERE[status]
    message = f"Requested {text}, please refer to API document."
    assert response.status_code == status
    assert response.json() == {"code": status, "type": type, "message": message}


@pytest.mark.parametrize(
    ("path", "at"), [("/predictions/m", "http"), ("/ping", "http"), ("/models", "management")]
)
def test_a_body_over_the_limit_gets_a_bare_413(tmp_path: Path, path: str, at: str) -> None:
    response = Door(tmp_path, max_request_size=9).ask("POST", path, at, content=b"0123456789")
    assert (response.status_code, response.content) == (413, b"")
    assert dict(response.headers) == {"content-length": "0"}


# ---- health ----


def test_ping_answers_any_method(door: Door) -> None:
    for method, path in (("GET", "/ping"), ("POST", "/ping"), ("OPTIONS", "/ping/x")):
        response = door.ask(method, path)
        assert (response.status_code, response.content) == (200, b'{\n  "status": "Healthy"\n}\n')


@pytest.mark.parametrize(("truthful", "status"), [(False, 200), (True, 500)])
def test_a_truthful_ping_sees_a_model_that_does_not_serve(
    tmp_path: Path, truthful: bool, status: int
) -> None:
    door = Door(tmp_path, headway_truthful_ping=truthful)
    door.client.versions[0]["ready"] = 0
    response = door.get("/ping")
    assert (response.status_code, response.json()["status"]) == (
        status,
        "Unhealthy" if truthful else "Healthy",
    )


def test_without_a_broker_nothing_is_healthy_or_ready(door: Door) -> None:
    async def away() -> None:
        raise errors.BrokerUnreachable("away")

    door.client.models = away
    assert door.get("/ping").status_code == 500
    assert door.get("/ready").status_code == 503


def test_readiness_names_the_models_that_do_not_serve(door: Door) -> None:
    assert (door.get("/ready").status_code, door.get("/ready").json()) == (200, {"ready": True})
    door.client.versions[0]["ready"] = 0
    response = door.get("/ready")
    assert (response.status_code, response.json()) == (503, {"ready": False, "not_ready": ["m/1.0"]})


def test_a_model_that_the_start_could_not_register_is_missing_until_somebody_registers_it(
    tmp_path: Path,
) -> None:
    why = {"x": "Model not found at: x.mar", "m": "Model not found at: m.mar"}
    door = Door(tmp_path, not_started=why, headway_truthful_ping=True)
    response = door.get("/ready")
    assert (response.status_code, response.json()["not_ready"]) == (503, ["x: Model not found at: x.mar"])
    assert door.get("/ping").status_code == 500


# ---- descriptions ----


def test_options_describe_the_server_and_a_model_that_is_there(door: Door) -> None:
    assert door.ask("OPTIONS", "/").json()["info"]["title"] == "TorchServe APIs"
    assert door.post("/api-description").content == door.ask("OPTIONS", "/").content
    for path in ("/predictions/m", "/explanations/m/1.0", "/v2/models/m/infer", "/invocations?model_name=m"):
        assert door.ask("OPTIONS", path).json()["info"]["title"] == "RESTful API for: m"
    assert door.ask("OPTIONS", "/predictions/n").json()["message"] == "Model not found: n"
    text = "Model version: 9 does not exist for model: m"
    assert door.ask("OPTIONS", "/predictions/m/9").json()["message"] == text
    assert not door.client.calls


def test_the_open_inference_protocol_is_spoken_where_it_is_enabled(tmp_path: Path) -> None:
    door = Door(tmp_path, ts_open_inference_protocol=True)
    server = {"name": "Torchserve", "version": "0.12.0", "extenstion": ["kserve", "kubeflow"]}
    assert door.get("/v2").json() == door.post("/v2/").json() == server
    assert door.get("/v2/health/live").json() == {"live": True}
    assert door.get("/v2/health/ready").json() == {"ready": True}
    for path in ("/v2/models/m/versions/1", "/v2/models/m/versions/1/ready"):
        response = door.get(path)
        assert response.status_code == 501
        assert response.json() == {"error": "Model versioning is not yet supported."}
    assert {door.get(f"/v2/models/m{rest}").status_code for rest in ("", "/ready")} == {404}
    assert told(door.post("/v2/models/m/infer", b"{}"))["parts"] == {"body": ["", "{}"]}
