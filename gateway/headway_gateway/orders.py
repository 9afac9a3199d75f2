"""What may stand in the body of an order: for each verb its keys and their types.

Knows: the bodies of the management routes. Must not know: routes, the broker. An unknown key and a wrong type
are refused by name: `{"mni": 2}` that is silently ignored would scale nothing.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

from headway.errors import InvalidInput
from headway.messages import NAME_CHARS_MAX, TIMEOUT_MS_MAX
from headway.tensors import Buffer

Check = Callable[[Any], bool]
COPIES_MAX = 65536


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= NAME_CHARS_MAX and value.isprintable()


def _is_long_text(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= 4096 and value.isprintable()


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value <= COPIES_MAX


def _is_timeout(value: Any) -> bool:
    return type(value) is int and 1 <= value <= TIMEOUT_MS_MAX


def _are_weights(value: Any) -> bool:
    if not isinstance(value, dict) or len(value) > 64:
        return False
    sane = all(type(w) in (int, float) and math.isfinite(w) and w >= 0 for w in value.values())
    return sane and all(map(_is_text, value))


CHECKS: dict[str, tuple[Check, str]] = {
    "path": (_is_long_text, "a string, NAME or NAME/VERSION in the model store"),
    "url": (_is_long_text, "a string, a URL"),
    "name": (_is_text, f"a string of at most {NAME_CHARS_MAX} characters"),
    "version": (_is_text, f"a string of at most {NAME_CHARS_MAX} characters"),
    "min": (_is_count, f"a whole number from 0 to {COPIES_MAX}"),
    "max": (_is_count, f"a whole number from 0 to {COPIES_MAX}"),
    "weights": (_are_weights, "an object with numbers of at least 0 by version, at most 64"),
    "workers": (lambda value: value is None or _is_count(value), f"null or from 0 to {COPIES_MAX}"),
    "wait": (lambda value: isinstance(value, bool), "true or false"),
    "timeout_ms": (_is_timeout, f"a whole number from 1 to {TIMEOUT_MS_MAX}"),
}
WAITING = ("wait", "timeout_ms")


def order_of(body: Buffer, needed: tuple[str, ...] = (), allowed: tuple[str, ...] = ()) -> dict[str, Any]:
    """The body as arguments, each checked. An empty body is an empty object. Raises: InvalidInput."""
    order = _object(bytes(body))
    keys = (*needed, *allowed)
    for key, value in order.items():
        if key not in keys:
            raise InvalidInput(f"{key[:100]!r} is not known here; known are {', '.join(keys) or 'none'}")
        is_good, what = CHECKS[key]
        if not is_good(value):
            raise InvalidInput(f"{key} is {what}, not {json.dumps(value)[:100]}")
    for key in needed:
        if key not in order:
            raise InvalidInput(f"{key} is missing: {CHECKS[key][1]}")
    if "timeout_ms" in order and not order.get("wait"):
        raise InvalidInput("timeout_ms goes with wait")
    return order


def _object(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body, object_pairs_hook=_unique) if body.strip() else {}
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"the body is not JSON: {str(error)[:200]}") from None
    if not isinstance(found, dict):
        raise InvalidInput(f"the body is not an object but {type(found).__name__}")
    return found


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise InvalidInput("the body has a key twice")
    return found
