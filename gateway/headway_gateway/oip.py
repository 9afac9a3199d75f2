"""The Open Inference Protocol: every route under `/v2`.

Knows: paths, headers and JSON objects of the protocol. Must not know: how tensors are encoded (that is
`oip_codec`), the broker.
"""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import falcon
import falcon.asgi

import headway
from headway.errors import CallerError, InternalError, InvalidInput
from headway.lent import Received
from headway.messages import Reply
from headway.outgoing import Asked, ask_parts
from headway.settings import GatewaySettings
from headway.tensors import BY_NAME, Buffer, Part, unpack_raw
from headway_gateway.errors import answer_to
from headway_gateway.inference import (
    BINARY,
    JSON,
    Answer,
    Ask,
    Head,
    Question,
    Target,
    check_names,
    sticky,
    timeout_s,
    with_facts,
)
from headway_gateway.models import ask_broker, is_ready, versions_of, waiting
from headway_gateway.oip_codec import InferRequest, decode, encode
from headway_gateway.request import Request, respond

LENGTH_HEADER = "Inference-Header-Content-Length"
EXTENSIONS = ["binary_tensor_data", "parameters"]


class OpenInference:
    """The routes of this dialect, an `Inference`. Statuses are exactly 200 where all is well."""

    name = "oip"

    def __init__(self, client: Any, settings: GatewaySettings) -> None:
        self._client = client
        self._settings = settings

    def add_routes(self, app: falcon.asgi.App[Any, Any]) -> None:
        app.add_route("/v2", self, suffix="server")
        app.add_route("/v2/health/live", self, suffix="live")
        app.add_route("/v2/health/ready", self, suffix="ready")
        for model in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}"):
            app.add_route(model, self, suffix="model")
            app.add_route(model + "/ready", self, suffix="model_ready")
            app.add_route(model + "/infer", self, suffix="infer")

    async def on_get_server(self, req: Request, resp: falcon.asgi.Response) -> None:
        resp.media = {"name": "headway", "version": headway.__version__, "extensions": EXTENSIONS}

    async def on_get_live(self, req: Request, resp: falcon.asgi.Response) -> None:
        """This process answers; nothing is said of the broker, or a probe would kill us for its restart."""

    async def on_get_ready(self, req: Request, resp: falcon.asgi.Response) -> None:
        """The broker answers (else 503), and every version that should have a copy has one (else 400)."""
        missing = waiting(await ask_broker(self._client.models()))
        if missing:
            _refuse(resp, f"not ready: {', '.join(missing)}")

    async def on_get_model(
        self, req: Request, resp: falcon.asgi.Response, model: str, version: str = ""
    ) -> None:
        found = versions_of(await ask_broker(self._client.models()), model, version)
        resp.media = metadata(found, asked=version)

    async def on_get_model_ready(
        self, req: Request, resp: falcon.asgi.Response, model: str, version: str = ""
    ) -> None:
        """200 or 400, for an unknown model too: the protocol's reference server does the same."""
        try:
            found = versions_of(await ask_broker(self._client.models()), model, version)
        except CallerError as error:
            _refuse(resp, str(error))
            return
        if not is_ready(found[0]):
            _refuse(resp, f"model {model!r}, version {found[0]['version']} is not ready")

    async def on_post_infer(
        self, req: Request, resp: falcon.asgi.Response, model: str, version: str = ""
    ) -> None:
        await respond(req, resp, self, Target(model, version), self._client, self._settings)

    def before(self, head: Head) -> int:
        said = head.get_header(LENGTH_HEADER) or ""
        return int(said) if said.isdecimal() and len(said) <= 12 else 0  # checked when the body is there

    def asks(self, target: Target, head: Head) -> Ask:
        return partial(self._ask, target, head)

    def _ask(self, target: Target, head: Head, body: Buffer, received: Received | None) -> Question:
        check_names(target)
        said_s = timeout_s(head, self._settings)
        request = decode(body, _json_bytes(head, len(body)))
        wanted = sticky(head, _asked(request, target))
        asked = ask_parts(wanted, request.parts, self._client.lender, received)
        limit_s = _shorter(said_s, request.timeout_s, self._settings)
        return Question(asked, limit_s, partial(_answer, request, target))

    def refusal(self, error: Exception, target: Target) -> Answer:
        return answer_to(error, self.name, {"model": target.model})


def metadata(versions: list[dict[str, Any]], asked: str) -> dict[str, Any]:
    """What the protocol says of a model; its tensors are those of the first of `versions`."""
    first = versions[0]
    return {
        "name": first["name"],
        "versions": [asked] if asked else [m["version"] for m in versions if is_ready(m)],
        "platform": f"headway_{first.get('backend', 'any')}",
        "inputs": [_tensor(*spec) for spec in first["inputs"]],
        "outputs": [_tensor(*spec) for spec in first["outputs"]],
    }


def _tensor(name: str, dtype: str, shape: list[int]) -> dict[str, Any]:
    return {"name": name, "datatype": BY_NAME[dtype].oip, "shape": [-1, *shape]}


def _asked(request: InferRequest, target: Target) -> Asked:
    options: dict[str, Any] = {"parameters": dict(request.parameters)} if request.parameters else {}
    if request.step:
        options |= request.step.options
    return Asked(*target, request.rows, options, b"")


def _answer(request: InferRequest, target: Target, reply: Reply) -> Answer:
    version = str(reply.meta.get("version", target.version))
    data, json_bytes = encode(request, target.model, version, _parts(reply))
    if json_bytes is None:
        return with_facts(Answer(200, JSON, data), reply.meta)
    return with_facts(Answer(200, BINARY, data, ((LENGTH_HEADER, str(json_bytes)),)), reply.meta)


def _parts(reply: Reply) -> list[Part]:
    try:
        return unpack_raw(reply.content)  # type: ignore[arg-type]
    except InvalidInput as error:  # not the caller's input
        raise InternalError(f"the model's reply holds no tensors: {error}") from None


def _json_bytes(head: Head, body_bytes: int) -> int | None:
    text = head.get_header(LENGTH_HEADER)
    if text is None:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 12 or not 0 < int(text) <= body_bytes:
        raise InvalidInput(f"{LENGTH_HEADER} is from 1 to the body's {body_bytes} bytes, not {text[:40]!r}")
    return int(text)


def _shorter(header_s: float | None, parameter_s: float | None, settings: GatewaySettings) -> float:
    """The shorter of the two timeouts that a request can name, or the default."""
    said = [s for s in (header_s, parameter_s) if s is not None]
    return min(*said, settings.request_timeout_s_max) if said else settings.request_timeout_s


def _refuse(resp: falcon.asgi.Response, message: str) -> None:
    resp.status = 400
    resp.data = json.dumps({"error": message}).encode()
