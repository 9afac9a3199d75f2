"""What the access log says of a request, and the requests that pass Falcon.

Knows: ASGI's scope. Must not know: log files, metrics. (Imported by the processes' parent.)
"""

from __future__ import annotations

from time import perf_counter
from typing import Any

import falcon.asgi

from headway_gateway.lane import Access
from headway_gateway.request import Request


class Accesses:
    """Falcon middleware: every request that comes through Falcon, in the access log and the counters."""

    def __init__(self, access: Access) -> None:
        self._access = access

    async def process_response(
        self, req: Request, resp: falcon.asgi.Response, resource: object, req_succeeded: bool
    ) -> None:
        took_s = perf_counter() - req.started
        self._access(peer_of(req.scope), line_of(req.scope), resp.status_code, took_s)


def peer_of(scope: dict[str, Any]) -> str:
    """ADDRESS:PORT of the client; a socket file's has none."""
    host, port = (scope.get("client") or ("", 0))[:2]
    return f"{host}:{port}" if host else "-"


def line_of(scope: dict[str, Any]) -> str:
    """The request's first line, as it came."""
    path = (scope.get("raw_path") or scope["path"].encode()).decode("latin1")
    query = scope["query_string"].decode("latin1")
    return f"{scope['method']} {path}{'?' if query else ''}{query} HTTP/{scope.get('http_version', '1.1')}"
