"""What the broker knows of its models, and the route that shows it: `GET /models`.

Knows: the fields of the broker's answer. Must not know: dialects.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar

import falcon.asgi

from headway.errors import BrokerUnreachable, UnknownModel
from headway_gateway.request import Request

T = TypeVar("T")
ANSWER_S = 2.0  # the broker answers questions at once; a probe must not hang when there is none


async def ask_broker(answer: Awaitable[T]) -> T:
    """The broker's answer to a question about itself. Raises: BrokerUnreachable, within ANSWER_S."""
    try:
        async with asyncio.timeout(ANSWER_S):
            return await answer
    except TimeoutError:
        raise BrokerUnreachable(f"no broker answered within {ANSWER_S} s") from None


class Models:
    """The route."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def add_routes(self, app: falcon.asgi.App[Any, Any]) -> None:
        app.add_route("/models", self)

    async def on_get(self, req: Request, resp: falcon.asgi.Response) -> None:
        resp.media = {"models": await ask_broker(self._client.models())}


def versions_of(models: list[dict[str, Any]], name: str, version: str = "") -> list[dict[str, Any]]:
    """The versions of a model, the default one first, or only the one asked for. Raises: UnknownModel."""
    of_model = [m for m in models if m["name"] == name]
    if not of_model:
        raise UnknownModel(f"there is no model {name!r}")
    found = [m for m in of_model if version in ("", m["version"])]
    if not found:
        raise UnknownModel(f"model {name!r} has no version {version!r}")
    return sorted(found, key=lambda m: not m.get("default"))


def is_ready(model: dict[str, Any]) -> bool:
    """Whether a copy of this version takes requests."""
    return bool(model["ready"])


def waiting(models: list[dict[str, Any]]) -> list[str]:
    """Those that should be ready and are not, as `name/version`."""
    return [f"{m['name']}/{m['version']}" for m in models if m["wanted"] and not is_ready(m)]
