"""The blocking client, for programs that speak to the broker without HTTP.

    with Client() as client:
        outputs = client.infer("tiny", {"x": np.ones(16, np.float32)})

One thread of its own holds the socket and the `Calls`; any number of threads may use a client. Requests
that are submitted while that thread is busy leave in one message. It also runs the callbacks of futures,
so those must not wait for this client.

Invariant: whoever takes a future out of `_futures` settles it (or tells its waiters that it is
cancelled), once; when the thread has ended, the dict is empty.

Knows: threads, the socket's loop, futures. Must not know: what to send and when (that is `calls`), what is in
shared memory (`lent`). Over 300 lines: half of them are the signatures and docstrings that users read.
"""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, overload

import numpy as np
import numpy.typing as npt
import zmq

from headway import link, logs
from headway.body import Body
from headway.calls import Abandon, Action, Call, Calls, Event, Release, Send, Settle, Unsent
from headway.errors import BrokerUnreachable, HeadwayError, InternalError
from headway.inbox import drain
from headway.lent import Lender
from headway.messages import Reply
from headway.outgoing import (
    DEFAULT_TIMEOUT_S,
    Asked,
    Inputs,
    answer_of,
    ask_body,
    ask_tensors,
    body_of,
    call_of,
    deadline_of,
    models_of,
    query_of,
    reply_of,
    tensors_of,
    with_reply_room,
)
from headway.settings import ClientSettings, read
from headway.tensors import Array, Tensors
from headway.wire import encode

_log = logs.get("headway.client")
DRAIN_MAX = 1000
QUERY_TIMEOUT_S = 10.0
AFTER_DEFECT_S = 0.1


class Client:
    """A connection to one broker. `address` defaults to the broker in the run directory.

    A client does not survive a fork: open it in the child. Opening does not wait for the broker, and
    requests wait for it (until their timeout, at most 10 s of silence). Raises: SettingsError for an
    address that is none.
    """

    def __init__(
        self,
        address: str | None = None,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        shm_bytes: int | None = None,
    ) -> None:
        settings = read(ClientSettings)
        self.address = address or settings.callers_address
        self.lender = Lender(self.address, settings.shm_bytes if shm_bytes is None else shm_bytes)
        self._timeout_s = timeout_s
        self._ids = itertools.count(1)
        self._pid = os.getpid()
        self._events: deque[Event] = deque()
        self._signalled = False
        self._closing = False
        self._ended = False
        self._lock = threading.Lock()  # nobody writes to the signal once it is closed
        self._futures: dict[int, _Future] = {}
        self._calls = Calls()
        self._context, self._socket = link.caller(self.address)
        self._signal = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._thread = threading.Thread(target=self._run, name="headway-client", daemon=True)
        self._thread.start()

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
    ) -> Tensors:
        """The model's outputs for one example: arrays without a batch dimension, by name.

        `batched`: every input has a leading batch dimension of the same size, and so has every output.
        The arrays are read-only views on the reply. Raises: any of `headway.errors`.
        """
        asked = ask_tensors(model, inputs, version, batched, self.lender)
        return tensors_of(self._wait(self._submit(asked, timeout_s, reply_of)))

    def predict(
        self, model: str, body: Body | bytes, *, version: str = "", timeout_s: float | None = None
    ) -> Body:
        """The answer to a raw body, which the model's own `preprocess` and `postprocess` read and write.

        Raises: any of `headway.errors`.
        """
        return body_of(
            self._wait(self._submit(ask_body(model, body, version, self.lender), timeout_s, reply_of))
        )

    @overload
    def submit(
        self,
        model: str,
        inputs: Inputs,
        *,
        version: str = ...,
        timeout_s: float | None = ...,
        batched: bool = ...,
    ) -> Future[Tensors]: ...
    @overload
    def submit(
        self, model: str, inputs: Body, *, version: str = ..., timeout_s: float | None = ...
    ) -> Future[Body]: ...

    def submit(
        self,
        model: str,
        inputs: Inputs | Body,
        *,
        version: str = "",
        timeout_s: float | None = None,
        batched: bool = False,
    ) -> Future[Any]:
        """`infer` (or `predict`, for a `Body`) without waiting; cancelling withdraws the request."""
        if isinstance(inputs, Body):
            return self._submit(
                ask_body(model, inputs, version, self.lender), timeout_s, lambda o: body_of(reply_of(o))
            )
        asked = ask_tensors(model, inputs, version, batched, self.lender)
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

    def close(self) -> None:
        """Withdraw what is open (its futures raise BrokerUnreachable) and leave."""
        if self._closing or os.getpid() != self._pid:
            return
        self._closing = True
        self._wake_thread()
        if threading.current_thread() is not self._thread:  # it is in a future's callback
            self._thread.join()

    def _query(self, what: str, timeout_s: float) -> dict[str, Any]:
        call = query_of(next(self._ids), what, deadline_of(time.monotonic(), timeout_s))
        answer: dict[str, Any] = self._wait(self._start(call, answer_of))
        return answer

    def _submit(self, asked: Asked, timeout_s: float | None, convert: Convert) -> _Future:
        timeout_s = self._timeout_s if timeout_s is None else timeout_s
        deadline = deadline_of(time.monotonic(), timeout_s)
        asked = with_reply_room(asked, self.lender)
        call = call_of(next(self._ids), asked, deadline)
        if not asked.lent:
            return self._start(call, convert)
        self.lender.keep(call.id, asked.lent)
        try:
            return self._start(call, convert)
        except BaseException:
            self.lender.release(call.id)
            raise

    def _start(self, call: Call, convert: Convert) -> _Future:
        if os.getpid() != self._pid:
            raise BrokerUnreachable("this client was opened before a fork; open one in the child")
        if self._closing:
            raise BrokerUnreachable("the client was closed")
        future = _Future(self, call, convert)
        self._futures[call.id] = future
        self._tell(call)
        if self._ended:  # meanwhile: nobody else may have seen it
            self._settle_all(BrokerUnreachable, "the client was closed")
        return future

    def _abandon(self, id: int) -> None:
        future = self._futures.pop(id, None)
        if future is not None:
            future.set_running_or_notify_cancel()  # or `concurrent.futures.wait` waits for ever
            if os.getpid() == self._pid:
                self._tell(Abandon(id))

    def _tell(self, event: Event) -> None:
        self._events.append(event)
        if not self._signalled:  # PERF: one write of 1 µs for many submits, not one each
            self._wake_thread()

    def _wake_thread(self) -> None:
        self._signalled = True
        with self._lock:
            if not self._ended:
                os.eventfd_write(self._signal, 1)

    def _wait(self, future: _Future) -> Any:
        try:
            return future.result()
        except BaseException:
            future.cancel()  # a KeyboardInterrupt withdraws the request
            raise

    # ---- the thread ----

    def _run(self) -> None:
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        poller.register(self._signal, zmq.POLLIN)
        try:
            while not self._closing:
                self._turn(poller)
            self._do(self._calls.leave())
        finally:
            self._end()

    def _turn(self, poller: zmq.Poller) -> None:
        """A step. A defect in it fails what is open, rather than leave it waiting for ever."""
        try:
            self._step(poller)
        except Exception as error:
            _log.exception("defect in the client")
            self._calls = Calls()
            self.lender.close()
            self._settle_all(InternalError, f"a defect in the client: {error!r}")
            time.sleep(AFTER_DEFECT_S)  # or one that comes at every step would fill the log

    def _end(self) -> None:
        self._closing = True
        with self._lock:
            self._ended = True
            os.close(self._signal)
        self._settle_all(BrokerUnreachable, "the client was closed")
        self.lender.close()
        self._socket.close()
        self._context.term()  # waits for the last message, at most link.LINGER_MS

    def _step(self, poller: zmq.Poller) -> None:
        wake = self._calls.next_wake()
        ready = dict(poller.poll(link.wait_ms(wake, time.monotonic())))
        if self._signal in ready:
            os.eventfd_read(self._signal)
        self._signalled = False  # before the deque is read: a later event signals again
        now = time.monotonic()
        while self._events:
            self._do(self._calls.handle(self._events.popleft(), now))
        if self._socket in ready:
            drain(self._socket, DRAIN_MAX, lambda message: self._do(self._calls.handle(message, now)), _log)
        self._do(self._calls.wake(now))

    def _do(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Settle(id=id, outcome=outcome):
                    self._settle(id, outcome)
                case Release(id=id):
                    self.lender.release(id)
                case Send(message=message):
                    if not link.send(self._socket, encode(message)):
                        self._calls.handle(Unsent(message), time.monotonic())

    def _settle(self, id: int, outcome: Any) -> None:
        future = self._futures.pop(id, None)
        if future is None or not future.set_running_or_notify_cancel():
            return
        try:
            if isinstance(outcome, HeadwayError):
                raise outcome
            if isinstance(outcome, Reply):
                outcome = self.lender.received(id, outcome, future.model)
            result = future.convert(outcome)
        except HeadwayError as error:
            future.set_exception(error)
        except Exception as error:
            _log.exception("defect in reading a reply")
            future.set_exception(InternalError(f"a defect in the client: {error!r}"))
        else:
            future.set_result(result)

    def _settle_all(self, error: type[HeadwayError], reason: str) -> None:
        for id in list(self._futures):
            self._settle(id, error(reason))


Convert = Callable[[Any], Any]


class _Future(Future[Any]):
    """A future whose cancellation withdraws the request from the broker's queue."""

    def __init__(self, client: Client, call: Call, convert: Convert) -> None:
        super().__init__()
        self._client = client
        self._id = call.id
        self.model = (call.model, call.version)
        self.convert = convert

    def cancel(self) -> bool:
        cancelled = super().cancel()
        if cancelled:
            self._client._abandon(self._id)
        return cancelled
