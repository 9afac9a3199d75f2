"""Clients without a server, for the tests of programs that use Headway.

    client = StubClient({"tiny": lambda inputs: {"y": inputs["x"] * 2}})
    client.infer("tiny", {"x": np.ones(16)})

A model is a function: from a dict of arrays to a dict of arrays (`infer`), or from a `Body` to a `Body`
(`predict`). One that streams gives several bodies, as a generator does: `stream` has them one by one, and
`predict` all together. A function may raise any of `headway.errors`. Tensors go through `pack` and `unpack`
as on the real way, so a dtype that does not travel fails here too. `calls` lists what was asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

import numpy as np
import numpy.typing as npt

from headway.body import Body, is_body, unpack_body
from headway.errors import HeadwayError, UnknownModel
from headway.lent import Lender
from headway.messages import OK, Reply
from headway.outgoing import (
    Asked,
    Inputs,
    ask_body,
    ask_tensors,
    body_of,
    sticking,
    streaming,
    tensors_of,
)
from headway.pieces import MORE
from headway.steps import Step
from headway.tensors import Array, Tensors, pack, unpack

Models = Mapping[str, Callable[[Any], Any]]


class _Stub:
    def __init__(self, models: Models) -> None:
        self._models = dict(models)
        self.calls: list[Asked] = []
        self.commands: list[tuple[str, dict[str, Any]]] = []
        self.lender = Lender("", 0)

    def _reply(self, asked: Asked) -> Reply:
        """All of it, as one."""
        *pieces, last = self._replies(asked)
        whole = b"".join(reply.content for reply in (*pieces, last) if isinstance(reply.content, bytes))
        return last._replace(content=whole)

    def _replies(self, asked: Asked) -> Iterator[Reply]:
        """The pieces, and the last of it."""
        self.calls.append(asked)
        model = self._models.get(asked.model)
        if model is None:
            raise UnknownModel(f"there is no model {asked.model!r}")
        if not is_body(asked.options):
            yield Reply(0, OK, pack(model(unpack(asked.tensors))), {})
            return
        answer = model(unpack_body(asked.tensors, asked.options))
        bodies = iter([answer] if isinstance(answer, Body) else answer)
        last: Body = next(bodies, Body(b""))
        for body in bodies:
            yield _reply_of(last, {MORE: 1})
            last = body
        yield _reply_of(last, {})

    @staticmethod
    def empty(shape: Sequence[int] | int, dtype: npt.DTypeLike = np.float32) -> Array:
        """As `Client.empty` without shared memory."""
        return np.empty(shape, dtype)

    def _states(self) -> list[dict[str, Any]]:
        shown = {
            "version": "1",
            "default": True,
            "state": "ready",
            "wanted": 1,
            "ready": 1,
            "error": "",
        }
        return [{"name": name, **shown, "inputs": [], "outputs": []} for name in self._models]

    def _state(self) -> dict[str, Any]:
        return {
            "broker": {},
            "models": self._states(),
            "workers": [],
            "devices": [],
            "agents": [],
            "events": [],
        }

    def _commanded(self, verb: str, arguments: dict[str, Any], token: str) -> dict[str, Any]:
        """Any token is right. `commands` lists what was ordered."""
        self.commands.append((verb, arguments))
        return self._state() if verb == "state" else dict(arguments)


def _reply_of(body: Body, meta: dict[str, Any]) -> Reply:
    return Reply(0, OK, bytes(body.data), {"content_type": body.content_type, **meta})


class StubClient(_Stub):
    """Stands in for `Client`."""

    def infer(
        self,
        model: str,
        inputs: Inputs,
        *,
        version: str = "",
        timeout_s: float | None = None,
        batched: bool = False,
        sticky: str = "",
        step: Step | None = None,
    ) -> Tensors:
        return tensors_of(self._reply(sticking(ask_tensors(model, inputs, version, batched), sticky, step)))

    def predict(
        self,
        model: str,
        body: Body | bytes,
        *,
        version: str = "",
        timeout_s: float | None = None,
        sticky: str = "",
        step: Step | None = None,
    ) -> Body:
        return body_of(self._reply(sticking(ask_body(model, body, version), sticky, step)))

    def stream(
        self,
        model: str,
        body: Body | bytes,
        *,
        version: str = "",
        timeout_s: float | None = None,
        sticky: str = "",
        step: Step | None = None,
    ) -> Generator[Body, None, None]:
        asked = streaming(sticking(ask_body(model, body, version), sticky, step))
        for place, reply in enumerate(self._replies(asked)):
            if not place or reply.content or MORE in reply.meta:
                yield body_of(reply)

    def submit(
        self,
        model: str,
        inputs: Inputs | Body,
        *,
        version: str = "",
        timeout_s: float | None = None,
        batched: bool = False,
        sticky: str = "",
        step: Step | None = None,
    ) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            if isinstance(inputs, Body):
                future.set_result(self.predict(model, inputs, version=version, sticky=sticky, step=step))
            else:
                future.set_result(
                    self.infer(model, inputs, version=version, batched=batched, sticky=sticky, step=step)
                )
        except HeadwayError as error:
            future.set_exception(error)
        return future

    def models(self, timeout_s: float = 0) -> list[dict[str, Any]]:
        return self._states()

    def stats(self, timeout_s: float = 0) -> dict[str, Any]:
        return {"models": []}

    def state(self, timeout_s: float = 0) -> dict[str, Any]:
        return self._state()

    def command(
        self, verb: str, arguments: dict[str, Any], token: str, timeout_s: float = 0
    ) -> dict[str, Any]:
        return self._commanded(verb, arguments, token)

    def close(self) -> None:
        """Nothing to leave."""

    def __enter__(self) -> StubClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncStubClient(_Stub):
    """Stands in for `AsyncClient`."""

    stalls = 0

    def __init__(self, models: Models) -> None:
        super().__init__(models)
        self._tasks: dict[int, asyncio.Task[None]] = {}

    async def open(self) -> None:
        """Nothing to take."""

    async def close(self) -> None:
        """Nothing to leave."""

    async def __aenter__(self) -> AsyncStubClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def infer(
        self,
        model: str,
        inputs: Inputs,
        *,
        version: str = "",
        timeout_s: float | None = None,
        batched: bool = False,
        sticky: str = "",
        step: Step | None = None,
    ) -> Tensors:
        return tensors_of(
            await self.reply(sticking(ask_tensors(model, inputs, version, batched), sticky, step))
        )

    async def predict(
        self,
        model: str,
        body: Body | bytes,
        *,
        version: str = "",
        timeout_s: float | None = None,
        sticky: str = "",
        step: Step | None = None,
    ) -> Body:
        return body_of(await self.reply(sticking(ask_body(model, body, version), sticky, step)))

    async def stream(
        self,
        model: str,
        body: Body | bytes,
        *,
        version: str = "",
        timeout_s: float | None = None,
        sticky: str = "",
        step: Step | None = None,
    ) -> AsyncGenerator[Body, None]:
        is_first = True
        async for reply in self.replies(sticking(ask_body(model, body, version), sticky, step), timeout_s):
            if is_first or reply.content or MORE in reply.meta:
                yield body_of(reply)
            is_first = False

    async def reply(self, asked: Asked, timeout_s: float | None = None) -> Reply:
        return self._reply(asked)

    async def replies(self, asked: Asked, timeout_s: float | None = None) -> AsyncGenerator[Reply, None]:
        for reply in self._replies(streaming(asked)):
            yield reply

    def start(
        self,
        asked: Asked,
        timeout_s: float | None,
        done: Callable[[Any], None],
        piece: Callable[[Reply], None] | None = None,
    ) -> int:
        """As `AsyncClient.start`, over `reply` and `replies`."""
        task = asyncio.get_running_loop().create_task(self._told(asked, timeout_s, done, piece))
        self._tasks[id(task)] = task
        return id(task)

    async def _told(
        self,
        asked: Asked,
        timeout_s: float | None,
        done: Callable[[Any], None],
        piece: Callable[[Reply], None] | None,
    ) -> None:
        try:
            outcome: Any = None
            if piece is None:
                outcome = await self.reply(asked, timeout_s)
            else:
                async for outcome in self.replies(asked, timeout_s):
                    if MORE in outcome.meta:
                        piece(outcome)
        except Exception as error:
            outcome = error
        done(outcome)

    def abandon(self, id: int) -> None:
        """As `AsyncClient.abandon`."""
        self._tasks.pop(id).cancel()

    async def models(self) -> list[dict[str, Any]]:
        return self._states()

    async def stats(self) -> dict[str, Any]:
        return {"models": []}

    async def state(self) -> dict[str, Any]:
        return self._state()

    async def command(
        self, verb: str, arguments: dict[str, Any], token: str, timeout_s: float = 0
    ) -> dict[str, Any]:
        return self._commanded(verb, arguments, token)
