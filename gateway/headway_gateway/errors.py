"""Errors as HTTP: one table from an error's class to a status, and one body per dialect.

Under `/v2` (Open Inference Protocol) a body is `{"error": "..."}`, everywhere else
`{"code": 404, "type": "ModelNotFoundException", "message": "..."}`, whose `type` is the name TorchServe
has for it where it has one: clients match on it. On the management address the body has `error` besides, the
error's own name, of which several share a status (`headway.manage` raises it again).

Knows: statuses, both bodies, `Retry-After`. Must not know: which route failed, or why.
What is not in the table, and whatever is no `HeadwayError`, answers 500 "internal error"; its traceback
goes to the log and nowhere else.
"""

from __future__ import annotations

import json
import logging
import math
from typing import Any, NamedTuple

import falcon
import falcon.asgi

from headway.errors import (
    BrokerUnreachable,
    Cancelled,
    DeadlineExceeded,
    HeadwayError,
    InternalError,
    InvalidInput,
    ModelError,
    NoSequence,
    NotReady,
    QueueFull,
    TooLarge,
    Unauthorized,
    UnknownModel,
    WorkerLost,
)
from headway_gateway.doors import MANAGEMENT
from headway_gateway.inference import JSON, Answer
from headway_gateway.request import write

_log = logging.getLogger("headway.gateway")
CLIENT_GONE = 499  # nobody reads it; it is for the counters


class Row(NamedTuple):
    """How a class of errors looks outside. `retry`: say when to come again."""

    status: int
    type: str
    retry: bool = False


# WorkerLost says nothing of coming again: the request took a worker down, or two.
TABLE: dict[type[HeadwayError], Row] = {
    InvalidInput: Row(400, "BadRequestException"),
    Unauthorized: Row(401, "UnauthorizedException"),
    UnknownModel: Row(404, "ModelNotFoundException"),
    NoSequence: Row(409, "ConflictStatusException"),
    TooLarge: Row(413, "RequestTooLargeException"),
    Cancelled: Row(CLIENT_GONE, "CancelledException"),
    QueueFull: Row(503, "ServiceUnavailableException", retry=True),
    NotReady: Row(503, "ServiceUnavailableException", retry=True),
    BrokerUnreachable: Row(503, "ServiceUnavailableException", retry=True),
    WorkerLost: Row(503, "ServiceUnavailableException"),
    DeadlineExceeded: Row(504, "RequestTimeoutException"),
    ModelError: Row(500, "InternalServerException"),
    InternalError: Row(500, "InternalServerException"),
}

# What Falcon itself refuses: the type, and the text where Falcon's own would not help.
_HTTP: dict[int, tuple[str, str]] = {
    404: ("ResourceNotFoundException", "Requested resource is not found, please refer to API document."),
    405: ("MethodNotAllowedException", "Requested method is not allowed, please refer to API document."),
    413: ("RequestTooLargeException", ""),
    501: ("NotImplementedException", ""),
}


def add_error_handlers(app: falcon.asgi.App[Any, Any], dialect: str = "") -> None:
    """Answer every exception of `app` in this dialect, or in that of the request's path."""

    async def on_exception(req: Any, resp: Any, error: Exception, params: Any) -> None:
        facts = {"method": req.method, "path": req.path}
        write(resp, answer_to(error, dialect or dialect_of(req.path), facts))

    async def on_http_error(req: Any, resp: Any, error: falcon.HTTPError, params: Any) -> None:
        type, text = _HTTP.get(error.status_code, ("BadRequestException", ""))
        if error.headers:
            resp.set_headers(error.headers)
        message = text or error.description or error.title or ""
        write(resp, _answer(dialect or dialect_of(req.path), error.status_code, type, message))

    app.add_error_handler(falcon.HTTPError, on_http_error)
    app.add_error_handler(Exception, on_exception)


def dialect_of(path: str) -> str:
    """`oip` for the Open Inference Protocol, else `predictions`."""
    return "oip" if path.startswith("/v2/") or path == "/v2" else "predictions"


def row_of(error: HeadwayError) -> Row | None:
    """The row of the error's class, or of the nearest class above it."""
    return next((TABLE[cls] for cls in type(error).__mro__ if cls in TABLE), None)


def retry_after(error: HeadwayError) -> str:
    """Whole seconds, at least 1."""
    return str(max(1, math.ceil(error.retry_after_s or 1)))


def answer_to(error: Exception, dialect: str, facts: dict[str, Any]) -> Answer:
    """An error as an HTTP response. `facts` say in the log what was asked when it is none of ours."""
    row = row_of(error) if isinstance(error, HeadwayError) else None
    if row is None:
        _log.error("unexpected error", exc_info=error, extra={"facts": facts})
        return _answer(dialect, 500, "InternalServerException", "internal error")
    answer = _answer(dialect, row.status, row.type, str(error), type(error).__name__)
    if row.retry and isinstance(error, HeadwayError):
        return answer._replace(headers=(("Retry-After", retry_after(error)),))
    if isinstance(error, Unauthorized):
        return answer._replace(headers=(("WWW-Authenticate", "Bearer"),))
    return answer


def _answer(dialect: str, status: int, type: str, message: str, name: str = "") -> Answer:
    if dialect == "oip":
        return Answer(status, JSON, json.dumps({"error": message}).encode())
    # indented, and with a newline at the end, as TorchServe's
    body = {"code": status, "type": type, "message": message}
    if dialect == MANAGEMENT and name:
        body["error"] = name
    return Answer(status, JSON, (json.dumps(body, indent=2) + "\n").encode())
