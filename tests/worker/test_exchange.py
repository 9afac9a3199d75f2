"""Who serves the worker's socket: the runner while it has nothing to do, else the keeper."""

from __future__ import annotations

import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import pytest
import zmq

from headway import link
from headway.exits import Exit
from headway.messages import (
    Alive,
    Batch,
    Batches,
    BatchReply,
    Dismiss,
    Join,
    Leave,
    Message,
    Piece,
    Pieces,
    Result,
    Results,
    Welcome,
)
from headway.notify import Notifier
from headway.wire import decode, encode
from headway_worker import exchange as exchange_module
from headway_worker import tell
from headway_worker.exchange import Exchange
from headway_worker.loop import Loop
from headway_worker.orders import Order, Run
from headway_worker.session import About, Drain, Event, Leaving, Session
from tests.ear import Ear

M = TypeVar("M")
ABOUT = About("w", "host", 7, "cpu")
WAIT_S = 10.0


class Broker:
    """The other end of the socket, played by the test."""

    def __init__(self, folder: Path) -> None:
        self.address = f"ipc://{folder}/workers.sock"
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = link.router(self._context, self.address)
        self._worker = b""

    def hear(self, kind: type[M], within_s: float = WAIT_S) -> M:
        """The next message of a kind; others are dropped."""
        end = time.monotonic() + within_s
        while (left_s := end - time.monotonic()) > 0 and self._socket.poll(int(left_s * 1000)):
            self._worker, frame = self._socket.recv_multipart()
            if isinstance(message := decode(frame), kind):
                return message
        raise AssertionError(f"no {kind.__name__} in {within_s} s")

    def send(self, message: Message) -> None:
        self._socket.send_multipart([self._worker, encode(message)])

    def give(self, *ids: int) -> None:
        self.send(Batches([Batch(id, "m", "1", 60_000, []) for id in ids]))

    def close(self) -> None:
        self._socket.close()
        self._context.term()


class Runner:
    """Does `work` with every order, in a thread of its own, and notes which thread brought it."""

    def __init__(self, exchange: Exchange, work: Callable[[Order], None]) -> None:
        self.brought_by: list[str] = []
        self.stopped = False
        self._exchange = exchange
        self._work = work
        self._orders: queue.SimpleQueue[Order] = queue.SimpleQueue()

    def put(self, order: Order) -> None:
        self.brought_by.append(threading.current_thread().name)
        self._orders.put(order)

    def run(self) -> None:
        while not self.stopped:
            self._exchange.lead(lambda: self.stopped or not self._orders.empty(), WAIT_S)
            while not self._orders.empty():
                self._work(self._orders.get())


class Worker:
    """An exchange and its two threads. `work` is what its runner does."""

    def __init__(self, address: str, notifier: Notifier | None = None) -> None:
        session = Session(ABOUT, join_s=0.05, drain_s=0.3)
        self.exchange = Exchange(session, address, b"w.1", notifier=notifier)
        self.runner = Runner(self.exchange, lambda order: self.work(order))
        self.events: list[Event] = []
        self.left: Leaving | None = None
        self._wakeup, self._alarm = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.exchange.open(self.runner)
        self.threads = [
            threading.Thread(target=self.runner.run, name="runner", daemon=True),
            threading.Thread(target=self._keep, name="keeper", daemon=True),
        ]
        for thread in self.threads:
            thread.start()

    def work(self, order: Order) -> None:
        self.answer(order)

    def answer(self, order: Order) -> None:
        assert isinstance(order, Run)
        self.exchange.report(Result(order.batch.id, 0, [BatchReply(0, b"", {})]))

    def signal(self, event: Event) -> None:
        self.events.append(event)
        os.write(self._alarm, b"x")

    def _keep(self) -> None:
        self.left = self.exchange.keep(self._wakeup, self._take_events)

    def _take_events(self) -> list[Event]:
        taken, self.events = self.events, []
        return taken

    def close(self) -> None:
        self.runner.stopped = True
        self.exchange.call_runner()
        self.exchange.give_up("the end of the test")
        for thread in self.threads:
            thread.join(WAIT_S)
            assert not thread.is_alive(), thread.name
        self.exchange.close()
        os.close(self._wakeup)
        os.close(self._alarm)


@pytest.fixture
def broker() -> Iterator[Broker]:
    with TemporaryDirectory(prefix="hw-") as folder:
        made = Broker(Path(folder))
        yield made
        made.close()


@pytest.fixture
def worker(broker: Broker) -> Iterator[Worker]:
    """One that has joined, with a heartbeat every 0.1 s."""
    made = Worker(broker.address)
    broker.hear(Join)
    broker.send(Welcome(b"broker", 200))
    broker.hear(Alive)
    yield made
    made.close()


def until(true: Callable[[], object]) -> None:
    end = time.monotonic() + WAIT_S
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.005)


def ids(results: Results) -> list[int]:
    return [result.batch for result in results.results]


def test_pieces_are_sent_while_the_runner_is_in_its_model(
    never_parked_for_long: None, broker: Broker, worker: Worker
) -> None:
    goes_on = threading.Event()

    def work(order: Order) -> None:
        assert isinstance(order, Run)
        for content in (b"a", b"b"):
            worker.exchange.report(Piece(order.batch.id, 0, content, {}))
            assert goes_on.wait(WAIT_S)
            goes_on.clear()
        worker.answer(order)

    worker.work = work  # type: ignore[method-assign]
    broker.give(1)
    for content in (b"a", b"b"):
        assert [p.content for p in broker.hear(Pieces).pieces] == [content]
        goes_on.set()
    assert ids(broker.hear(Results)) == [1]


def test_an_idle_runner_takes_its_orders_at_the_socket(broker, worker):
    for id in range(1, 20):
        broker.give(id)
        assert ids(broker.hear(Results)) == [id]
    assert set(worker.runner.brought_by) == {"runner"}


@pytest.fixture
def never_parked_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """The keeper does not look by itself whether the runner is there: it must be told."""
    monkeypatch.setattr(exchange_module, "PARKED_S", 60.0)


def test_the_keeper_takes_orders_and_keeps_the_worker_alive_while_the_runner_is_away(
    never_parked_for_long, broker, worker
):
    go = threading.Event()

    def work(order: Order) -> None:
        worker.exchange.leave()
        go.wait(WAIT_S)
        worker.answer(order)

    worker.work = work
    broker.give(1)
    for _ in range(3):
        broker.hear(Alive, within_s=1.0)
    broker.give(2)
    until(lambda: len(worker.runner.brought_by) == 2)
    assert worker.runner.brought_by == ["runner", "keeper"]
    go.set()
    assert [ids(broker.hear(Results)) for _ in range(2)] == [[1], [2]]
    broker.give(3)
    assert ids(broker.hear(Results)) == [3]


def test_a_runner_that_stays_away_without_a_word_is_noticed(broker, worker, monkeypatch):
    go = threading.Event()
    worker.work = lambda order: (go.wait(WAIT_S), worker.answer(order))
    broker.give(1)
    time.sleep(2 * exchange_module.PARKED_S)
    for _ in range(3):
        broker.hear(Alive, within_s=1.0)
    go.set()
    assert ids(broker.hear(Results)) == [1]
    broker.give(2)
    assert ids(broker.hear(Results)) == [2]


def test_a_report_is_sent_at_once_from_the_thread_that_has_it(broker, worker):
    def work(order: Order) -> None:
        worker.exchange.leave()
        worker.answer(order)
        go.wait(WAIT_S)

    go = threading.Event()
    worker.work = work
    broker.give(1)
    assert ids(broker.hear(Results, within_s=1.0)) == [1]
    go.set()


def test_nothing_is_lost_when_the_lead_changes_all_the_time(broker, worker):
    def work(order: Order) -> None:
        assert isinstance(order, Run)
        if order.batch.id % 3 == 0:
            worker.exchange.leave()
        if order.batch.id % 7 == 0:
            time.sleep(0.001)
        worker.answer(order)

    worker.work = work
    broker.send(Welcome(b"broker", 120_000))  # no heartbeat that would make good for a signal that was lost
    heard: list[int] = []
    for id in range(1, 1501):
        broker.give(id)
        if id % 5 == 0:  # bursts of five, and then what came of some of them
            heard += ids(broker.hear(Results))
    while len(heard) < 1500:
        heard += ids(broker.hear(Results))
    assert heard == list(range(1, 1501))


@pytest.mark.parametrize("is_away", [False, True])
def test_the_keeper_returns_when_the_worker_is_dismissed_whoever_leads(
    never_parked_for_long, broker, worker, is_away
):
    if is_away:
        worker.work = lambda order: (worker.exchange.leave(), time.sleep(0.3))
        broker.give(1)
        time.sleep(0.1)
    broker.send(Dismiss("go", 1))
    until(lambda: worker.left)
    assert worker.left is not None and worker.left.reason == "go"


def test_a_signal_reaches_the_session_while_the_runner_leads(broker, worker):
    worker.signal(Drain("SIGTERM"))
    assert broker.hear(Leave).reason == "SIGTERM"
    broker.send(Dismiss("you asked to leave", 1))
    until(lambda: worker.left)


@pytest.mark.parametrize("is_away", [False, True])
def test_the_keeper_returns_when_the_time_to_drain_is_over_whoever_leads(broker, worker, is_away):
    if is_away:
        worker.work = lambda order: (worker.exchange.leave(), time.sleep(1.0))
        broker.give(1)
        time.sleep(0.1)
    worker.signal(Drain("SIGTERM"))
    broker.hear(Leave)  # and no answer: the broker ends too
    until(lambda: worker.left)
    assert worker.left is not None and worker.left.reason == "the time to drain is over"


def test_a_runner_is_called_away_from_the_socket(broker, worker):
    worker.runner.stopped = True
    worker.exchange.call_runner()
    worker.threads[0].join(1.0)
    assert not worker.threads[0].is_alive()


def test_an_idle_worker_uses_no_time(broker, worker):
    before = time.process_time()
    time.sleep(0.5)
    assert time.process_time() - before < 0.1


class Broken:
    """A runner that ends by a defect."""

    def put(self, order: Order) -> None: ...

    def run(self) -> None:
        raise ZeroDivisionError("a defect")

    def stop(self) -> None: ...


@pytest.fixture
def signals() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    signal.set_wakeup_fd(-1)
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_defect_in_the_runners_thread_ends_the_process(broker, signals):
    with pytest.raises(ZeroDivisionError):
        Loop(Exchange(Session(ABOUT), broker.address, b"w.1")).run(Broken())


class Willing(Broken):
    """A runner that does nothing until it is stopped."""

    def __init__(self) -> None:
        self.done = threading.Event()

    def run(self) -> None:
        self.done.wait(WAIT_S)

    def stop(self) -> None:
        self.done.set()


def test_a_loop_ends_with_0_and_stops_its_runner(broker, signals):
    loop, runner = Loop(Exchange(Session(ABOUT), broker.address, b"w.1")), Willing()
    codes: list[Any] = []

    def play() -> None:
        broker.hear(Join)
        os.kill(os.getpid(), signal.SIGTERM)  # not on the roster yet: it may go at once

    player = threading.Thread(target=play)
    player.start()
    codes.append(loop.run(runner))
    player.join(WAIT_S)
    assert codes == [Exit.OK] and runner.done.is_set()


def test_the_watchdog_is_fed_while_the_worker_idles_and_not_once_its_runner_hangs(
    broker, tmp_path, monkeypatch
):
    monkeypatch.setattr(tell, "LEASE_MARGIN_S", 0.2)
    ear = Ear(tmp_path / "notify")
    worker = Worker(broker.address, ear.notifier(watchdog_s=0.4))
    go = threading.Event()
    worker.work = lambda order: (worker.exchange.leave(), go.wait(WAIT_S), worker.answer(order))
    broker.hear(Join)
    broker.send(Welcome(b"broker", 20_000))  # seldom: nothing else wakes the keeper
    assert "READY=1" in ear.wait_for("WATCHDOG=1", count=4)
    broker.send(Batches([Batch(1, "m", "1", 300, [])]))
    until(lambda: worker.runner.brought_by)
    time.sleep(0.8)
    ear.heard()
    time.sleep(0.6)
    assert not any("WATCHDOG" in word for word in ear.heard())
    go.set()
    ear.wait_for("WATCHDOG=1", count=2)
    worker.close()
    ear.close()
