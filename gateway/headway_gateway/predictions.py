"""The plain dialect: `GET /ping` and `POST /predictions/{model}[/{version}]`.

A prediction's body goes to the model's `preprocess` as it is, of whatever media type; the parts of a
multipart form go there by name. Its answer is what `postprocess` made.

Knows: paths, media types, multipart forms. Must not know: tensors, the broker.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import falcon
import falcon.asgi
from falcon.media import MultipartFormHandler
from falcon.media.multipart import MultipartParseOptions

from headway.body import Body, body_parts
from headway.errors import HeadwayError, InvalidInput
from headway.lent import Received
from headway.messages import Reply
from headway.outgoing import Asked, ask_parts
from headway.settings import GatewaySettings
from headway.tensors import NAME_BYTES_MAX, Buffer
from headway_gateway.errors import answer_to
from headway_gateway.inference import (
    BINARY,
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
from headway_gateway.models import ask_broker
from headway_gateway.request import Request, exchange, respond

PARTS_MAX = 64


class Predictions:
    """The routes of this dialect, an `Inference` but for forms."""

    name = "predictions"

    def __init__(self, client: Any, settings: GatewaySettings) -> None:
        self._client = client
        self._settings = settings
        self._forms = _form_reader(settings.body_bytes_max)

    def add_routes(self, app: falcon.asgi.App[Any, Any]) -> None:
        app.add_route("/ping", self, suffix="ping")
        app.add_route("/predictions/{model}", self)
        app.add_route("/predictions/{model}/{version}", self)

    async def on_get_ping(self, req: Request, resp: falcon.asgi.Response) -> None:
        """Whether this server can take requests at all; how single models do is `/models`."""
        try:
            await ask_broker(self._client.models())
        except HeadwayError:
            resp.status = 500
        resp.media = {"status": "Healthy" if resp.status_code == 200 else "Unhealthy"}

    async def on_post(self, req: Request, resp: falcon.asgi.Response, model: str, version: str = "") -> None:
        target = Target(model, version)
        if not _is_form(req):
            await respond(req, resp, self, target, self._client, self._settings)
            return
        check_names(target)
        form = await self._form(await req.body(self._settings.body_bytes_max), req.content_type or "")
        await exchange(req, resp, self._question(target, req, form, None), self._client)

    on_put = on_post  # `curl -T`, as TorchServe's documentation has it

    def before(self, head: Head) -> int:
        return 0

    def asks(self, target: Target, head: Head) -> Ask:
        return partial(self._ask, target, head)

    def _ask(self, target: Target, head: Head, body: Buffer, received: Received | None) -> Question:
        check_names(target)
        return self._question(target, head, Body(body, head.get_header("Content-Type") or BINARY), received)

    def refusal(self, error: Exception, target: Target) -> Answer:
        return answer_to(error, self.name, {"model": target.model})

    def _question(self, target: Target, head: Head, body: Body, received: Received | None) -> Question:
        limit_s = timeout_s(head, self._settings) or self._settings.request_timeout_s
        parts, options = body_parts(body)
        wanted = sticky(head, Asked(*target, 0, options, b""))
        asked = ask_parts(wanted, parts, self._client.lender, received)
        return Question(asked, limit_s, _answer)

    async def _form(self, data: Buffer, content_type: str) -> Body:
        stream: Any = _chunks(bytes(data))
        form = await self._forms.deserialize_async(stream, content_type, len(data))
        return Body(b"", content_type, await _parts(form))


def _is_form(head: Head) -> bool:
    return (head.get_header("Content-Type") or "").lower().startswith("multipart/form-data")


def _answer(reply: Reply) -> Answer:
    answer = Answer(200, _media_type(reply.meta.get("content_type")), reply.content)  # type: ignore[arg-type]
    return with_facts(answer, reply.meta)


async def _chunks(data: bytes) -> AsyncIterator[bytes]:
    """Bytes as the stream that Falcon's reader of forms takes."""
    yield data


def _form_reader(bytes_max: int) -> MultipartFormHandler:
    options = MultipartParseOptions()
    options.max_body_part_count = PARTS_MAX
    options.max_body_part_buffer_size = bytes_max
    return MultipartFormHandler(options)


async def _parts(form: Any) -> dict[str, Body]:
    """The parts by name; of two with one name the last counts. Raises: InvalidInput, falcon.HTTPError."""
    parts: dict[str, Body] = {}
    try:
        async for part in form:
            parts[_part_name(part.name)] = Body(await part.get_data(), part.content_type)
    except UnicodeDecodeError as error:
        raise InvalidInput(f"a part of the form has a header that is not text: {error}") from None
    if not parts:
        raise InvalidInput("the form has no parts")
    return parts


def _part_name(name: str | None) -> str:
    if not name or len(name) > NAME_BYTES_MAX:
        raise InvalidInput(f"each part of a form needs a name of at most {NAME_BYTES_MAX} characters")
    return name


def _media_type(said: Any) -> str:
    """What the model says, unless that cannot stand in a header."""
    return said if isinstance(said, str) and said and said.isascii() and said.isprintable() else BINARY
