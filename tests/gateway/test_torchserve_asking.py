"""headway_gateway.torchserve.asking: a request for the broker, and what its reply or error is to a client."""

from __future__ import annotations

import numpy as np
import pytest

from headway import errors
from headway.body import Body
from headway.messages import OK, Reply
from headway.tensors import unpack
from headway.torchserve.registration import Registration
from headway_gateway.inference import Answer, Target
from headway_gateway.torchserve.asking import EXPIRED, answer_of, ask, refusal_of, timeout_s
from headway_gateway.torchserve.refusal import Refusal
from tests.gateway.torchserve_door import headers_of

M, M2 = Target("m", ""), Target("m", "2")
INTERNAL = "InternalServerException"
NO_WORKER = "has no worker to serve inference request. Please use scale workers API to add workers."


class One:
    """A registry with one version of one model."""

    def of(self, model: str, version: str = "") -> Registration | None:
        return (
            Registration("m", "1", "m.mar", "/m.mar") if (model, version) in {("m", ""), ("m", "1")} else None
        )


def with_meta(error: errors.HeadwayError, **meta: object) -> errors.HeadwayError:
    error.meta = meta
    return error


def test_a_request_says_what_protocol_md_has_for_handlers_and_nothing_that_is_not_so() -> None:
    asked = ask(M2, Body(b"ab", "text/plain"), {"X-A": "1"}, request_id="i")
    assert asked[:3] == ("m", "2", 0)
    assert {**asked.options, "headers": headers_of(asked)} == {
        "form": "body", "types": {"body": "text/plain"}, "headers": {"X-A": "1"}, "request_id": "i"
    }  # fmt: skip
    assert bytes(unpack(asked.tensors)["body"]) == b"ab"
    more = ask(M, Body(b""), {}, request_id="i", explain=True, url_path="a/b", stream=True).options
    assert (more["explain"], more["url_path"], more["stream"]) == ("true", "a/b", "true")


def test_a_forms_parts_travel_under_their_names() -> None:
    parts = {"a": Body(b"1", ""), "b": Body(b"2", "application/json")}
    asked = ask(M, Body(b"", "", parts), {}, request_id="i")
    assert asked.options["types"] == {"a": "", "b": "application/json"}
    assert {name: bytes(np.asarray(data)) for name, data in unpack(asked.tensors).items()} == {
        "a": b"1",
        "b": b"2",
    }


@pytest.mark.parametrize(
    ("meta", "answer"),
    [
        ({}, Answer(200, "", b"x", (), "")),
        ({"content_type": "text/plain"}, Answer(200, "", b"x", (), "")),
        ({"status": 418, "phrase": "Tea"}, Answer(418, "", b"x", (), "Tea")),
        ({"status": 413}, Answer(413, "", b"x", (), "")),
        ({"headers": {"Content-Type": "a/b", "X": "y"}}, Answer(200, "a/b", b"x", (("X", "y"),), "")),
        ({"headers": {"X\r\n": "y", "Z": "\r\n", "": "", "Connection": ""}}, Answer(200, "", b"x", (), "")),
        ({"phrase": "a\r\nb", "status": "200", "headers": 3}, Answer(200, "", b"x", (), "")),
        ({"status": 100}, Answer(200, "", b"x", (), "")),
        ({"status": True}, Answer(200, "", b"x", (), "")),
    ],
)  # fmt: skip
def test_an_answer_is_what_the_handler_set_as_far_as_it_can_be_sent(meta, answer) -> None:
    assert answer_of(Reply(0, OK, b"x", meta)) == answer


def test_a_reply_over_the_limit_is_a_worker_that_died() -> None:
    assert answer_of(Reply(0, OK, b"xy", {}), 2).data == b"xy"
    with pytest.raises(Refusal) as caught:
        answer_of(Reply(0, OK, b"xyz", {}), 2)
    assert (caught.value.status, caught.value.message) == (500, "Worker died.")


@pytest.mark.parametrize(
    ("error", "status", "type", "message"),
    [
        (errors.UnknownModel("?"), 404, "ModelNotFoundException", "Model not found: m"),
        (errors.QueueFull("9 wait"), 503, "ServiceUnavailableException",
         'Model "m" has no room for one more inference request: 9 wait'),
        (errors.NotReady("asleep"), 503, "ServiceUnavailableException", f'Model "m" {NO_WORKER}'),
        (errors.BrokerUnreachable("away"), 503, "ServiceUnavailableException",
         'Model "m" cannot be reached: away'),
        (errors.NoSequence("gone"), 503, "ServiceUnavailableException",
         'Model "m" cannot serve the inference request: gone'),
        (errors.WorkerLost("two"), 500, "InternalServerException", "Worker died."),
        (errors.DeadlineExceeded("late"), 408, "RequestTimeoutException", EXPIRED),
        (errors.InvalidInput("odd"), 400, "BadRequestException", "odd"),
        (errors.TooLarge("9"), 413, "RequestTooLargeException", "9"),
        (errors.ModelError("trace"), 503, "InternalServerException", "Prediction failed"),
        (with_meta(errors.ModelError("trace"), status=404, message="own"), 404, INTERNAL, "own"),
        (with_meta(errors.ModelError("trace"), status=413, message="own"), 507, INTERNAL, "own"),
        (with_meta(errors.InvalidInput("x"), status=503, message="own"), 503, INTERNAL, "own"),
        (errors.InternalError("secret"), 500, "InternalServerException", "internal error"),
    ],
)  # fmt: skip
def test_every_error_is_told_in_torchserves_words(error, status, type, message) -> None:
    refusal = refusal_of(error, M, One())
    assert (refusal.status, refusal.type, refusal.message) == (status, type, message)


def test_a_missing_version_is_told_from_a_missing_model() -> None:
    text = "Model version: 2 does not exist for model: m"
    assert refusal_of(errors.UnknownModel(), M2, One()).message == text
    assert refusal_of(errors.UnknownModel(), Target("n", "2"), One()).message == "Model not found: n"


def test_all_that_has_no_room_can_be_told_as_torchserve_does() -> None:
    told = {
        refusal_of(e, M2, One(), one_text=True).message
        for e in (errors.QueueFull("9"), errors.NotReady("no"))
    }
    (message,) = told
    assert message.startswith(f'Model "m" Version 2 {NO_WORKER} If this is a sequence inference,')
    assert message.endswith("or exceeds maxSequenceJobQueueSize")


def test_a_request_lives_as_long_as_its_model_says_else_as_good_as_for_ever() -> None:
    assert timeout_s(Registration("m", "1", "", "", client_timeout_ms=1500)) == 1.5
    assert timeout_s(Registration("m", "1", "", "")) == timeout_s(None) == 3600
