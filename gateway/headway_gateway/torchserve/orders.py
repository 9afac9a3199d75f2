"""Orders to the broker, and its errors as what TorchServe's clients are told.

Knows: the verbs of PROTOCOL.md, section 9. Must not know: what an order is for, files.
"""

from __future__ import annotations

import re
from typing import Any

from headway.errors import BrokerUnreachable, HeadwayError, InvalidInput
from headway_gateway.torchserve.refusal import Refusal, bad_request

ANSWER_S = 30.0  # an order that does not wait; one to register reads every model.toml
MARGIN_S = 10.0  # the broker says that an order was not carried out in time; we only if it does not
INTERNAL = "InternalServerException"
_OUT_OF_MEMORY = re.compile(r"out of memory|OutOfMemory|MemoryError|Cannot allocate memory", re.IGNORECASE)


class Orders:
    """`client` is an `AsyncClient` or stub, `token` the broker's management token. Every method raises
    HeadwayError: what the broker had to say."""

    def __init__(self, client: Any, token: str) -> None:
        self._client = client
        self._token = token

    async def register(self, model: str, version: str) -> None:
        """Serve a version that is in the store."""
        await self._give("register", {"path": f"{model}/{version}"})

    async def unregister(self, model: str, version: str) -> None:
        """Serve it no longer."""
        await self._give("unregister", {"model": model, "version": version})

    async def rescan(self) -> None:
        """Forget what is not in the store any more."""
        await self._give("rescan", {})

    async def default(self, model: str, version: str, wait_s: float = 0.0) -> None:
        """Requests that name no version get this one, from when it is ready. With `wait_s`, comes back then.
        Raises: NotReady when it will not be; DeadlineExceeded."""
        await self._give_waiting("default", {"model": model, "version": version}, wait_s)

    async def scale(self, model: str, version: str, copies: int, wait_s: float = 0.0) -> None:
        """Have so many copies. With `wait_s`, comes back when they are ready. Raises: NotReady when they will
        not be; DeadlineExceeded."""
        order = {"model": model, "version": version, "min": copies, "max": copies}
        await self._give_waiting("scale", order, wait_s)

    async def _give_waiting(self, verb: str, order: dict[str, Any], wait_s: float) -> None:
        if not wait_s:
            await self._give(verb, order)
            return
        waiting = {"wait": 1, "timeout_ms": max(1, round(wait_s * 1000))}
        await self._give(verb, order | waiting, wait_s + MARGIN_S)

    async def _give(self, verb: str, arguments: dict[str, Any], timeout_s: float = ANSWER_S) -> None:
        await self._client.command(verb, arguments, self._token, timeout_s=timeout_s)


def refusal_of(error: HeadwayError) -> Refusal:
    """Of an order that the broker did not obey though nothing was wrong with it."""
    if isinstance(error, InvalidInput):
        return bad_request(str(error))
    if isinstance(error, BrokerUnreachable):
        return Refusal(503, "ServiceUnavailableException", str(error))
    return Refusal(500, INTERNAL, str(error))


def not_started(model: str, version: str | None, reason: str) -> Refusal:
    """`version` None: the client named none."""
    status = 507 if _OUT_OF_MEMORY.search(reason) else 500
    who = f"model {model} version: {'null' if version is None else version}"
    return Refusal(status, INTERNAL, f"Failed to start workers for {who}")
