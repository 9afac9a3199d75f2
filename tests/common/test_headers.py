"""Headers among a request's options, as a map and packed."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway import headers
from headway.errors import InvalidInput
from headway.headers import CACHED_BYTES_MAX, packed, with_headers

TEXT = st.text(st.characters(exclude_categories=["Cs"]))


@given(st.dictionaries(TEXT, TEXT))
def test_packed_headers_say_what_the_map_says(said: dict[str, str]) -> None:
    assert with_headers({"form": "body", "headers": packed(said)}) == {"form": "body", "headers": said}


@pytest.mark.parametrize("options", [{}, {"form": "body"}, {"headers": {"a": "b"}}])
def test_options_without_packed_headers_stay_as_they_are(options: dict[str, Any]) -> None:
    assert with_headers(options) is options


@pytest.mark.parametrize("size", [1, CACHED_BYTES_MAX])
def test_what_one_request_does_to_its_headers_no_other_sees(size: int) -> None:
    options = {"headers": packed({"a": "b" * size})}
    with_headers(options)["headers"]["a"] = "changed"
    assert with_headers(options)["headers"] == {"a": "b" * size}
    assert isinstance(options["headers"], bytes)


@pytest.mark.parametrize(
    ("found", "wrong"),
    [
        (b"", "not msgpack"),
        (b"\xc1", "not msgpack"),
        (b"\x81\xa1", "not msgpack"),
        (b"\x81\xa1\xff\xa1b", "not msgpack"),  # a name that is not UTF-8
        (b"\x91" * 2000, "not msgpack"),
        (packed({"a": "b"}) + b"c", "not msgpack"),
        (msgpack.packb({"a": 1}), "not a map from strings"),
        (msgpack.packb({"a": b"b"}), "not a map from strings"),
        (msgpack.packb({b"a": "b"}), "not a map from strings"),
        (msgpack.packb([["a", "b"]]), "not a map from strings"),
        (msgpack.packb(None), "not a map from strings"),
    ],
)
def test_bytes_that_are_no_headers_are_refused(found: bytes, wrong: str) -> None:
    for _ in range(2):
        with pytest.raises(InvalidInput, match=f"^headers: {wrong}"):
            with_headers({"headers": found})


def test_large_heads_are_not_kept() -> None:
    before = headers._unpacked.cache_info().currsize
    with_headers({"headers": packed({"a": "b" * CACHED_BYTES_MAX})})
    assert headers._unpacked.cache_info().currsize == before
