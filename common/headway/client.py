"""The blocking client, for programs that speak to the broker without HTTP.

    with Client() as client:
        outputs = client.infer("tiny", {"x": np.ones(16, np.float32)})

Any number of threads may use a client. One that waits for an answer drives the socket itself where it can,
and a thread of the client's own does when none waits (see `pump`). Either runs the callbacks of futures, so
those must not wait for this client. Requests that are submitted while it is busy leave in one message.

Knows: what users say and get. Must not know: sockets (that is `pump`), what to send and when (`calls`), what
is in shared memory (`lent`).
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from headway import keys, logs
from headway.body import Body
from headway.calls import Call
from headway.errors import HeadwayError, InternalError
from headway.inflow import ThreadInflow
from headway.lent import Lender
from headway.messages import Reply
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
from headway.pump import Pump
from headway.settings import ClientSettings, Shared, read
from headway.steps import Step
from headway.tensors import Array, Tensors

_log = logs.get("headway.client")
QUERY_TIMEOUT_S = 10.0


class Client:
    """A connection to one broker. `address` defaults to the broker in the run directory.

    A client does not survive a fork: open it in the child. Opening does not wait for the broker, and
    requests wait for it (until their timeout, at most 10 s of silence). A `tcp://` address needs keys; where
    they are, `settings` say, or else the environment and the file. Raises: SettingsError for an address
    that is none, or keys that are missing.
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
        self._timeout_s = timeout_s
        self._ids = itertools.count(1)
        self._pump = Pump(self.address, self.lender, curve)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

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
        """The model's outputs for one example: arrays without a batch dimension, by name.

        `batched`: every input has a leading batch dimension of the same size, and so has every output.
        The arrays are read-only views on the reply. `sticky`: while traffic is split between versions,
        requests with the same key get the same version. `step`: its place in a sequence, which one copy of a
        model that has sequences answers in the order of the requests. Raises: any of `headway.errors`.
        """
        asked = sticking(ask_tensors(model, inputs, version, batched, self.lender), sticky, step)
        return tensors_of(self._reply(asked, timeout_s))

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
        """The answer to a raw body, which the model's own `preprocess` and `postprocess` read and write.

        Raises: any of `headway.errors`.
        """
        asked = sticking(ask_body(model, body, version, self.lender), sticky, step)
        return body_of(self._reply(asked, timeout_s))

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
        """The answer to a raw body in pieces, each as soon as the model has sent it, and what it returned as
        the last; the whole answer at once if the model sends no pieces.

        The request is sent when the first piece is asked for, and `timeout_s` is for all of them. Leaving the
        iterator withdraws the request; the model is not interrupted. Pieces that are not taken wait in
        memory, at most 64 MiB of them: then the request is withdrawn, and QueueFull raised after the last.
        Once a piece has come, a lost worker is a WorkerLost: the request is not run again. Raises: any of
        `headway.errors`, between pieces too.
        """
        asked = streaming(sticking(ask_body(model, body, version, self.lender), sticky, step))
        inflow, call = ThreadInflow(), self._call(asked, timeout_s)
        try:
            self._pump.start(call, (asked.model, asked.version), inflow.end, inflow.put)
            reply = reply_of(inflow.next())
            yield body_of(reply)
            while MORE in reply.meta:
                reply = reply_of(inflow.next())
                if reply.content or MORE in reply.meta:
                    yield body_of(reply)
        finally:
            self._pump.abandon(call.id)

    @overload
    def submit(
        self,
        model: str,
        inputs: Inputs,
        *,
        version: str = ...,
        timeout_s: float | None = ...,
        batched: bool = ...,
        sticky: str = ...,
        step: Step | None = ...,
    ) -> Future[Tensors]: ...
    @overload
    def submit(
        self,
        model: str,
        inputs: Body,
        *,
        version: str = ...,
        timeout_s: float | None = ...,
        sticky: str = ...,
        step: Step | None = ...,
    ) -> Future[Body]: ...

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
        """`infer` (or `predict`, for a `Body`) without waiting; cancelling withdraws the request."""
        if isinstance(inputs, Body):
            asked = sticking(ask_body(model, inputs, version, self.lender), sticky, step)
            return self._submit(asked, timeout_s, lambda o: body_of(reply_of(o)))
        asked = sticking(ask_tensors(model, inputs, version, batched, self.lender), sticky, step)
        return self._submit(asked, timeout_s, lambda o: tensors_of(reply_of(o)))

    def empty(self, shape: Sequence[int] | int, dtype: npt.DTypeLike = np.float32) -> Array:
        """An array in shared memory, to be filled and then sent as the one input of a request without a
        copy. It must not be changed before the answer is there. Where there is no room, an ordinary one."""
        return self.lender.empty(shape, dtype)

    def models(self, timeout_s: float = QUERY_TIMEOUT_S) -> list[dict[str, Any]]:
        """Every version of every model, with its state; see PROTOCOL.md, `models`."""
        return models_of(self._query("models", timeout_s))

    def stats(self, timeout_s: float = QUERY_TIMEOUT_S) -> dict[str, Any]:
        """The broker's counters and histograms; see PROTOCOL.md, `stats`."""
        return self._query("stats", timeout_s)

    def state(self, timeout_s: float = QUERY_TIMEOUT_S) -> dict[str, Any]:
        """Everything the broker knows of models, workers and devices; see PROTOCOL.md, section 9."""
        return self._query("state", timeout_s)

    def command(
        self, verb: str, arguments: dict[str, Any], token: str, timeout_s: float = COMMAND_TIMEOUT_S
    ) -> dict[str, Any]:
        """What an operator orders; see PROTOCOL.md, section 9. Raises: Unauthorized; and others."""
        deadline = deadline_of(time.monotonic(), timeout_s)
        return answer_of(self._pump.ask(command_of(next(self._ids), token, verb, arguments, deadline), None))

    def close(self) -> None:
        """Withdraw what is open (its futures raise BrokerUnreachable) and leave."""
        self._pump.close()

    def _query(self, what: str, timeout_s: float) -> dict[str, Any]:
        call = query_of(next(self._ids), what, deadline_of(time.monotonic(), timeout_s))
        return answer_of(self._pump.ask(call, None))

    def _reply(self, asked: Asked, timeout_s: float | None) -> Reply:
        call = self._call(asked, timeout_s)
        return reply_of(self._pump.ask(call, (asked.model, asked.version)))

    def _submit(self, asked: Asked, timeout_s: float | None, convert: Convert) -> Future[Any]:
        call = self._call(asked, timeout_s)
        future = _Future(self._pump, call.id, convert)
        self._pump.start(call, (asked.model, asked.version), future.settle)
        return future

    def _call(self, asked: Asked, timeout_s: float | None) -> Call:
        timeout_s = self._timeout_s if timeout_s is None else timeout_s
        deadline = deadline_of(time.monotonic(), timeout_s)
        return opened(next(self._ids), asked, deadline, self.lender)


Convert = Callable[[Any], Any]


class _Future(Future[Any]):
    """A future whose cancellation withdraws the request from the broker's queue. `convert` makes its result
    of the outcome, or raises."""

    def __init__(self, pump: Pump, id: int, convert: Convert) -> None:
        super().__init__()
        self._pump = pump
        self._id = id
        self._convert = convert

    def cancel(self) -> bool:
        cancelled = super().cancel()
        if cancelled and self._pump.abandon(self._id):
            self.set_running_or_notify_cancel()  # or `concurrent.futures.wait` waits for ever
        return cancelled

    def settle(self, outcome: Any) -> None:
        """The call's outcome; a second one counts if the first one's telling was interrupted."""
        if self.done() and not self.cancelled():
            return
        if not self.running() and not self.set_running_or_notify_cancel():
            return
        try:
            result = self._convert(outcome)
        except HeadwayError as error:
            self.set_exception(error)
        except Exception as error:
            _log.exception("defect in reading a reply")
            self.set_exception(InternalError(f"a defect in the client: {error!r}"))
        else:
            self.set_result(result)
