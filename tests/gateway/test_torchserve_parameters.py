"""headway_gateway.torchserve.parameters: junk is as good as nothing in a query string, and an error in
JSON."""

from __future__ import annotations

import json
from typing import Any

import pytest

from headway.torchserve.registering import Wish
from headway_gateway.torchserve.parameters import Query, registering_by, registering_in
from headway_gateway.torchserve.refusal import Refusal

pytestmark = pytest.mark.pure


@pytest.mark.parametrize(
    ("text", "number"),
    [("n=5", 5), ("n=%2B5", 5), ("n=-3", -3), ("n=", 9), ("n=x", 9), ("n=1.5", 9), ("n= 5", 9), ("n=1_0", 9),
     ("n=2147483648", 9), ("n=-2147483648", -(1 << 31)), ("n=٣", 9), ("", 9), ("n=1&n=2", 1), ("m=1", 9)],
)  # fmt: skip
def test_a_number_that_is_none_is_the_default(text: str, number: int) -> None:
    assert Query(text).number("n", 9) == number


@pytest.mark.parametrize(("text", "flag"), [("f=true", True), ("f=TRUE", True), ("f=1", False), ("f", False)])
def test_what_is_not_true_is_false(text: str, flag: bool) -> None:
    assert Query(text).flag("f", not flag) is flag


def test_a_query_that_says_nothing_has_torchserves_defaults() -> None:
    assert registering_by(Query("url=m.mar")) == (Wish("m.mar"), True, False)


def test_a_query_says_everything() -> None:
    text = (
        "url=a%2Fb.mar&model_name=n&handler=h:f&runtime=python3&batch_size=4&max_batch_delay=0&initial_workers=2"
        "&synchronous=false&response_timeout=7&startup_timeout=8&s3_sse_kms=true&junk=1"
    )
    wish = Wish("a/b.mar", "n", "h:f", "python3", 4, 0, 2, response_timeout=7, startup_timeout=8)
    assert registering_by(Query(text)) == (wish, False, True)


def test_a_body_says_everything() -> None:
    said = {
        "url": "m.mar", "model_name": "n", "handler": "h", "runtime": "python", "batch_size": 4.0,
        "max_batch_delay": "5", "initial_workers": 2, "synchronous": False, "response_timeout": 7,
        "startup_timeout": 8, "s3_sse_kms": "TRUE", "junk": [],
    }  # fmt: skip
    wish = Wish("m.mar", "n", "h", "python", 4, 5, 2, response_timeout=7, startup_timeout=8)
    assert registering_in(json.dumps(said).encode()) == (wish, False, True)


@pytest.mark.parametrize(
    "text", ["batch_size=0", "batch_size=-1", "max_batch_delay=-1", "response_timeout=0"]
)
def test_numbers_that_make_no_sense_are_the_default(text: str) -> None:
    assert registering_by(Query("url=m.mar&" + text)).wish == Wish("m.mar")


def test_a_url_must_be_there() -> None:
    for work in (
        lambda: registering_by(Query("model_name=x")),
        lambda: registering_in(b'{"model_name": "x"}'),
    ):
        with pytest.raises(Refusal) as caught:
            work()
        assert (caught.value.status, caught.value.message) == (400, "Parameter url is required.")
    assert registering_by(Query("url=")).wish.url == ""


@pytest.mark.parametrize(
    "body",
    [b"{", b"[]", b'{"url": {}}', b'{"url": "m", "batch_size": "x"}', b"\xff", b"[" * 100_000,
     b'{"url": "m", "batch_size": 1.5}', b'{"url": "m", "synchronous": 1}',
     b'{"url": "m", "batch_size": true}'],
)  # fmt: skip
def test_json_that_is_none_or_has_other_types_is_a_syntax_error(body: Any) -> None:
    with pytest.raises(Refusal) as caught:
        registering_in(body)
    assert (caught.value.status, caught.value.type) == (500, "JsonSyntaxException")


@pytest.mark.parametrize("body", [b"", b" ", b"null"])
def test_a_body_without_a_request_is_what_it_is_in_java(body: bytes) -> None:
    with pytest.raises(Refusal) as caught:
        registering_in(body)
    assert (caught.value.status, caught.value.type) == (500, "NullPointerException")
