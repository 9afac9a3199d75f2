"""The TorchServe door over handlers that are functions: `Handlers` in the broker's place, `Door` to call it.

A handler gets what was asked, and gives replies: all but the last with `more` in their meta.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import msgpack

from headway.body import unpack_body
from headway.errors import ModelError, UnknownModel
from headway.messages import OK, Reply
from headway.outgoing import Asked
from headway.pieces import MORE
from headway.settings import GatewaySettings
from headway.stub import AsyncStubClient
from headway.torchserve.properties import Properties
from headway.torchserve.registration import Registration
from headway_gateway.doors import ADDRESSES, Place
from headway_gateway.torchserve.app import create_doors

Handler = Callable[[Asked], Iterator[Reply]]
PLACES = {name: Place("127.0.0.1", 8080 + i) for i, name in enumerate(ADDRESSES)}


def reply(content: bytes, **meta: Any) -> Reply:
    return Reply(0, OK, content, meta)


def headers_of(asked: Asked) -> dict[str, str]:
    """The client's, as a handler sees them."""
    headers: dict[str, str] = msgpack.unpackb(asked.options["headers"])
    return headers


def shown(asked: Asked) -> Iterator[Reply]:
    """Tells what reached it; does not depend on the request's id or where its tensors were."""
    body = unpack_body(asked.tensors, asked.options)
    parts = body.parts or {"body": body}
    told = {name: [part.content_type, bytes(part.data).decode("latin1")[:99]] for name, part in parts.items()}
    options = {key: asked.options[key] for key in ("url_path", "explain") if key in asked.options}
    yield reply(json.dumps({"parts": told, "headers": headers_of(asked), **options}).encode())


def says(content: bytes = b"x", **meta: Any) -> Handler:
    return lambda asked: iter([reply(content, **meta)])


def fails(error: Exception, **meta: Any) -> Handler:
    def handler(asked: Asked) -> Iterator[Reply]:
        error.meta = meta  # type: ignore[attr-defined]
        raise error

    return handler


def streams(*pieces: bytes, breaks: bool = False, **meta: Any) -> Handler:
    def handler(asked: Asked) -> Iterator[Reply]:
        for piece in pieces[:-1]:
            yield reply(piece, **{MORE: 1}, **meta)
        if breaks:
            raise ModelError("boom")
        yield reply(pieces[-1], **meta)

    return handler


class Handlers(AsyncStubClient):
    """`shorts` counts requests that came the short way; `abandoned` those that were given up."""

    def __init__(self, handlers: dict[str, Handler], store: Path) -> None:
        super().__init__({})
        self.handlers = handlers
        self.store = store
        self.shorts = 0
        self.versions = [{"name": name, "version": "1.0", "default": True, "wanted": 1, "ready": 1,
                          "state": "ready"} for name in handlers]  # fmt: skip
        for name in handlers:
            register(store, Registration(name, "1.0", f"{name}.mar", f"/{name}.mar"))

    def _replies(self, asked: Asked) -> Iterator[Reply]:
        self.calls.append(asked)
        if asked.model not in self.handlers or asked.version not in ("", "1.0"):
            raise UnknownModel(f"there is no model {asked.model!r}")
        return self.handlers[asked.model](asked)

    def start(self, *args: Any) -> int:
        self.shorts += 1
        return super().start(*args)

    async def models(self) -> list[dict[str, Any]]:
        return self.versions

    async def state(self) -> dict[str, Any]:
        return {"broker": {"model_store": str(self.store)}, "models": self.versions, "workers": []}


def register(store: Path, registration: Registration) -> None:
    folder = store / registration.model / registration.version
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "torchserve.json").write_text(json.dumps(dataclasses.asdict(registration)))


def settings_of(folder: Path, **said: Any) -> GatewaySettings:
    """With the properties and the broker's token in files. Nobody is asked for a key, unless it is said."""
    paths = {"key_file": str(folder / "key_file.json"), "log_location": str(folder)}
    properties = {"disable_token_authorization": True, **paths, **said}
    (folder / "properties.json").unlink(missing_ok=True)
    Properties(**properties).write(folder / "properties.json")
    (folder / "token").write_text("token")
    return GatewaySettings(run_dir=folder, state_dir=folder, torchserve=str(folder / "properties.json"))


class Door:
    """The apps, called in this process without a socket."""

    def __init__(
        self, folder: Path, handlers: dict[str, Handler] | None = None, shared: bool = False, **said: Any
    ) -> None:
        store = folder / "store"
        self.client = Handlers({"m": shown} if handlers is None else handlers, store)
        places = {"http": PLACES["http"]} if shared else PLACES
        self.doors = create_doors(self.client, settings_of(folder, **said), places)

    def ask(self, method: str, path: str, door: str = "http", **more: Any) -> httpx.Response:
        return asyncio.run(self._ask(method, path, door, more))

    def get(self, path: str, **more: Any) -> httpx.Response:
        return self.ask("GET", path, **more)

    def post(self, path: str, content: bytes = b"", **more: Any) -> httpx.Response:
        return self.ask("POST", path, content=content, **more)

    async def _ask(self, method: str, path: str, door: str, more: dict[str, Any]) -> httpx.Response:
        transport = httpx.ASGITransport(self.doors.apps[door])
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
            return await http.request(method, path, **more)
