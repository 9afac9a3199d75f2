"""The Open Inference Protocol: every route under `/v2`.

Knows: paths, headers and JSON objects of the protocol. Must not know: how tensors are encoded (that is
`oip_codec`), the broker.
"""

from __future__ import annotations

import json
from typing import Any

import falcon
import falcon.asgi

import headway
from headway.errors import CallerError, InternalError, InvalidInput
from headway.messages import Reply
from headway.outgoing import Asked, ask_parts
from headway.settings import GatewaySettings
from headway.tensors import BY_NAME, Tensors, unpack
from headway_gateway.models import ask_broker, is_ready, versions_of, waiting
from headway_gateway.oip_codec import InferRequest, decode, encode
from headway_gateway.request import Request, check_names

LENGTH_HEADER = "Inference-Header-Content-Length"
EXTENSIONS = ["binary_tensor_data", "parameters"]


class OpenInference:
    """The routes of this dialect. Statuses are exactly 200 where all is well: clients insist."""

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
        check_names(model, version)
        said_s = req.timeout_s(self._settings)
        said = req.get_header(LENGTH_HEADER) or ""
        before = int(said) if said.isdecimal() and len(said) <= 12 else 0  # checked when the body is there
        body = await req.body(self._settings.body_bytes_max, self._client.lender, before)
        request = decode(body, _json_bytes(req, len(body)))
        asked = ask_parts(_asked(request, model, version), request.parts, self._client.lender, req.received)
        timeout_s = _shorter(said_s, request.timeout_s, self._settings)
        reply = await req.while_connected(self._client.reply(asked, timeout_s))
        used = str(reply.meta.get("version", version))
        resp.data, json_bytes = encode(request, model, used, _tensors(reply))
        if json_bytes is not None:
            resp.content_type = "application/octet-stream"
            resp.set_header(LENGTH_HEADER, str(json_bytes))


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


def _asked(request: InferRequest, model: str, version: str) -> Asked:
    options = {"parameters": dict(request.parameters)} if request.parameters else {}
    return Asked(model, version, request.rows, options, b"")


def _tensors(reply: Reply) -> Tensors:
    try:
        return unpack(reply.content)  # type: ignore[arg-type]
    except InvalidInput as error:  # not the caller's input
        raise InternalError(f"the model's reply holds no tensors: {error}") from None


def _json_bytes(req: Request, body_bytes: int) -> int | None:
    text = req.get_header(LENGTH_HEADER)
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
