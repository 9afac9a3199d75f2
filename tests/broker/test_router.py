"""The router, with real sockets: a broker process in a run directory of its own, and peers of the test's."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import zmq

from headway import link
from headway.errors import UnknownModel
from headway.exits import Exit
from headway.messages import (
    OK,
    Alive,
    Answer,
    Batches,
    BatchReply,
    Command,
    Copy,
    Heartbeat,
    Join,
    Ping,
    Query,
    Replies,
    Request,
    Requests,
    Result,
    Results,
    Welcome,
)
from headway.wire import decode, encode
from headway_broker.statefile import StateFile
from tests.ear import Ear

WAIT_S = 10.0
MODEL = 'backend = "python"\nbatch_size_max = 4\n'
# The same broker, whose sockets and router hold little for a peer that does not read.
NARROW = """
from headway import lines
from headway_broker import router
lines.WAITING_BYTES_MAX, router.BACKLOG_MAX = 1000, 50
from headway_broker.__main__ import main
main()
"""

pytestmark = pytest.mark.system


class Broker:
    """A broker process; the run directory is short, because an `ipc` path has at most 107 characters."""

    def __init__(self, folder: Path) -> None:
        self.run_dir = folder / "run"
        self.store = folder / "models"
        (self.store / "m" / "1").mkdir(parents=True)
        (self.store / "m" / "1" / "model.toml").write_text(MODEL)
        self.processes: list[subprocess.Popen[str]] = []
        self.context: zmq.Context[Any] = zmq.Context()

    def start(
        self,
        code: str = "",
        wait: bool = True,
        options: Sequence[str] = (),
        environment: dict[str, str] | None = None,
    ) -> subprocess.Popen[str]:
        how = ["-c", code] if code else ["-m", "headway_broker"]
        options = ["--run-dir", str(self.run_dir), "--model-store", str(self.store), *options]
        path = ":".join(str(Path(p).absolute()) for p in sys.path if p)
        process = subprocess.Popen(
            [sys.executable, *how, *options],
            env={**os.environ, "PYTHONPATH": path, **(environment or {})},
            stderr=subprocess.PIPE,
            text=True,
        )
        self.processes.append(process)
        if wait:
            until(lambda: (self.run_dir / "workers.sock").exists())
        return process

    def peer(self, side: str = "callers") -> Peer:
        return Peer(link.dealer(self.context, self.address(side), b"test." + secrets.token_bytes(8)))

    def slow_peer(self) -> Peer:
        """A caller whose side of the connection holds next to nothing that it has not read."""
        socket = self.context.socket(zmq.DEALER)
        socket.setsockopt(zmq.RCVHWM, 1)
        socket.setsockopt(zmq.RCVBUF, 4096)
        socket.connect(self.address("callers"))
        return Peer(socket)

    def address(self, side: str) -> str:
        return f"ipc://{self.run_dir}/{'broker' if side == 'callers' else 'workers'}.sock"

    def stats(self) -> Any:
        with self.peer() as asker:
            asker.send(Query(1, "stats"))
            return asker.hear(Answer).body

    def close(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.communicate()
        self.context.destroy(linger=0)


class Peer:
    """A connection to the broker that says whatever the test wants it to."""

    def __init__(self, socket: zmq.Socket[Any]) -> None:
        self.socket = socket

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close(linger=0)  # or the end waits for what nobody will read

    def send(self, message: Any) -> None:
        self.send_raw(encode(message))

    def send_raw(self, *frames: bytes) -> None:
        assert self.socket.poll(int(WAIT_S * 1000), zmq.POLLOUT)
        self.socket.send_multipart(frames)

    def hear(self, kind: type[Any]) -> Any:
        """The next message of that kind."""
        end = time.monotonic() + WAIT_S
        while self.socket.poll(max(int((end - time.monotonic()) * 1000), 0)):
            message = decode(self.socket.recv())
            if isinstance(message, kind):
                return message
        raise AssertionError(f"no {kind.__name__} in {WAIT_S} s")

    def ask(self, id: int, model: str = "m") -> None:
        self.send(Requests([Request(id, model, "", 60_000, 0, 0, {}, b"t%d" % id)]))


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + WAIT_S
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


@pytest.fixture
def broker() -> Iterator[Broker]:
    with TemporaryDirectory(prefix="hw-") as folder:
        made = Broker(Path(folder))
        try:
            yield made
        finally:
            made.close()


def test_a_request_goes_through_to_a_worker_and_its_answer_comes_back(broker: Broker) -> None:
    broker.start()
    with broker.peer("workers") as worker, broker.peer() as caller:
        worker.send(Join("w", "host", 1, "cpu", [Copy("m", "1", "ready", "", {})]))
        worker.hear(Welcome)
        caller.ask(1)
        [batch] = worker.hear(Batches).batches
        worker.send(Results([Result(batch.id, 10, [BatchReply(OK, b"answer", {})])]))
        assert caller.hear(Replies).replies[0][:3] == (1, OK, b"answer")


@pytest.mark.parametrize("side", ["callers", "workers"])
def test_what_is_no_message_is_dropped_and_counted_and_costs_its_sender_nothing_else(
    broker: Broker, side: str
) -> None:
    broker.start()
    wrong: list[tuple[bytes, ...]] = [
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",),
        (encode(Ping()), encode(Ping())),
        (),
        (b"",),
        (encode(Ping()).replace(b"HW1", b"HW0"),),
        (encode(Ping())[:-1],),
        (encode(Ping()) + b"more",),
        (b"\x93\xa3HW1\xcd\xff\xff\x90",),
        (encode(Alive() if side == "callers" else Ping()),),  # a message, and from the wrong side
        *((secrets.token_bytes(n),) for n in (1, 5, 100, 5000)),
    ]
    with broker.peer(side) as peer:
        if side == "workers":
            peer.send(Join("w", "host", 1, "cpu", []))
            peer.hear(Welcome)
        for frames in wrong:
            if frames:
                peer.send_raw(*frames)
        if side == "callers":
            peer.send(Ping())
            peer.hear(Heartbeat)
        else:
            peer.send(Join("w", "host", 1, "cpu", []))
            peer.hear(Welcome)
    assert broker.stats()["refused_messages"][side] == len(wrong) - 1


def test_a_second_broker_in_the_same_run_directory_is_refused_and_the_first_goes_on(broker: Broker) -> None:
    first = broker.start()
    second = broker.start(wait=False)
    assert second.wait(WAIT_S) == Exit.LOCKED
    with broker.peer() as caller:
        caller.send(Ping())
        caller.hear(Heartbeat)
    assert first.poll() is None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_to_stop_it_leaves_no_socket_and_no_lock(broker: Broker, number: signal.Signals) -> None:
    process = broker.start()
    process.send_signal(number)
    assert process.wait(WAIT_S) == Exit.OK
    assert list(broker.run_dir.iterdir()) == []


def test_after_a_broker_was_killed_another_starts_in_its_place(broker: Broker) -> None:
    first = broker.start()
    with broker.peer() as caller:
        caller.send(Ping())
        old = caller.hear(Heartbeat).broker
        first.kill()
        first.wait(WAIT_S)
        broker.start()
        caller.send(Ping())
        assert caller.hear(Heartbeat).broker != old, "the same connection reaches the new broker"


def test_the_requests_of_a_caller_that_died_are_cancelled(broker: Broker) -> None:
    broker.start()
    with broker.peer() as caller:
        caller.ask(1)
        caller.ask(2)
        caller.ask(3, model="nobody")
        assert caller.hear(Replies).replies[0].code == UnknownModel.code
        assert broker.stats()["models"][0]["queue"] == 2
    until(lambda: broker.stats()["models"][0]["queue"] == 0)
    assert broker.stats()["models"][0]["outcomes"] == {"Cancelled": 2}


def test_a_peer_that_does_not_read_keeps_nobody_waiting_and_is_given_up(broker: Broker) -> None:
    broker.start(NARROW)
    with broker.slow_peer() as stubborn, broker.peer() as caller:
        stubborn.ask(1)
        for turn in range(100):
            for _ in range(40):
                stubborn.send(Query(1, "models"))
            started = time.monotonic()
            caller.send(Ping())
            caller.hear(Heartbeat)
            assert time.monotonic() - started < 1.0
            if turn % 10 == 9 and broker.stats()["models"][0]["queue"] == 0:
                return
    raise AssertionError("its request still waits")


def test_messages_kept_for_a_slow_reader_arrive_in_order(broker: Broker) -> None:
    broker.start(NARROW.replace("1000, 50", "1000, 100_000"))
    with broker.slow_peer() as slow, broker.peer() as caller:
        heard = []
        for id in range(1000):
            slow.send(Query(id, "models"))
            if id % 10 == 9:  # let the broker turn, and read a little less than it says
                caller.send(Ping())
                caller.hear(Heartbeat)
                heard += [slow.hear(Answer).id for _ in range(7)]
        heard += [slow.hear(Answer).id for _ in range(1000 - len(heard))]
        assert heard == list(range(1000))


def test_a_run_directory_that_does_not_fit_is_an_error_and_not_a_hang(broker: Broker) -> None:
    broker.run_dir = broker.run_dir / ("x" * 120)
    process = broker.start(wait=False)
    assert process.wait(WAIT_S) not in (Exit.OK, Exit.LOCKED)
    assert process.stderr and "x" * 120 in process.stderr.read()
    with contextlib.suppress(FileNotFoundError):
        assert list(broker.run_dir.iterdir()) in ([], [broker.run_dir / "broker.lock"])


def test_it_tells_systemd_that_it_is_ready_alive_though_nobody_is_here_and_stopping(broker: Broker) -> None:
    ear = Ear(broker.store.parent / "notify")
    process = broker.start(environment=ear.environment(watchdog_s=1.0))
    said = ear.wait_for("WATCHDOG=1", count=4)
    assert said.startswith("READY=1\nSTATUS=versions of models: 1, workers: 0, callers: 0\n")
    process.send_signal(signal.SIGSTOP)
    time.sleep(0.2)
    ear.heard()
    time.sleep(1.0)
    assert ear.heard() == []
    process.send_signal(signal.SIGCONT)
    ear.wait_for("WATCHDOG=1")
    process.terminate()
    ear.wait_for("STOPPING=1")
    assert process.wait(WAIT_S) == Exit.OK
    ear.close()


def test_at_its_end_it_removes_the_segments_of_callers_that_died(broker: Broker) -> None:
    process = broker.start()
    broker.stats()  # it has looked once, and does not again for long
    folder = broker.run_dir / "segments"
    folder.mkdir()
    left = folder / f"1-{secrets.token_hex(8)}.seg"
    left.write_bytes(b"x")
    process.terminate()
    assert process.wait(WAIT_S) == Exit.OK
    assert not left.exists()


def test_orders_that_did_not_fit_on_the_disk_are_kept_when_there_is_room_again(broker: Broker) -> None:
    folder = broker.run_dir.parent / "state"
    folder.mkdir()
    kept = StateFile(folder, broker.store)
    full = kept.path.with_suffix(".new")
    full.symlink_to("/dev/full")
    broker.start(options=["--state-dir", str(folder)])
    with broker.peer() as operator:
        order = {"model": "m", "min": 2}
        operator.send(Command(1, (folder / "token").read_text().strip(), "scale", order))
        assert operator.hear(Answer).body["min"] == 2
    assert not kept.path.exists()
    full.unlink()
    until(kept.path.exists)
    assert kept.read()[0].models["m"].copies == {"1": (2, 2)}
