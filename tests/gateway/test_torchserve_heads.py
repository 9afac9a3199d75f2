"""headway_gateway.torchserve.heads and statuses: what every response begins with."""

from __future__ import annotations

import uuid

import pytest

from headway.torchserve.properties import Properties
from headway_gateway.inference import Answer
from headway_gateway.torchserve.heads import common_of, own_pairs, request_id
from headway_gateway.torchserve.statuses import phrase_of, status_line


def test_a_request_s_id_is_a_random_uuid() -> None:
    ids = {uuid.UUID(request_id()) for _ in range(200)}
    assert len(ids) == 200
    assert {(id.version, id.variant) for id in ids} == {(4, uuid.RFC_4122)}


def test_an_answer_without_an_id_gets_one_and_a_handler_s_own_counts_for_nothing() -> None:
    handler = ("X-Request-Id", "mine")
    assert own_pairs(Answer(200, "", b"", (handler, ("x-request-id", "i")))) == [(b"x-request-id", b"i")]
    ((_, made),) = own_pairs(Answer(200, "", b""))
    assert uuid.UUID(made.decode())


def test_cors_is_said_where_it_is_set_and_only_what_is_set() -> None:
    assert [name for name, _ in common_of(Properties()).pairs] == [b"pragma", b"cache-control", b"expires"]
    common = common_of(Properties(cors_allowed_origin="*", cors_allowed_headers="X-A"))
    assert common.lines.startswith(
        b"access-control-allow-origin: *\r\naccess-control-allow-headers: X-A\r\npragma:"
    )


@pytest.mark.parametrize(
    ("status", "phrase"),
    [
        (200, "OK"),
        (413, "Request Entity Too Large"),
        (507, "Insufficient Storage"),
        (418, "Client Error (418)"),
        (513, "Server Error (513)"),
        (299, "Success (299)"),
        (799, "Unknown Status (799)"),
    ],
)
def test_a_status_has_the_phrase_that_torchserve_s_frontend_has(status: int, phrase: str) -> None:
    assert phrase_of(status) == phrase


def test_a_phrase_may_be_empty() -> None:
    assert status_line(200, "") == b"HTTP/1.1 200 \r\n"
    assert status_line(200) == b"HTTP/1.1 200 OK\r\n"
