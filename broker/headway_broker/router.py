"""The broker's one loop: two sockets, a clock, and the scheduler that they feed.

Knows: ZeroMQ, time, the log. Must not know: why anything is sent.

Each turn drains both sockets (bounded, so that one flood cannot starve the other), gives every message
to the scheduler, wakes it once, and sends what it says. Nothing blocks: a peer that is gone is reported
to the scheduler, and for one whose pipe is full the messages are kept, in order, and tried again, up to a
bound for each peer.

Under systemd it is ready when both sockets are bound, and each turn feeds the watchdog.

One broker per run directory: it holds a lock beside its sockets, because a second bind on an `ipc` path
succeeds and silently takes the path away.
"""

from __future__ import annotations

import fcntl
import math
import os
import secrets
import signal
import time
from collections import deque
from pathlib import Path
from types import FrameType

import zmq

from headway import link, logs, shm
from headway.errors import LocalProtocolError, RemoteProtocolError, SettingsError
from headway.messages import Message
from headway.notify import Notifier
from headway.settings import BrokerSettings
from headway.wire import decode, encode
from headway_broker.events import (
    Action,
    CallerGone,
    Event,
    FromCaller,
    FromWorker,
    Note,
    Refused,
    ToCaller,
    ToWorker,
    WorkerGone,
)
from headway_broker.scheduler import Scheduler

DRAIN_MAX = 1000
BACKLOG_MAX = 1000
RETRY_S = 0.01
SWEEP_S = 30.0
STATUS_S = 5.0

_log = logs.get("headway.broker")


class BrokerLocked(Exception):
    """Another broker holds the run directory."""


class Router:
    """Runs one scheduler. `open` takes lock and sockets, `run` runs until `stop`, `close` gives them back."""

    def __init__(
        self, settings: BrokerSettings, scheduler: Scheduler, notifier: Notifier | None = None
    ) -> None:
        self._settings = settings
        self._scheduler = scheduler
        self._notifier = notifier or Notifier()
        self._wait_s_max = self._notifier.wait_s or math.inf
        self._status_at = 0.0 if self._notifier.is_heard else math.inf
        self._stopping = False
        self._sweep_at = 0.0
        self._backlog: dict[tuple[zmq.Socket[bytes], bytes], deque[bytes]] = {}

    def open(self) -> None:
        """Raises: BrokerLocked; SettingsError for an address that cannot be bound; OSError for a run
        directory that cannot be made."""
        self._listen_to_signals()  # first: from here on a SIGTERM must not leave anything behind
        run_dir = self._settings.run_dir
        run_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = _lock(run_dir / "broker.lock")
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._callers = self._bound(self._settings.callers_address)
        self._workers = self._bound(self._settings.workers_address)

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT."""
        poller = zmq.Poller()
        for source in (self._callers, self._workers, self._wakeup):
            poller.register(source, zmq.POLLIN)
        self._notifier.ready(self._status())
        while not self._stopping:
            self._turn(poller)
        self._notifier.stopping()

    def close(self) -> None:
        """Leave nothing behind."""
        self._callers.close()
        self._workers.close()
        self._context.term()
        for address in (self._settings.callers_address, self._settings.workers_address):
            Path(address.removeprefix("ipc://")).unlink(missing_ok=True)
        self._sweep(time.monotonic())
        (self._settings.run_dir / "broker.lock").unlink(missing_ok=True)
        os.close(self._lock)

    def _bound(self, address: str) -> zmq.Socket[bytes]:
        try:
            return link.router(self._context, address)
        except zmq.ZMQError as error:
            raise SettingsError(f"run_dir: cannot listen at {address}: {error}") from None

    def _listen_to_signals(self) -> None:
        self._wakeup, alarm = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(alarm)  # a signal ends the poll at once
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._stopping = True

    def _turn(self, poller: zmq.Poller) -> None:
        ready = dict(poller.poll(self._wait_ms(time.monotonic())))
        now = time.monotonic()
        if self._backlog:
            self._send_backlog(now)
        if self._workers in ready:  # first: results free credit for the requests that follow
            self._drain(self._workers, FromWorker, "workers", now)
        if self._callers in ready:
            self._drain(self._callers, FromCaller, "callers", now)
        for action in self._scheduler.wake(now):
            self._do(action, now)
        if now >= self._sweep_at:
            self._sweep(now)
        self._notifier.watchdog(now)
        if now >= self._status_at:
            self._status_at = now + STATUS_S
            self._notifier.status(self._status())

    def _wait_ms(self, now: float) -> int | None:
        wake = self._scheduler.next_wake()
        bound = now + (RETRY_S if self._backlog else self._wait_s_max)
        return link.wait_ms(bound if wake is None else min(wake, bound), now)

    def _status(self) -> str:
        scheduler = self._scheduler
        sides = (len(scheduler.catalog.specs), len(scheduler.roster.workers), len(scheduler.ledger.callers))
        return "versions of models: {}, workers: {}, callers: {}".format(*sides)

    def _sweep(self, now: float) -> None:
        """Remove the shared memory of callers that died."""
        self._sweep_at = now + SWEEP_S
        if count := shm.sweep(self._settings.run_dir / shm.FOLDER):
            _log.info("segments removed, their owners are gone", count=count)

    def _drain(
        self, socket: zmq.Socket[bytes], event: type[FromCaller] | type[FromWorker], side: str, now: float
    ) -> None:
        for _ in range(DRAIN_MAX):
            received = link.receive_from(socket)
            if received is None:
                return
            identity, *frames = received
            try:
                if len(frames) != 1:
                    raise RemoteProtocolError(f"a message is one frame, not {len(frames)}")
                self._scheduler.handle(event(identity, decode(frames[0])), now)
            except RemoteProtocolError as error:
                self._scheduler.handle(Refused(side), now)
                _log.warning("message refused", side=side, peer=identity.hex()[:16], reason=str(error))

    def _do(self, action: Action, now: float) -> None:
        match action:
            case ToCaller(caller, message):
                self._send(self._callers, caller, message, now)
            case ToWorker(worker, message):
                self._send(self._workers, worker, message, now)
            case Note(event, facts):
                _log.info(event, **facts)

    def _send(self, socket: zmq.Socket[bytes], peer: bytes, message: Message, now: float) -> None:
        try:
            frame = encode(message)
        except LocalProtocolError as error:
            _log.error("message not sent", peer=peer.hex()[:16], reason=str(error))
            return
        key = (socket, peer)
        if key not in self._backlog and self._send_frame(socket, peer, frame, now):
            return
        waiting = self._backlog.setdefault(key, deque())
        waiting.append(frame)
        if len(waiting) > BACKLOG_MAX:
            del self._backlog[key]
            self._gone(socket, peer, now, "it does not read what it is sent", dead=False)

    def _send_frame(self, socket: zmq.Socket[bytes], peer: bytes, frame: bytes, now: float) -> bool:
        """False when the peer's pipe is full."""
        try:
            link.send_to(socket, peer, frame)
        except zmq.Again:
            return False
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            self._gone(socket, peer, now, "its connection is gone")
        return True

    def _send_backlog(self, now: float) -> None:
        for key, waiting in list(self._backlog.items()):
            while waiting and self._send_frame(*key, waiting[0], now):
                waiting.popleft()
            if not waiting:
                del self._backlog[key]

    def _gone(
        self, socket: zmq.Socket[bytes], peer: bytes, now: float, reason: str, dead: bool = True
    ) -> None:
        gone: Event = CallerGone(peer) if socket is self._callers else WorkerGone(peer, reason, dead)
        self._scheduler.handle(gone, now)


def fresh_nonce() -> bytes:
    """What tells this start of the broker from every other."""
    return secrets.token_bytes(8)


def _lock(path: Path) -> int:
    while True:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise BrokerLocked(f"another broker runs in {path.parent}") from None
        if path.exists() and path.stat().st_ino == os.fstat(lock).st_ino:
            return lock
        os.close(lock)  # its last owner removed the file between our open and our lock
