"""A TorchServe request as a question for the broker, and its reply or error as what TorchServe's clients get.

Knows: the options and the meta that PROTOCOL.md section 4 has for TorchServe's handlers, the texts and
statuses of TorchServe's frontend. Must not know: HTTP routes, gRPC, sockets, Falcon.

HTTP, gRPC and workflows ask through here:

    asked = ask(target, Body(data, mime_type), headers, request_id=..., lender=client.lender)
    try:
        answer = answer_of(await client.reply(asked, timeout_s(registry.of(*target))))
    except HeadwayError as error:
        raise refusal_of(error, target, registry) from None

A body's media type goes without parameters, and is "" where the client said none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from headway.body import Body, body_parts
from headway.errors import (
    BrokerUnreachable,
    Cancelled,
    DeadlineExceeded,
    HeadwayError,
    InvalidInput,
    ModelError,
    NoSequence,
    NotReady,
    QueueFull,
    TooLarge,
    UnknownModel,
    WorkerLost,
)
from headway.headers import HEADERS, packed
from headway.lent import Lender, Received
from headway.messages import Reply
from headway.outgoing import Asked, ask_parts
from headway.torchserve.registration import Registration
from headway_gateway.inference import Answer, Target
from headway_gateway.torchserve.refusal import Refusal, bad_request, no_model, no_version

WITHOUT_LIMIT_S = 3600.0  # a request lives so long where its model has no clientTimeoutInMills
CLIENT_GONE = 499  # nobody reads it
REQUEST_ID = "request_id"  # of the options
NOWHERE: Mapping[str, Any] = {}  # in no sequence
INTERNAL, UNAVAILABLE = "InternalServerException", "ServiceUnavailableException"
FAILED, DIED = "Prediction failed", "Worker died."
EXPIRED = "The request's time (clientTimeoutInMills) ran out before it was answered."
_TOO_LARGE, _OUT_OF_MEMORY = 413, 507


class Registry(Protocol):
    """What is registered; see `registry`."""

    def of(self, model: str, version: str = "") -> Registration | None:
        """`version` "": the default one's. None: there is none."""


def ask(
    target: Target,
    body: Body,
    headers: Mapping[str, str],
    *,
    request_id: str,
    explain: bool | None = None,
    url_path: str | None = None,
    stream: bool = False,
    lender: Lender | None = None,
    received: Received | None = None,
    place: Mapping[str, Any] = NOWHERE,
) -> Asked:
    """The request. `headers`: the client's, their names as the client wrote them. `explain`, `url_path`: None
    where handlers hear nothing of it. `received`: where the body's data is, if that is shared memory.
    `place`: its options for a sequence. Raises: InvalidInput; TooLarge."""
    parts, options = body_parts(body)
    options[HEADERS] = packed(headers)
    options[REQUEST_ID] = request_id
    options.update(place)
    if url_path is not None:
        options["url_path"] = url_path
    if explain is not None:
        options["explain"] = "true" if explain else "false"
    if stream:
        options["stream"] = "true"
    return ask_parts(Asked(target.model, target.version, 0, options, b""), parts, lender, received)


def timeout_s(registration: Registration | None) -> float:
    """How long a request may take from its arrival to its answer."""
    if registration is None or registration.client_timeout_ms <= 0:
        return WITHOUT_LIMIT_S
    return registration.client_timeout_ms / 1000


def answer_of(reply: Reply, bytes_max: int = 0, more: tuple[tuple[str, str], ...] = ()) -> Answer:
    """What the handler made, with the status, phrase and headers that it set, and `more` headers after them.
    `content_type` is "" if it set none. Raises: Refusal for more than `bytes_max` (0: any)."""
    assert isinstance(reply.content, bytes)
    if bytes_max and len(reply.content) > bytes_max:
        raise Refusal(500, INTERNAL, DIED)
    meta = reply.meta
    content_type, headers = _headers(meta["headers"]) if "headers" in meta else ("", ())
    status = _status(meta["status"], 200) if "status" in meta else 200
    phrase = _phrase(meta["phrase"]) if "phrase" in meta else ""
    return Answer(status, content_type, reply.content, headers + more, phrase)


def refusal_of(
    error: HeadwayError, target: Target, registry: Registry | None = None, *, one_text: bool = False
) -> Refusal:
    """What the client is told of it. `one_text`: the same for all that has no room, as TorchServe says it."""
    told = _told(error)
    if told:
        return told
    match error:
        case UnknownModel():
            return _unknown(target, registry)
        case QueueFull() | NotReady() | BrokerUnreachable() | NoSequence():
            return Refusal(503, UNAVAILABLE, _no_room(error, target, one_text))
        case WorkerLost():
            return Refusal(500, INTERNAL, DIED)
        case DeadlineExceeded():
            return Refusal(408, "RequestTimeoutException", EXPIRED)
        case InvalidInput():
            return bad_request(str(error))
        case TooLarge():
            return Refusal(_TOO_LARGE, "RequestTooLargeException", str(error))
        case Cancelled():
            return Refusal(CLIENT_GONE, "CancelledException", str(error))
        case ModelError():
            return Refusal(503, INTERNAL, FAILED)
        case _:
            return Refusal(500, INTERNAL, "internal error")


def _told(error: HeadwayError) -> Refusal | None:
    """What the worker says shall be told, if it says anything."""
    if "message" not in error.meta:
        return None
    status = _status(error.meta.get("status"), 503)
    if status == _TOO_LARGE:  # that is about requests, and this one was not
        status = _OUT_OF_MEMORY
    return Refusal(status, INTERNAL, str(error.meta["message"]))


def _unknown(target: Target, registry: Registry | None) -> Refusal:
    if target.version and registry and registry.of(target.model):
        return no_version(target.model, target.version)
    return no_model(target.model)


def _no_room(error: HeadwayError, target: Target, one_text: bool) -> str:
    version = f"Version {target.version} " if target.version else ""
    who = f'Model "{target.model}" {version}'
    if not one_text and isinstance(error, QueueFull):
        return f"{who}has no room for one more inference request: {error}"
    if not one_text and isinstance(error, NoSequence):
        return f"{who}cannot serve the inference request: {error}"
    if not one_text and isinstance(error, BrokerUnreachable):
        return f"{who}cannot be reached: {error}"
    no_worker = f"{who}has no worker to serve inference request. Please use scale workers API to add workers."
    if not one_text:
        return no_worker
    return (
        f"{no_worker} If this is a sequence inference, please check if it is closed, or expired;"
        " or exceeds maxSequenceJobQueueSize"
    )


def _status(said: Any, otherwise: int) -> int:
    """A status that a last answer can have."""
    return said if type(said) is int and 200 <= said <= 999 else otherwise


def _phrase(said: Any) -> str:
    """Empty unless the handler said one that can stand in a status line."""
    return said if isinstance(said, str) and said.isascii() and said.isprintable() else ""


def _headers(said: Any) -> tuple[str, tuple[tuple[str, str], ...]]:
    """The content type, and the other headers, those that can be sent."""
    if not isinstance(said, dict):
        return "", ()
    content_type, headers = "", []
    for name, value in said.items():
        if not _can_be_sent(name, value):
            continue
        if name.lower() == "content-type":
            content_type = value
        elif name.lower() not in _OWN:
            headers.append((name, value))
    return content_type, tuple(headers)


_OWN = frozenset(("content-length", "transfer-encoding", "connection"))
_NO_TOKEN = frozenset(' ()<>@,;:\\"/[]?={}')


def _can_be_sent(name: Any, value: Any) -> bool:
    if not isinstance(name, str) or not isinstance(value, str) or not name:
        return False
    is_token = name.isascii() and name.isprintable() and not _NO_TOKEN.intersection(name)
    return is_token and all((" " <= char <= "\xff" and char != "\x7f") or char == "\t" for char in value)
