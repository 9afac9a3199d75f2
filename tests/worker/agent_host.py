"""A host for the tests of the agent: a run directory, a broker played by the test, real agents, and stand-ins
for workers that start in an instant.

A stand-in ends with 0 on SIGTERM and with DEVICE_FAULT on SIGUSR1. Its name says what else it does:

    stubborn...  does not hear SIGTERM
    parent...    has a child of its own, which hears nothing but SIGKILL
    brief...     ends with 3, at once
"""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import zmq

from headway import link
from headway.messages import (
    AgentJoin,
    AgentReport,
    AgentWorker,
    Alive,
    Dismiss,
    Join,
    Leave,
    Message,
    StartWorker,
    StopWorker,
    Welcome,
)
from headway.wire import decode, encode
from headway_worker.agent import processes

WAIT_S = 15.0
STANDIN = """
import os, signal, sys
options = dict(a.lstrip("-").split("=", 1) for a in sys.argv[1:])
name, run_dir = options["name"], options["run-dir"]
open(f"{run_dir}/options-{name}", "w").write(repr(options))
if name.startswith("brief"):
    os._exit(3)
if name.startswith("parent") and not os.fork():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    open(f"{run_dir}/child-of-{name}", "w").write(str(os.getpid()))
    while True:
        signal.pause()
if name.startswith("stubborn"):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
else:
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
signal.signal(signal.SIGUSR1, lambda *_: os._exit(71))
open(f"{run_dir}/ready-{name}-{os.getpid()}", "w").close()
while True:
    signal.pause()
"""
# The agent's own door, with another command for its workers.
AGENT = """
import sys
from functools import partial
from headway_worker.agent import __main__ as door
from headway_worker.agent.children import Children
door.Children = partial(Children, command=[sys.executable, "-S", "-E", "-c", {standin!r}])
door.main()
"""


class Host:
    """What the broker hears and says happens inside `wait_for` and `order`: there is no thread."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self.joins: list[AgentJoin] = []
        self.reports: list[AgentWorker] = []
        self.heartbeat_ms = 500
        self.agents: list[subprocess.Popen[bytes]] = []
        self.environment: dict[str, str] = {}  # what the agents find in theirs besides
        self._socket: zmq.Socket[Any] | None = None
        self.start_broker()

    # ---- the broker

    def start_broker(self) -> None:
        self._context: zmq.Context[Any] = zmq.Context()
        self._socket = link.router(self._context, f"ipc://{self.run_dir}/workers.sock")
        self._peer = b""  # the agent that this start of the broker knows
        self.workers: dict[bytes, str] = {}  # real ones, that have joined it
        self._nonce = secrets.token_bytes(8)

    def stop_broker(self) -> None:
        if self._socket:
            self._socket.close(0)
            self._context.term()
            self._socket = None

    def order(self, message: Message) -> None:
        assert self._socket
        link.send_to(self._socket, self._peer, encode(message))

    def hear(self, timeout_s: float = 0.05) -> None:
        if self._socket is None:
            time.sleep(timeout_s)
            return
        self._socket.poll(timeout_s * 1000)
        while received := link.receive_known(self._socket):
            self._hear(*received[0])

    def _hear(self, peer: bytes, frame: bytes) -> None:
        match decode(frame):
            case AgentJoin() as join:
                self.joins.append(join)
                self._peer = peer
                self._answer(Welcome(self._nonce, self.heartbeat_ms))
            case AgentReport(worker=worker):
                self.reports.append(worker)
            case Join(name=name):
                self.workers[peer] = name
                self._answer(Welcome(self._nonce, 500), peer)
            case Leave():
                self._answer(Dismiss("go", 1), peer)
            case Alive() if peer != self._peer and peer not in self.workers:
                self._answer(Dismiss("who are you?", 0), peer)

    def _answer(self, message: Message, peer: bytes = b"") -> None:
        assert self._socket
        with suppress(zmq.ZMQError):  # it has left
            link.send_to(self._socket, peer or self._peer, encode(message))

    def wait_for(self, true: Callable[[], Any], timeout_s: float = WAIT_S) -> Any:
        give_up = time.monotonic() + timeout_s
        while not (found := true()):
            assert time.monotonic() < give_up, (self.reports, self.joins)
            self.hear()
        return found

    def report(self, name: str, state: str) -> AgentWorker:
        """The last word about the worker, once it is in that state."""

        def last() -> AgentWorker | None:
            said = [worker for worker in self.reports if worker.name == name]
            return said[-1] if said and said[-1].state == state else None

        found: AgentWorker = self.wait_for(last)
        return found

    # ---- agents and workers

    def start_agent(
        self, *options: str, code: str = AGENT.format(standin=STANDIN)
    ) -> subprocess.Popen[bytes]:
        """Runs it, and waits for its join."""
        agent = self.spawn("-c", code, *options)
        before = len(self.joins)
        self.wait_for(lambda: len(self.joins) > before)
        return agent

    def spawn(self, *command: str) -> subprocess.Popen[bytes]:
        path = ":".join(str(Path(p).absolute()) for p in sys.path if p)
        agent = subprocess.Popen(
            [sys.executable, *command, "--run-dir", str(self.run_dir)],
            env={**os.environ, "PYTHONPATH": path, **self.environment},
        )
        self.agents.append(agent)
        return agent

    def start(self, *names: str, device: str = "cpu", share: int = 0) -> list[int]:
        """Workers that run and hear signals; their pids."""
        for name in names:
            self.order(StartWorker(name, device, share, "the test wants it"))
        pids = [self.report(name, "running").pid for name in names]
        for name, pid in zip(names, pids, strict=True):
            self.wait_for((self.run_dir / f"ready-{name}-{pid}").exists)
        return pids

    def stop(self, name: str) -> AgentWorker:
        self.order(StopWorker(name, "the test is done with it"))
        return self.report(name, "ended")

    def child_of(self, name: str) -> int:
        """The child of a stand-in called parent..."""
        file = self.run_dir / f"child-of-{name}"
        return int(self.wait_for(lambda: file.exists() and file.read_text()))

    def processes(self) -> list[int]:
        """Everything that any agent of this host has started, and what that has started."""
        return [process.pid for process in processes.marked(self.run_dir.resolve())]

    def end_agent(self, number: int = signal.SIGTERM) -> int:
        agent = self.agents[-1]
        agent.send_signal(number)
        self.wait_for(lambda: agent.poll() is not None)
        return agent.wait()

    def close(self) -> None:
        for agent in self.agents:
            agent.kill()
            agent.wait()
        left = self.processes()
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        self.stop_broker()


@contextmanager
def hosting() -> Iterator[Host]:
    """A host; when the test has passed nothing may be left of its workers."""
    with TemporaryDirectory(prefix="hw-") as folder:  # short: an ipc path has at most 107 characters
        host = Host(Path(folder))
        try:
            yield host
            if host.agents and host.agents[-1].poll() is None:
                assert host.end_agent() == 0
            host.wait_for(lambda: not host.processes(), 5.0)
        finally:
            host.close()
