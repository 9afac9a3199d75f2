"""Who may come in, and what everybody is told who may not or whose request fails.

Knows: which paths need which key, what an exception is over HTTP. Must not know: what routes do.

The key is asked for before there is a route: who has none does not learn which there are.
"""

from __future__ import annotations

from typing import Any

import falcon
import falcon.asgi

from headway.errors import HeadwayError, TooLarge
from headway_gateway import errors
from headway_gateway.doors import INFERENCE, MANAGEMENT
from headway_gateway.inference import Target
from headway_gateway.management import TokenFirst
from headway_gateway.request import Request
from headway_gateway.torchserve.asking import refusal_of
from headway_gateway.torchserve.front import BARE
from headway_gateway.torchserve.inference import write
from headway_gateway.torchserve.paths import API, READY, route_of
from headway_gateway.torchserve.predicting import answer_to, unexpected
from headway_gateway.torchserve.refusal import Refusal, bad_request, no_method, no_resource
from headway_gateway.torchserve.tokens import Checks, require

_KINDS = {INFERENCE: "inference", MANAGEMENT: "management"}
_TOKEN, _METRICS = "/token", "/metrics"
_HEADWAYS = ("/state", "/admin/")


class Gate:
    """Falcon middleware. `door`: whose routes the app has."""

    def __init__(self, keys: Checks | None, door: str, bytes_max: int) -> None:
        self._keys = keys
        self._bytes_max = bytes_max
        self._kind = _KINDS.get(door, "")

    async def process_request(self, req: Request, resp: falcon.asgi.Response) -> None:
        """Headway's own routes of management need its own token, which the broker checks. Raises: Refusal;
        TooLarge, first of all, as TorchServe does."""
        if (req.content_length or 0) > self._bytes_max:
            raise TooLarge(f"a body of {req.content_length} bytes is over the limit of {self._bytes_max}")
        if self._kind == "management" and takes_own_token(req.path):
            await TokenFirst().process_request(req, resp)
        elif self._kind and not self._is_open(req.path):
            require(self._keys, self._kind, req.get_header("Authorization"))

    def _is_open(self, path: str) -> bool:
        """`/token` asks for another key, where it is."""
        asks_itself = path == _TOKEN and self._kind == "management"
        return asks_itself or path == _METRICS or route_of(path).kind in (API, READY)


def takes_own_token(path: str) -> bool:
    return path.startswith(_HEADWAYS)


def add_error_handlers(app: falcon.asgi.App[Any, Any]) -> None:
    """Headway's own routes keep Headway's own answers."""

    async def on_exception(req: Request, resp: Any, error: Exception, params: Any) -> None:
        if isinstance(error, TooLarge):  # before anything has been read of it
            req.scope[BARE] = True
            resp.status, resp.data = 413, b""
            return
        if takes_own_token(req.path):
            facts = {"method": req.method, "path": req.path}
            write(req, resp, errors.answer_to(error, MANAGEMENT, facts))
            return
        write(req, resp, answer_to(refusal_to(error, req)))

    async def on_http_error(req: Request, resp: Any, error: falcon.HTTPError, params: Any) -> None:
        write(req, resp, answer_to(_of_http(error)))

    app.add_error_handler(falcon.HTTPError, on_http_error)
    app.add_error_handler(Exception, on_exception)


def refusal_to(error: Exception, req: Request) -> Refusal:
    if isinstance(error, Refusal):
        return error
    if isinstance(error, HeadwayError):
        return refusal_of(error, Target("", ""))
    return unexpected(error, {"method": req.method, "path": req.path})


def _of_http(error: falcon.HTTPError) -> Refusal:
    if error.status_code == 404:
        return no_resource()
    if error.status_code == 405:
        return no_method()
    refusal = bad_request(error.description or error.title or "")
    return Refusal(error.status_code, refusal.type, refusal.message)
