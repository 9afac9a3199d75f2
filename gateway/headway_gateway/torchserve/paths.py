"""Which inference route a path names.

Knows: the forms that TorchServe, KServe and SageMaker clients write. Must not know: methods, what a route
does.

TorchServe looks at the parts of a path, mostly at the first; so do we.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

from headway_gateway.inference import Target

API, PING, READY, PREDICT, INVOCATIONS, OTHER = "api", "ping", "ready", "predict", "invocations", "other"
_VERBS = {"predict": False, "infer": False, "explain": True}
_PLAIN = re.compile(rb"/predictions/([A-Za-z0-9_.\-]+)(?:/([A-Za-z0-9_.+\-]+))?")


class Route(NamedTuple):
    """`takes_query`: the query's fields are inputs. `url_path`, `explain`: None where handlers hear nothing
    of it."""

    kind: str
    target: Target = Target("", "")
    url_path: str | None = None
    explain: bool | None = None
    takes_query: bool = False


def route_of(path: str) -> Route:
    """`path` without escapes."""
    parts = path.split("/")[1:]
    while parts and not parts[-1]:
        parts.pop()
    if not parts or parts == ["api-description"]:
        return Route(API)
    first = parts[0]
    return _FIRST[first](parts) if first in _FIRST else _legacy(parts)


def is_inference(path: str) -> bool:
    """Whether it is one of this interface's own; what describes the interface is of every address."""
    return route_of(path).kind not in (API, OTHER) or path.startswith(("/v2", "/wfpredict/"))


@lru_cache(1024)
def plain_route(url: bytes) -> tuple[int, Target] | None:
    """Where a URL may take the short way: the place of its dialect (there is one), and the model."""
    found = _PLAIN.fullmatch(url)
    if found is None:
        return None
    return 0, Target(found[1].decode(), (found[2] or b"").decode())


def _ping(parts: list[str]) -> Route:
    return Route(PING)


def _ready(parts: list[str]) -> Route:
    return Route(READY) if len(parts) == 1 else _legacy(parts)


def _predictions(parts: list[str]) -> Route:
    if len(parts) < 2:
        return Route(OTHER)
    version = parts[2] if len(parts) > 2 else ""
    return Route(PREDICT, Target(parts[1], version), "/".join(parts[3:]), parts[0] == "explanations")


def _invocations(parts: list[str]) -> Route:
    return Route(INVOCATIONS, takes_query=True)


def _models(parts: list[str]) -> Route:
    """SageMaker's."""
    if len(parts) == 3 and parts[2] == "invoke":
        return Route(PREDICT, Target(parts[1], ""), takes_query=True)
    return _legacy(parts)


def _v1(parts: list[str]) -> Route:
    if len(parts) == 3 and parts[1] == "models":
        model, _, verb = parts[2].rpartition(":")
        if model and verb in ("predict", "explain"):
            return Route(PREDICT, Target(model, ""), explain=_VERBS[verb])
    return _legacy(parts)


def _v2(parts: list[str]) -> Route:
    if len(parts) == 4 and parts[1] == "models" and parts[3] in ("infer", "explain"):
        return Route(PREDICT, Target(parts[2], ""), explain=_VERBS[parts[3]])
    return _legacy(parts)


def _legacy(parts: list[str]) -> Route:
    if len(parts) in (2, 3) and parts[-1] == "predict":
        return Route(PREDICT, Target(parts[0], parts[1] if len(parts) == 3 else ""), takes_query=True)
    return Route(OTHER)


_FIRST: dict[str, Callable[[list[str]], Route]] = {
    "ping": _ping,
    "ready": _ready,
    "predictions": _predictions,
    "explanations": _predictions,
    "invocations": _invocations,
    "models": _models,
    "v1": _v1,
    "v2": _v2,
}
