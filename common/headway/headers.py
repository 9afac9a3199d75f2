"""A client's headers among a request's options: a map, or the bytes that such a map is packed to.

Knows: the option, both of its forms. Must not know: HTTP, what headers mean, who asks for them.

A door that gets the same head again and again packs it once; nobody on the way looks inside.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import msgpack

from headway.errors import InvalidInput

HEADERS = "headers"  # see PROTOCOL.md, section 4
CACHED_BYTES_MAX = 4096  # so that nobody can fill memory with headers


def packed(headers: Mapping[str, str]) -> bytes:
    """The map as bytes that say the same."""
    found: bytes = msgpack.packb(headers, unicode_errors="replace")  # as the wire does with lone surrogates
    return found


def with_headers(options: dict[str, Any]) -> dict[str, Any]:
    """The options with the headers as a map, which is this request's own. Raises: InvalidInput."""
    headers = options.get(HEADERS)
    if type(headers) is not bytes:
        return options
    unpack = _unpacked if len(headers) <= CACHED_BYTES_MAX else _unpacked.__wrapped__
    return {**options, HEADERS: unpack(headers).copy()}


@lru_cache(256)  # PERF: a connection's head stays the same; 3.5 us to unpack and look at becomes 0.2
def _unpacked(headers: bytes) -> dict[str, str]:
    try:
        found = msgpack.unpackb(headers)
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException) as error:
        raise InvalidInput(f"headers: not msgpack: {error}") from None
    if not isinstance(found, dict) or not all(type(text) is str for pair in found.items() for text in pair):
        raise InvalidInput("headers: not a map from strings to strings")
    return found
