"""A tiny broker for the tests of the clients: real sockets, a thread of its own, no scheduler.

What it does with a request is said by the name of the model:

    echo      answers with the tensors as they came; a body with its bytes
    error-N   answers with error N, "on demand"
    hold      does not answer, until a `release` comes: that answers them all, and itself
    garbage   answers with bytes that are no tensors
    text      answers with success and a string, which no reply may have
    pieces    answers with three pieces of the bytes, then with the rest; pieces-N ends with error N instead
    flood     answers with 80 pieces of a MiB, then with the bytes
    begin     sends one piece, and is held then
    noise     sends frames that are no messages, then answers as `echo` does
"""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import zmq

from headway import link
from headway.errors import Unauthorized
from headway.messages import (
    OK,
    Answer,
    Cancels,
    Command,
    Heartbeat,
    Message,
    Ping,
    Query,
    Replies,
    Reply,
    Request,
    Requests,
)
from headway.tensors import unpack
from headway.wire import decode, encode

NOISE = [
    b"",
    b"HTTP/1.1 400 Bad Request\r\n\r\n",
    encode(Ping()),
    encode(Heartbeat(b"x"))[:-1],
    b"\x93\xa3HW1\x10\x91\xc0",
]
M = TypeVar("M")


class EchoBroker:
    """`start` and `stop` as often as you like: every start is a new broker on the same address."""

    def __init__(self, folder: Path) -> None:
        self.address = f"ipc://{folder}/broker.sock"
        self.answers: dict[str, dict[str, Any]] = {
            "models": {"models": [{"name": "echo"}]},
            "stats": {"n": 1},
        }
        self._changed = threading.Condition()
        self._seen: list[Message] = []
        self._held: list[Request] = []
        self._thread: threading.Thread | None = None

    def start(self) -> EchoBroker:
        self._stop, self._signal = os.pipe()
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = link.router(self._context, self.address)
        self._nonce = secrets.token_bytes(8)
        self._thread = threading.Thread(target=self._run, name="echo-broker")
        self._thread.start()
        return self

    def stop(self) -> None:
        if self._thread is None:
            return
        os.write(self._signal, b"x")
        self._thread.join()
        self._thread = None
        os.close(self._stop)
        os.close(self._signal)

    def restart(self) -> None:
        self.stop()
        self.start()

    def seen(self, kind: type[M]) -> list[M]:
        """All messages of one kind, of all starts."""
        with self._changed:
            return [m for m in self._seen if isinstance(m, kind)]

    def requests(self) -> list[Request]:
        return [r for m in self.seen(Requests) for r in m.requests]

    def cancelled(self) -> set[int]:
        return {id for m in self.seen(Cancels) for id in m.ids}

    def wait_for(self, true: Callable[[], Any], timeout_s: float = 5.0) -> None:
        """Wait until it is true, looking whenever a message came."""
        until = time.monotonic() + timeout_s
        with self._changed:
            while not true():
                left_s = until - time.monotonic()
                assert left_s > 0, f"not true after {timeout_s} s; seen: {self._seen}"
                self._changed.wait(left_s)

    def _run(self) -> None:
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        poller.register(self._stop, zmq.POLLIN)
        while self._stop not in dict(poller.poll()):
            caller, frame = self._socket.recv_multipart()
            message = decode(frame)
            with self._changed:
                self._seen.append(message)
                self._changed.notify_all()
            for reply in self._replies(message):
                with suppress(zmq.ZMQError):  # the caller may have left
                    self._socket.send_multipart((caller, reply))
        self._socket.close()
        self._context.term()

    def _replies(self, message: Message) -> list[bytes]:
        match message:
            case Ping():
                return [encode(Heartbeat(self._nonce))]
            case Query(id=id, what=what):
                return [encode(Answer(id, self.answers[what]))]
            case Command(id=id, token=token, verb=verb, arguments=arguments):
                refused = {"error": "no", "code": Unauthorized.code}
                answer = {"verb": verb, **arguments} if token == "t" else refused
                return [encode(Answer(id, answer))]
            case Requests(requests=requests):
                noise = NOISE if any(r.model == "noise" for r in requests) else []
                begun = [Reply(r.id, OK, b"begun", {"more": 1}) for r in requests if r.model == "begin"]
                replies = begun + _replies(self._answerable(requests))
                if any(r.model == "flood" for r in requests):  # too large for one message
                    return [encode(Replies([reply])) for reply in replies]
                return [*noise, encode(Replies(replies))]
        return []

    def _answerable(self, requests: list[Request]) -> list[Request]:
        self._held += [r for r in requests if r.model in ("hold", "begin")]
        answerable = [r for r in requests if r.model not in ("hold", "begin")]
        if any(r.model == "release" for r in requests):
            answerable, self._held = self._held + answerable, []
        return answerable


def _replies(requests: list[Request]) -> list[Reply]:
    return [reply for request in requests for reply in [*_pieces(request), _reply(request)]]


def _pieces(request: Request) -> list[Reply]:
    name = request.model.partition("-")[0]
    if name not in ("pieces", "flood") or request.options.get("stream") != "true":
        return []
    (body,) = unpack(request.tensors).values()
    contents = [bytes([byte]) for byte in body[:3]] if name == "pieces" else [bytes(1 << 20)] * 80
    return [Reply(request.id, OK, content, {"content_type": "x/y", "more": 1}) for content in contents]


def _reply(request: Request) -> Reply:
    name, _, code = request.model.partition("-")
    if name == "pieces" and not code and request.options.get("stream") == "true":
        (body,) = unpack(request.tensors).values()
        return Reply(request.id, OK, body[3:].tobytes(), {"content_type": "x/y"})
    if name == "error" or code:
        return Reply(request.id, int(code), "on demand", {"retry_after_ms": 250})
    if name == "garbage":
        return Reply(request.id, OK, b"\xff" * 20, {})
    if name == "text":
        return Reply(request.id, OK, "a string", {})
    if request.options.get("form") == "body":
        (part,) = unpack(request.tensors).values()
        return Reply(request.id, OK, part.tobytes(), {"content_type": request.options["types"]["body"]})
    return Reply(request.id, OK, request.tensors, {})
