"""headway_gateway.errors: statuses, bodies and headers of both dialects."""

from __future__ import annotations

import json
import logging

import pytest

from headway import errors as e
from headway_gateway.errors import TABLE, dialect_of, retry_after, row_of

STATUSES = [
    (e.InvalidInput, 400, "BadRequestException"),
    (e.Unauthorized, 401, "UnauthorizedException"),
    (e.UnknownModel, 404, "ModelNotFoundException"),
    (e.NoSequence, 409, "ConflictStatusException"),
    (e.TooLarge, 413, "RequestTooLargeException"),
    (e.Cancelled, 499, "CancelledException"),
    (e.QueueFull, 503, "ServiceUnavailableException"),
    (e.NotReady, 503, "ServiceUnavailableException"),
    (e.BrokerUnreachable, 503, "ServiceUnavailableException"),
    (e.WorkerLost, 503, "ServiceUnavailableException"),
    (e.DeadlineExceeded, 504, "RequestTimeoutException"),
    (e.ModelError, 500, "InternalServerException"),
    (e.InternalError, 500, "InternalServerException"),
]


@pytest.mark.parametrize(("error", "status", "type"), STATUSES)
def test_each_error_has_its_status_and_its_body_in_both_dialects(failing, error, status, type):
    site = failing(error("because"))
    plain = site.post("/predictions/bad", content=b"x")
    assert plain.status_code == status
    assert plain.json() == {"code": status, "type": type, "message": "because"}
    assert plain.headers["content-type"] == "application/json"
    v2 = site.infer("bad", [{"name": "x", "shape": [1], "datatype": "INT8", "data": [1]}])
    assert (v2.status_code, v2.json()) == (status, {"error": "because"})


def test_every_error_that_can_come_over_the_wire_is_in_the_table():
    assert set(e.ERROR_OF_CODE.values()) <= set(TABLE)


def test_a_class_below_one_of_the_table_has_its_row():
    class Special(e.InvalidInput):
        pass

    assert row_of(Special()).status == 400
    assert row_of(e.RemoteProtocolError()) is None


@pytest.mark.parametrize(
    ("said", "seconds"), [(None, "1"), (0.0, "1"), (0.2, "1"), (1.0, "1"), (1.1, "2"), (30, "30")]
)
def test_retry_after_is_whole_seconds_rounded_up_and_at_least_one(said, seconds):
    assert retry_after(e.QueueFull("", said)) == seconds


@pytest.mark.parametrize("error", [e.QueueFull("full", 2.5), e.NotReady("no"), e.BrokerUnreachable("no")])
def test_what_may_pass_says_when_to_come_again(failing, error):
    expected = "3" if isinstance(error, e.QueueFull) else "1"
    assert failing(error).post("/predictions/bad").headers["retry-after"] == expected


@pytest.mark.parametrize("error", [e.WorkerLost("dead"), e.DeadlineExceeded("late"), e.ModelError("no")])
def test_what_may_not_pass_does_not_invite_again(failing, error):
    assert "retry-after" not in failing(error).post("/predictions/bad").headers


@pytest.mark.parametrize("error", [RuntimeError("secret 42"), e.RemoteProtocolError("secret 42")])
def test_an_unexpected_error_is_a_500_whose_traceback_is_only_in_the_log(failing, caplog, error):
    site = failing(error)
    with caplog.at_level(logging.ERROR):
        plain = site.post("/predictions/bad", content=b"x")
    assert plain.status_code == 500
    assert plain.json() == {"code": 500, "type": "InternalServerException", "message": "internal error"}
    assert "secret" not in plain.text and "Traceback" not in plain.text
    assert caplog.records[0].exc_info[1] is error
    v2 = site.infer("bad", [{"name": "x", "shape": [1], "datatype": "INT8", "data": [1]}])
    assert (v2.status_code, v2.json()) == (500, {"error": "internal error"})


def test_an_unknown_path_is_404_in_its_dialect(site):
    assert site.get("/v2/").json().keys() == {"error"}
    assert site.get("/v2/nothing").json().keys() == {"error"}
    assert site.get("/nothing").json() == {
        "code": 404,
        "type": "ResourceNotFoundException",
        "message": "Requested resource is not found, please refer to API document.",
    }
    assert site.get("/v2/").status_code == site.get("/nothing").status_code == 404


def test_a_wrong_method_is_405_in_its_dialect(site):
    v2, plain = site.get("/v2/models/double/infer"), site.call("DELETE", "/predictions/double")
    assert (v2.status_code, v2.json().keys()) == (405, {"error"})
    assert v2.headers["allow"] == "POST, OPTIONS"
    assert (plain.status_code, plain.json()["type"]) == (405, "MethodNotAllowedException")


def test_plain_bodies_are_indented_and_end_with_a_newline(site):
    text = site.get("/nothing").text
    assert text.startswith('{\n  "code": 404,') and text.endswith("}\n")
    assert json.loads(text)


def test_only_paths_under_v2_speak_the_open_inference_protocol():
    assert [dialect_of(p) for p in ("/v2", "/v2/x", "/v2x", "/ping")] == ["oip", "oip"] + ["predictions"] * 2
