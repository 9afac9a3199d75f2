"""The asyncio client. The gateway's way to the broker, and for programs that are asynchronous anyway.

    async with AsyncClient() as client:
        outputs = await client.infer("tiny", {"x": np.ones(16, np.float32)})

Knows: the event loop, and the socket's descriptor. Must not know: what to send and when (`calls`).

How it reads. Over TCP the descriptor is libzmq's, and edge-triggered: it signals once, and not again until
everything was read, and a send may swallow the signal. So the dealer is drained until it has nothing on
every signal, *and* asked after every send; a drain is bounded, and goes on in the loop's next turn when it
reached its bound. A slow timer looks whether something was left lying all the same: `stalls` counts
those, and stays 0. PERF: `zmq.asyncio` reads 9,400 small requests a second through one gateway process
where this reads 11,600.

Requests that start in the same turn of the event loop leave in one message, or in several when they are many.

Over 300 lines: what users call and what the event loop calls share one state.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from headway import keys, logs
from headway.body import Body
from headway.calls import Abandon, Action, Call, Calls
from headway.dealers import Dealer, dial_as_caller
from headway.errors import BrokerUnreachable, InternalError
from headway.inbox import drain
from headway.inflow import Inflow
from headway.lent import Lender
from headway.messages import Message, Reply
from headway.outbox import carry_out
from headway.outgoing import (
    COMMAND_TIMEOUT_S,
    DEFAULT_TIMEOUT_S,
    Asked,
    Inputs,
    answer_of,
    ask_body,
    ask_tensors,
    body_of,
    command_of,
    deadline_of,
    models_of,
    opened,
    query_of,
    reply_of,
    sticking,
    streaming,
    tensors_of,
)
from headway.pieces import MORE
from headway.settings import ClientSettings, Shared, read
from headway.steps import Step
from headway.tensors import Array, Tensors
from headway.waiting import poll_of

_log = logs.get("headway.client")
DRAIN_MAX = 500
SAFETY_S = 1.0
# So many calls leave before the turn of the event loop is over. PERF: or else all connections move in lock
# step: the gateway reads all of them while the worker has nothing to do, and then waits for the worker.
# Answers a second to 32 connections: 5,178 with 8, 4,602 with 16, 4,486 with 32; to 64: 6,603, 6,280, 6,568
# (a TorchServe archive that does nothing, medians of three runs of 1.5 s, two cores).
SEND_AT = 8
QUERY_TIMEOUT_S = 10.0

Done = Callable[[Any], None]  # gets a call's outcome: a `Reply`, an answer's body, or an error
Took = Callable[[Reply], None]  # gets a piece of a reply
_NOBODY: tuple[Done, None, None] = (lambda outcome: None, None, None)


class AsyncClient:
    """A connection to one broker, used from one event loop. Open it after a fork, never before.

    A `tcp://` address needs keys; where they are, `settings` say, or else the environment and the file.
    Raises: SettingsError for keys that are missing.
    """

    def __init__(
        self,
        address: str | None = None,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        shm_bytes: int | None = None,
        shm_full: str | None = None,
        settings: Shared | None = None,
    ) -> None:
        own = read(ClientSettings)
        self.address = address or own.callers_address
        curve = keys.to_broker(settings or own, self.address, keys.CALLER)
        size = own.shm_bytes if shm_bytes is None else shm_bytes
        self.lender = Lender(self.address, size, refuses=(shm_full or own.shm_full) == "refuse")
        self.stalls = 0
        self._curve = curve
        self._fresh = 0  # calls started since the last message
        self._heard = self._heard_before = 0  # messages, now and at the last look for a stall
        self._timeout_s = timeout_s
        self._ids = itertools.count(1)
        self._calls = Calls()
        self._open: dict[int, tuple[Done, Asked | None, Took | None]] = {}
        self._turn: asyncio.Handle | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._safety: asyncio.TimerHandle | None = None
        self._dealer: Dealer | None = None

    async def __aenter__(self) -> AsyncClient:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def open(self) -> None:
        """Take the socket. Does not wait for the broker; requests do.

        Raises: SettingsError for an address that is none.
        """
        self._loop = asyncio.get_running_loop()
        self._dealer = dial_as_caller(self.address, self._curve)
        self._fd = self._dealer.fileno()
        self._loop.add_reader(self._fd, self._safely, self._on_readable)
        self._safety = self._loop.call_later(SAFETY_S, self._safely, self._look_for_stall)

    async def close(self) -> None:
        """Withdraw what is open (its awaiters get BrokerUnreachable) and leave."""
        if self._dealer is None:
            return
        self._do(self._calls.leave())
        self._loop.remove_reader(self._fd)
        for handle in (self._turn, self._timer, self._safety):
            if handle:
                handle.cancel()
        self._turn = self._timer = self._safety = None
        self.lender.close()
        self._dealer.close()
        self._dealer = None

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
        """As `Client.infer`. Cancelling the awaiting task withdraws the request."""
        asked = sticking(ask_tensors(model, inputs, version, batched, self.lender), sticky, step)
        return tensors_of(await self.reply(asked, timeout_s))

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
        """As `Client.predict`."""
        asked = sticking(ask_body(model, body, version, self.lender), sticky, step)
        return body_of(await self.reply(asked, timeout_s))

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
        """As `Client.stream`. Leaving the iterator withdraws the request; `contextlib.aclosing` does so at
        once, where it is left early."""
        asked = sticking(ask_body(model, body, version, self.lender), sticky, step)
        is_first = True
        async with aclosing(self.replies(asked, timeout_s)) as replies:
            async for reply in replies:
                if is_first or reply.content or MORE in reply.meta:
                    yield body_of(reply)
                is_first = False

    def empty(self, shape: Sequence[int] | int, dtype: npt.DTypeLike = np.float32) -> Array:
        """An array in shared memory, to be filled and then sent as the one input of a request without a
        copy. It must not be changed before the answer is there. Where there is no room, an ordinary one."""
        return self.lender.empty(shape, dtype)

    async def models(self) -> list[dict[str, Any]]:
        """As `Client.models`."""
        return models_of(await self._query("models"))

    async def stats(self) -> dict[str, Any]:
        """As `Client.stats`."""
        return await self._query("stats")

    async def state(self) -> dict[str, Any]:
        """As `Client.state`."""
        return await self._query("state")

    async def command(
        self, verb: str, arguments: dict[str, Any], token: str, timeout_s: float = COMMAND_TIMEOUT_S
    ) -> dict[str, Any]:
        """As `Client.command`."""
        deadline = deadline_of(time.monotonic(), timeout_s)
        return await self._asked(command_of(next(self._ids), token, verb, arguments, deadline))

    async def reply(self, asked: Asked, timeout_s: float | None = None) -> Reply:
        """The raw reply, its content still packed: for those who pass it on. Raises as `infer`."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        id = self.start(asked, timeout_s, partial(_tell, future))
        return reply_of(await self._awaited(id, future))

    async def replies(self, asked: Asked, timeout_s: float | None = None) -> AsyncGenerator[Reply, None]:
        """The pieces of a reply as they come, and then the last of it (which is all of it where the model
        sends no pieces): for those who pass them on. `meta` of a piece has `more`. Asked when the first is
        waited for; leaving the iterator withdraws the request (`contextlib.aclosing` does so at once). As
        `stream` for those who take them slowly. Raises: as `infer`, between pieces too."""
        inflow = Inflow()
        id = self.start(asked, timeout_s, inflow.end, inflow.put)
        try:
            more = True
            while more:
                reply = reply_of(await inflow.next())
                more = MORE in reply.meta
                yield reply
        finally:
            self.abandon(id)

    def start(self, asked: Asked, timeout_s: float | None, done: Done, piece: Took | None = None) -> int:
        """Ask without a task that waits: `done` is called with the `Reply` or the error, once, from the event
        loop, and must not raise. Nor must `piece`, which is called before it with each piece of the reply, in
        order; without it the reply comes as one. Returns what `abandon` takes. Raises: as `infer` for a
        request that cannot be sent at all; `done` is not called then."""
        timeout_s = self._timeout_s if timeout_s is None else timeout_s
        now = time.monotonic()
        if piece:
            asked = streaming(asked)
        call = opened(next(self._ids), asked, deadline_of(now, timeout_s), self.lender)
        self._start(call, now, done, asked, piece)
        return call.id

    def abandon(self, id: int) -> None:
        """Withdraw what `start` began; its `done` and `piece` are not called any more."""
        if self._open.pop(id, None):
            self._do(self._calls.handle(Abandon(id), time.monotonic()))
            self._take_turn()

    async def _query(self, what: str) -> dict[str, Any]:
        return await self._asked(
            query_of(next(self._ids), what, deadline_of(time.monotonic(), QUERY_TIMEOUT_S))
        )

    async def _asked(self, call: Call) -> dict[str, Any]:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._start(call, time.monotonic(), partial(_tell, future))
        return answer_of(await self._awaited(call.id, future))

    def _start(
        self, call: Call, now: float, done: Done, asked: Asked | None = None, piece: Took | None = None
    ) -> None:
        if self._dealer is None:
            self.lender.release(call.id)
            raise BrokerUnreachable("the client is not open")
        self._open[call.id] = (done, asked, piece)
        self._calls.start(call, now)
        self._take_turn()
        self._fresh += 1
        if self._fresh >= SEND_AT:
            self._fresh = 0
            self._do(self._calls.wake(now))

    async def _awaited(self, id: int, future: asyncio.Future[Any]) -> Any:
        try:
            return await future
        finally:
            self.abandon(id)  # if it was cancelled: nobody waits any more

    # ---- the loop ----

    def _take_turn(self) -> None:
        if self._turn is None:
            self._turn = self._loop.call_soon(self._safely, self._on_turn)

    def _safely(self, step: Callable[[], None]) -> None:
        """Run it. A defect in it fails what is open, rather than leave it waiting for ever."""
        try:
            step()
        except Exception as error:
            _log.exception("defect in the client")
            self._calls = Calls()
            self.lender.close()
            for id in list(self._open):
                self._settle(id, InternalError(f"a defect in the client: {error!r}"))

    def _on_turn(self) -> None:
        self._turn = None
        self._fresh = 0
        self._do(self._calls.wake(time.monotonic()))
        if self._dealer and self._dealer.has_more:  # a send may have swallowed the signal
            self._drain()
        self._arm()

    def _on_readable(self) -> None:
        self._drain()
        self._arm()

    def _arm(self) -> None:
        """Make sure that a turn comes no later than the calls want one."""
        wake = self._calls.next_wake()
        if wake is None:
            return
        now = time.monotonic()
        if wake <= now:
            self._take_turn()
        elif self._timer is None or wake < self._timer_at:
            if self._timer:
                self._timer.cancel()
            self._timer_at = wake  # not `when()` of the timer: uvloop's has none if it is due within 0.5 ms
            self._timer = self._loop.call_later(wake - now, self._safely, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        if self._turn:
            self._turn.cancel()
        self._on_turn()

    def _drain(self) -> int:
        """Read until the socket would block, or DRAIN_MAX; returns how many messages were read."""
        now = time.monotonic()
        assert self._dealer
        count = drain(self._dealer, DRAIN_MAX, lambda message: self._hear(message, now), _log)
        self._heard += count
        if count == DRAIN_MAX:
            self._take_turn()
        return count

    def _hear(self, message: Message, now: float) -> None:
        self._do(self._calls.handle(message, now))

    def _do(self, actions: list[Action]) -> None:
        assert self._dealer
        carry_out(actions, self._calls, self._dealer, self.lender, self._settle, self._advance)

    def _settle(self, id: int, outcome: Any) -> None:
        done, asked, _ = self._open.pop(id, _NOBODY)
        done(self.lender.outcome(id, outcome, (asked.model, asked.version)) if asked else outcome)

    def _advance(self, id: int, reply: Reply) -> None:
        if piece := self._open.get(id, _NOBODY)[2]:
            piece(reply)

    def _look_for_stall(self) -> None:
        """A signal was lost if nothing was heard since the last look, and something is there now. (Where much
        is heard, something may well arrive between the two lines below.)"""
        self._safety = self._loop.call_later(SAFETY_S, self._safely, self._look_for_stall)
        is_quiet, self._heard_before = self._heard == self._heard_before, self._heard
        if is_quiet and self._turn is None and not _readable(self._fd) and self._drain():
            self.stalls += 1
            _log.warning("the socket's signal was lost", stalls=self.stalls)


def _tell(future: asyncio.Future[Any], outcome: Any) -> None:
    if not future.done():
        future.set_result(outcome)


def _readable(fd: int) -> bool:
    """Whether the event loop is about to be told of it."""
    return bool(poll_of(fd).poll(0))
