"""What a management request asks for: a query string, or a JSON body, read as TorchServe's frontend reads
them.

Pure. Knows: names, types, defaults, what is made of junk: a number that is none is as good as none at all,
and what is not "true" is false. Must not know: HTTP, what is done with it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

from headway.torchserve.registering import Wish
from headway_gateway.torchserve.refusal import Refusal, bad_request

_WHOLE = re.compile(r"[+-]?[0-9]{1,10}")
INT_MAX = (1 << 31) - 1


class Registering(NamedTuple):
    """A wish to register, and how."""

    wish: Wish
    synchronous: bool
    s3_sse_kms: bool


class Query:
    """A query string. Of a name that is there twice, the first counts."""

    def __init__(self, text: str) -> None:
        self._values: dict[str, str] = {}
        for name, value in parse_qsl(text, keep_blank_values=True):
            self._values.setdefault(name, value)

    def text(self, name: str) -> str | None:
        return self._values.get(name)

    def number(self, name: str, default: int) -> int:
        found = _whole(self._values.get(name))
        return default if found is None else found

    def maybe_number(self, name: str) -> int | None:
        return _whole(self._values.get(name))

    def flag(self, name: str, default: bool = False) -> bool:
        said = self._values.get(name)
        return default if said is None else said.lower() == "true"


def registering_by(query: Query) -> Registering:
    """Raises: Refusal."""
    return _registering(
        {
            **{name: query.text(name) for name in _TEXTS},
            **{name: query.maybe_number(name) for name in _NUMBERS},
            "synchronous": query.flag("synchronous", True),
            "s3_sse_kms": query.flag("s3_sse_kms"),
        }
    )


def registering_in(body: bytes) -> Registering:
    """A JSON body. Raises: Refusal."""
    if not body.strip():
        raise _no_body()
    try:
        found = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise _syntax(str(error)) from None
    if found is None:
        raise _no_body()
    if not isinstance(found, dict):
        raise _syntax(_NO_OBJECT[isinstance(found, list)])
    return _registering(
        {
            **{name: _json_text(found, name) for name in _TEXTS},
            **{name: _json_number(found, name) for name in _NUMBERS},
            "synchronous": _json_flag(found, "synchronous", True),
            "s3_sse_kms": _json_flag(found, "s3_sse_kms", False),
        }
    )


_TEXTS = ("url", "model_name", "handler", "runtime")
_NUMBERS = (
    "batch_size",
    "max_batch_delay",
    "initial_workers",
    "response_timeout",
    "startup_timeout",
)


def _registering(said: Mapping[str, Any]) -> Registering:
    if said["url"] is None:
        raise bad_request("Parameter url is required.")
    wish = Wish(
        url=said["url"],
        model_name=said["model_name"] or "",
        handler=said["handler"] or "",
        runtime=said["runtime"] or "",
        batch_size=_above(said["batch_size"], 0),
        max_batch_delay=_above(said["max_batch_delay"], -1),
        initial_workers=said["initial_workers"],
        response_timeout=_above(said["response_timeout"], 0),
        startup_timeout=_above(said["startup_timeout"], 0),
    )
    return Registering(wish, said["synchronous"], said["s3_sse_kms"])


def _above(number: int | None, least: int) -> int | None:
    """None, which is the default, for a number that makes no sense."""
    return number if number is not None and number > least else None


def _whole(text: str | None) -> int | None:
    if text is None or not _WHOLE.fullmatch(text):
        return None
    return number if -INT_MAX - 1 <= (number := int(text)) <= INT_MAX else None


def _json_text(found: Mapping[str, Any], name: str) -> str | None:
    value = found.get(name)
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, dict | list):
        raise _syntax(f"Expected a string but was {type(value).__name__} at path $.{name}")
    return json.dumps(value)


def _json_number(found: Mapping[str, Any], name: str) -> int | None:
    value = found.get(name)
    if value is None:
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    whole = None if isinstance(value, bool) else _whole(str(value))
    if whole is None:
        said = (
            f'For input string: "{value}"' if isinstance(value, str) else f"Expected an int but was {value!r}"
        )
        raise _syntax(f"java.lang.NumberFormatException: {said}")
    return whole


def _json_flag(found: Mapping[str, Any], name: str, default: bool) -> bool:
    value = found.get(name)
    if isinstance(value, str):
        return value.lower() == "true"
    if value is None or isinstance(value, bool):
        return default if value is None else value
    raise _syntax(f"Expected a boolean but was {value!r} at path $.{name}")


def _no_body() -> Refusal:
    return Refusal(500, "NullPointerException", _NULL)


# As Java says them.
_STATE = "java.lang.IllegalStateException: Expected BEGIN_OBJECT but was"
_NO_OBJECT = (f"{_STATE} STRING at line 1 column 1 path $", f"{_STATE} BEGIN_ARRAY at line 1 column 2 path $")
_NULL = (
    'Cannot invoke "org.pytorch.serve.http.messages.RegisterModelRequest.getModelUrl()"'
    ' because "registerModelRequest" is null'
)


def _syntax(message: str) -> Refusal:
    return Refusal(500, "JsonSyntaxException", message)
