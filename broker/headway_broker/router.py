"""The broker's one loop: its sockets, a clock, and the scheduler that they feed.

Knows: time, the log. Must not know: why anything is sent, how a peer is reached (`sockets`).

Each turn hears what waits at all sockets (bounded, so that one flood cannot starve the others), gives every
message to the scheduler, wakes it once, and sends what it says; replies leave once all workers are heard.
Nothing blocks.

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
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

from headway import logs, shm
from headway.errors import RemoteProtocolError, SettingsError
from headway.messages import Batches, Message, Results
from headway.notify import Notifier
from headway.settings import BrokerSettings
from headway.settling import settle_to_serve
from headway.wire import decode
from headway_broker.doors import Door
from headway_broker.events import (
    Action,
    CallerGone,
    Event,
    FromCaller,
    FromWorker,
    Note,
    ReadStore,
    Refused,
    Save,
    ToCaller,
    ToWorker,
    WorkerGone,
)
from headway_broker.inlining import Inliner, from_elsewhere
from headway_broker.scheduler import Scheduler
from headway_broker.sockets import CALLERS, WORKERS, Sockets, is_remote, shown
from headway_broker.statefile import StateFile
from headway_broker.storereader import StoreReader
from headway_broker.waiter import Waiter

DRAIN_MAX = 1000
BACKLOG_MAX = 1000
RETRY_S = 0.01
SWEEP_S = 30.0
SAVE_AGAIN_S = 2.0
STATUS_S = 5.0

_log = logs.get("headway.broker")


class BrokerLocked(Exception):
    """Another broker holds the run directory."""


class Router:
    """Runs one scheduler. `open` takes lock and sockets, `run` runs until `stop`, `close` gives them back."""

    def __init__(
        self,
        settings: BrokerSettings,
        scheduler: Scheduler,
        state: StateFile,
        notifier: Notifier | None = None,
    ) -> None:
        self._settings = settings
        self._scheduler = scheduler
        self._state = state
        self._store = StoreReader(settings.model_store, settings.store_watch_s)
        self._notifier = notifier or Notifier()
        self._wait_s_max = self._notifier.wait_s or math.inf
        self._status_at = 0.0 if self._notifier.is_heard else math.inf
        self._stopping = False
        self._is_flooded = False  # more waits at a door than is read in a turn
        self._sweep_at = 0.0
        self._unsaved: dict[str, Any] | None = None  # orders that could not be kept
        self._save_at = math.inf
        self._sockets = Sockets(settings, BACKLOG_MAX, self._gone)
        self._inliner = Inliner(settings.run_dir / shm.FOLDER)

    def open(self) -> None:
        """Raises: BrokerLocked; SettingsError for an address that cannot be bound, or keys that are not as
        they must be; OSError for a run directory that cannot be made."""
        self._listen_to_signals()  # first: from here on a SIGTERM must not leave anything behind
        run_dir = self._settings.run_dir
        run_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = _lock(run_dir / "broker.lock")
        try:
            self._sockets.open()
        except SettingsError:
            self._unlock()
            raise
        self._store.start()

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT."""
        settle_to_serve()
        waiter = Waiter()
        for fd in (self._wakeup, self._store.fd, *self._sockets.fds):
            waiter.add(fd)
        self._notifier.ready(self._status())
        while not self._stopping:
            self._turn(waiter)
        self._notifier.stopping()

    def close(self) -> None:
        """Leave nothing behind."""
        self._store.close()
        self._sockets.close()
        self._inliner.close()
        self._sweep(time.monotonic())
        self._unlock()

    def _unlock(self) -> None:
        (self._settings.run_dir / "broker.lock").unlink(missing_ok=True)
        os.close(self._lock)

    def _listen_to_signals(self) -> None:
        self._wakeup, alarm = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(alarm)  # a signal ends the poll at once
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        signal.signal(signal.SIGHUP, self._on_reload)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._stopping = True

    def _on_reload(self, number: int, frame: FrameType | None) -> None:
        with suppress(BlockingIOError):
            os.read(self._wakeup, 64)
        self._store.ask()

    def _turn(self, waiter: Waiter) -> None:
        ready = waiter.wait(self._wait_s(time.monotonic()))
        now = time.monotonic()
        if self._sockets.backlog:
            self._sockets.send_backlog(now)
        self._is_flooded = False
        for door in self._sockets.ready(ready, now):
            self._drain(door, now)
            if door.side == WORKERS:
                for answer in self._scheduler.answers():
                    self._do(answer, now)
        if self._store.fd in ready:
            for read in self._store.take():
                self._scheduler.handle(read, now)
        for action in self._scheduler.wake(now):
            self._do(action, now)
        if self._unsaved and now >= self._save_at:
            self._save(self._unsaved, now)
        if now >= self._sweep_at:
            self._sweep(now)
        self._notifier.watchdog(now)
        if now >= self._status_at:
            self._status_at = now + STATUS_S
            self._notifier.status(self._status())

    def _wait_s(self, now: float) -> float | None:
        if self._is_flooded or self._sockets.has_more:
            return 0.0
        wake = self._scheduler.next_wake()
        bound = min(now + (RETRY_S if self._sockets.backlog else self._wait_s_max), self._save_at)
        until = bound if wake is None else min(wake, bound)
        return None if until == math.inf else max(until - now, 0.0)

    def _status(self) -> str:
        scheduler = self._scheduler
        sides = (len(scheduler.catalog.specs), len(scheduler.roster.workers), len(scheduler.ledger.callers))
        return "versions of models: {}, workers: {}, callers: {}".format(*sides)

    def _sweep(self, now: float) -> None:
        """Remove the shared memory of callers that died."""
        self._sweep_at = now + SWEEP_S
        if count := shm.sweep(self._settings.run_dir / shm.FOLDER):
            _log.info("segments removed, their owners are gone", count=count)
        self._inliner.tidy()

    def _drain(self, door: Door, now: float) -> None:
        event = FromCaller if door.side == CALLERS else FromWorker
        for _ in range(DRAIN_MAX):
            received = self._sockets.receive(door, now)
            if received is None:
                return
            identity, *frames = received
            try:
                if len(frames) != 1:
                    raise RemoteProtocolError(f"a message is one frame, not {len(frames)}")
                message = decode(frames[0])
                if door.far:
                    message = from_elsewhere(message)
                self._scheduler.handle(event(identity, message), now)
            except RemoteProtocolError as error:
                self._scheduler.handle(Refused(door.side), now)
                _log.warning("message refused", side=door.side, peer=shown(identity), reason=str(error))
            if not door.has_more:  # PERF: to look again would find nothing nearly always; the next turn does
                return
        self._is_flooded = True

    def _do(self, action: Action, now: float) -> None:
        match action:
            case ToCaller():
                self._sockets.send(CALLERS, action.caller, action.message, now)
            case ToWorker():
                self._to_worker(action.worker, action.message, now)
            case Note(event, facts):
                _log.info(event, **facts)
            case ReadStore():
                self._store.ask()
            case Save(document):
                self._save(document, now)

    def _save(self, document: dict[str, Any], now: float) -> None:
        self._unsaved, self._save_at = None, math.inf
        try:
            self._state.write(document)
        except OSError as error:  # a full disk may have room again
            self._unsaved, self._save_at = document, now + SAVE_AGAIN_S
            _log.error(
                "orders not kept: a restart would forget them", path=self._state.path, reason=str(error)
            )

    def _to_worker(self, worker: bytes, message: Message, now: float) -> None:
        if not isinstance(message, Batches) or not is_remote(worker):
            self._sockets.send(WORKERS, worker, message, now)
            return
        messages, results = self._inliner.outgoing(message.batches)
        for inlined in messages:
            self._sockets.send(WORKERS, worker, inlined, now)
        if results:
            _log.warning("requests answered in a worker's place", worker=shown(worker), count=len(results))
            self._scheduler.handle(FromWorker(worker, Results(results)), now)

    def _gone(self, side: str, peer: bytes, now: float, reason: str, dead: bool) -> None:
        gone: Event = CallerGone(peer) if side == CALLERS else WorkerGone(peer, reason, dead)
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
