from __future__ import annotations

import pytest
from google.rpc.error_details_pb2 import ErrorInfo
from grpc import StatusCode

from headway_gateway.torchserve.grpc.status import class_of, code_of, details_of, message_of
from headway_gateway.torchserve.refusal import Refusal, no_model


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "INVALID_ARGUMENT"),
        (401, "UNAUTHENTICATED"),
        (403, "PERMISSION_DENIED"),
        (404, "NOT_FOUND"),
        (405, "FAILED_PRECONDITION"),
        (408, "FAILED_PRECONDITION"),
        (409, "ABORTED"),
        (413, "RESOURCE_EXHAUSTED"),
        (416, "OUT_OF_RANGE"),
        (418, "FAILED_PRECONDITION"),
        (429, "RESOURCE_EXHAUSTED"),
        (499, "CANCELLED"),
        (500, "INTERNAL"),
        (501, "UNIMPLEMENTED"),
        (503, "UNAVAILABLE"),
        (504, "DEADLINE_EXCEEDED"),
        (507, "INTERNAL"),
        (599, "INTERNAL"),
        (302, "UNKNOWN"),
        (777, "UNKNOWN"),
    ],
)
def test_a_status_of_http_becomes_one_of_grpcs(status: int, code: str) -> None:
    assert code_of(Refusal(status, "InternalServerException", "")) is StatusCode[code]


def test_a_time_that_is_over_is_a_deadline() -> None:
    assert code_of(Refusal(408, "RequestTimeoutException", "")) is StatusCode.DEADLINE_EXCEEDED


def test_details_are_the_message_and_the_class_with_its_package() -> None:
    assert details_of(no_model("m")) == (
        "Model not found: m\norg.pytorch.serve.archive.model.ModelNotFoundException"
    )
    assert class_of(Refusal(503, "AnyException", "")) == "org.pytorch.serve.http.AnyException"


def test_details_without_a_class_are_the_message_alone() -> None:
    assert details_of(Refusal(403, "", "no")) == "no"


def test_inside_a_stream_a_refusal_is_a_message() -> None:
    status, info = message_of(no_model("m")), ErrorInfo()
    assert (status.code, status.message) == (5, "Model not found: m")
    assert status.details[0].Unpack(info)
    assert info.reason == "org.pytorch.serve.archive.model.ModelNotFoundException"
