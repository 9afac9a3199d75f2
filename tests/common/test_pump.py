"""Who drives a client's socket: threads that wait, and the client's own when none does."""

from __future__ import annotations

import dis
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from types import FrameType
from typing import Any

import numpy as np
import pytest

from headway import pump as pump_module
from headway.calls import Call
from headway.client import Client
from headway.errors import BrokerUnreachable, InternalError
from headway.messages import Bye
from tests.common.echo import EchoBroker

X = {"x": np.arange(16, dtype=np.float32)}
OWN = "headway-client"


@pytest.fixture
def client(broker: EchoBroker) -> Iterator[Client]:
    with Client(broker.address, timeout_s=10) as opened:
        yield opened


def told_by(future: Future) -> list[str]:
    """The names of the threads that tell the future's outcome."""
    names: list[str] = []
    future.add_done_callback(lambda _: names.append(threading.current_thread().name))
    return names


def until(true: Callable[[], object]) -> None:
    end = time.monotonic() + 5
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.005)


@pytest.fixture
def leading(client: Client, broker: EchoBroker) -> Iterator[threading.Thread]:
    """A thread that leads until a `release` is asked for."""
    thread = threading.Thread(target=client.infer, args=("hold", X), name="leading")
    thread.start()
    broker.wait_for(broker.requests)
    yield thread
    client.submit("release", X)
    thread.join(5)
    assert not thread.is_alive()


def test_a_thread_that_waits_for_its_answer_needs_no_other(client, monkeypatch):
    drained_by: list[str] = []
    drain = pump_module.drain

    def noted(*arguments):
        drained_by.append(threading.current_thread().name)
        return drain(*arguments)

    monkeypatch.setattr(pump_module, "drain", noted)
    for _ in range(20):
        client.infer("echo", X)
    assert set(drained_by) == {threading.current_thread().name}


def test_a_future_that_nobody_waits_for_is_told_by_the_clients_own_thread(client):
    names: list[str] = []
    done = threading.Event()
    future = client.submit("hold", X)
    future.add_done_callback(lambda _: (names.append(threading.current_thread().name), done.set()))
    client.submit("release", X)
    assert done.wait(5)
    assert names == [OWN]


def test_who_leads_serves_the_futures_of_others(client, leading):
    names = told_by(future := client.submit("hold", X))
    client.submit("release", X)
    assert future.result(5)
    until(lambda: names)
    assert names == ["leading"]


def test_others_may_wait_for_answers_while_one_leads(client, leading):
    with ThreadPoolExecutor(8) as threads:
        asked = [threads.submit(client.infer, "echo", {"x": np.array(i)}) for i in range(100)]
        assert [int(a.result(5)["x"]) for a in asked] == list(range(100))
    assert leading.is_alive()


def test_a_leader_with_its_answer_hands_over_what_is_still_open(client, broker):
    first = client.submit("hold", X)
    broker.wait_for(broker.requests)
    assert client.infer("echo", X)
    names = told_by(first)
    client.submit("release", X)
    assert first.result(5)
    until(lambda: names)
    assert names == [OWN]


def test_an_idle_client_uses_no_time(client):
    client.infer("echo", X)
    future = client.submit("echo", X)
    assert future.result(5)
    time.sleep(0.1)
    before = time.process_time()
    time.sleep(0.3)
    assert time.process_time() - before < 0.1


# ---- interrupts


def interrupt(signum: int, frame: object) -> None:
    raise KeyboardInterrupt


@pytest.fixture
def alarm() -> Iterator[None]:
    before = signal.signal(signal.SIGALRM, interrupt)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def test_an_interrupted_wait_withdraws_its_request_and_harms_nobody(client, broker, alarm):
    for _ in range(5):
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(KeyboardInterrupt):
            client.infer("hold", X)
    # An interrupt in the middle of a step, which is rare, withdraws everything at once.
    broker.wait_for(lambda: len(broker.cancelled()) + len(broker.seen(Bye)) == 5)
    assert client.infer("echo", X)


def test_an_interrupt_in_the_middle_of_a_step_leaves_nobody_waiting(client, monkeypatch, broker):
    """Where a message may have been lost, whoever waits is told so."""
    leaders: list[type[BaseException]] = []

    def lead() -> None:
        try:
            client.infer("hold", X)
        except BaseException as error:
            leaders.append(type(error))

    drain = pump_module.drain

    def interrupted(*arguments: object) -> int:
        if threading.current_thread() is thread:  # never the client's own
            raise KeyboardInterrupt
        return drain(*arguments)

    thread = threading.Thread(target=lead)
    thread.start()
    broker.wait_for(broker.requests)
    other = client.submit("hold", X)
    broker.wait_for(lambda: len({r.id for r in broker.requests()}) == 2)
    with monkeypatch.context() as patched:
        patched.setattr(pump_module, "drain", interrupted)
        with pytest.raises(InternalError, match="interrupted"):
            other.result(5)
    thread.join(5)
    assert leaders == [KeyboardInterrupt]
    broker.wait_for(lambda: broker.seen(Bye))
    assert client.infer("echo", X)


def test_an_interrupt_at_any_moment_leaves_nobody_waiting(client, alarm):
    """Interrupts that come at random moments of a busy client: whoever else asks has an outcome."""
    stop = threading.Event()
    outcomes: list[object] = []

    def ask() -> None:
        while not stop.is_set():
            try:
                outcomes.append(client.infer("echo", X, timeout_s=30))
            except InternalError as error:
                outcomes.append(error)

    others = [threading.Thread(target=ask) for _ in range(2)]
    for other in others:
        other.start()
    chance = np.random.default_rng(1)
    for _ in range(60):
        with pytest.raises(KeyboardInterrupt):
            signal.setitimer(signal.ITIMER_REAL, float(chance.uniform(1e-4, 3e-3)))
            while True:
                with suppress(InternalError):
                    client.infer("echo", X)
    stop.set()
    for other in others:
        other.join(5)
        assert not other.is_alive(), "left waiting"
    assert client.infer("echo", X)
    assert outcomes


class Interrupting:
    """Raises a KeyboardInterrupt in this thread at the `nth` place, in what it runs of the pump, where the
    interpreter looks for signals: after a call, at the start of a function, and at a jump back."""

    def __init__(self, nth: int) -> None:
        self.left = nth

    def __enter__(self) -> None:
        sys.settrace(self._called)

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)

    def _called(self, frame: FrameType, event: str, argument: object) -> Any:
        if frame.f_code.co_filename != pump_module.__file__:
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        instructions, before = frame.f_code.co_code, ""

        def step(frame: FrameType, event: str, argument: object) -> Any:
            nonlocal before
            if event == "opcode":
                looked, before = before, dis.opname[instructions[frame.f_lasti]]
                self._look(looked)
            return step

        return step

    def _look(self, instruction: str) -> None:
        if instruction.startswith(("CALL", "RESUME", "JUMP_BACKWARD")):
            self.left -= 1
            if self.left == 0:
                sys.settrace(None)
                raise KeyboardInterrupt


def test_an_interrupt_at_any_place_leaves_the_lead_and_others_are_served(broker, monkeypatch):
    """While it leads another thread asks something, and its signal is spent already."""
    clients: list[Client] = []
    asked: set[int] = set()
    outcomes: dict[int, object] = {}
    drain = pump_module.drain

    def asking(*arguments: Any) -> int:
        nth = len(clients)
        if threading.current_thread() is threading.main_thread() and nth not in asked:
            asked.add(nth)
            pump, call = clients[-1]._pump, Call(1000, time.monotonic() + 0.01, "hold")
            pump._waiting[call.id] = (partial(outcomes.__setitem__, nth), None, None)
            pump._events.append(call)
        return drain(*arguments)

    monkeypatch.setattr(pump_module, "drain", asking)
    interrupting = Interrupting(0)
    while not interrupting.left:
        clients.append(Client(broker.address, timeout_s=10))
        interrupting = Interrupting(len(clients))
        with suppress(KeyboardInterrupt), interrupting:
            clients[-1].infer("echo", X)
    monkeypatch.undo()
    assert len(asked) > 50
    until(lambda: asked == set(outcomes))
    for client in clients:
        with ThreadPoolExecutor(1) as threads:
            assert threads.submit(client.infer, "echo", X).result(5)
        client.close()


def test_who_is_told_of_an_outcome_by_the_clients_own_thread_cannot_wait_there(client):
    raised: list[Exception] = []

    def ask(told: Future) -> None:
        try:
            client.infer("echo", X)
        except InternalError as error:
            raised.append(error)

    client.submit("hold", X).add_done_callback(ask)
    client.submit("release", X)
    until(lambda: raised)
    assert client.infer("echo", X)


def test_what_interrupts_a_wait_cannot_wait_itself(client, broker):
    raised: list[Exception] = []

    def ask(signum: int, frame: object) -> None:
        try:
            client.infer("echo", X)
        except Exception as error:
            raised.append(error)

    before = signal.signal(signal.SIGALRM, ask)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        threading.Timer(0.3, lambda: client.submit("release", X)).start()
        assert client.infer("hold", X)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert [type(error) for error in raised] == [InternalError]


# ---- closing


def test_closing_ends_the_wait_of_a_leader_and_of_those_behind_it(broker):
    client = Client(broker.address)
    errors: list[Exception] = []

    def ask() -> None:
        try:
            client.infer("hold", X)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    broker.wait_for(lambda: len({r.id for r in broker.requests()}) == 4)
    client.close()
    for thread in threads:
        thread.join(5)
        assert not thread.is_alive()
    assert [type(error) for error in errors] == [BrokerUnreachable] * 4
    assert not client._pump.thread.is_alive()


def test_a_callback_in_a_leaders_thread_may_close_the_client(broker):
    client = Client(broker.address)
    raised: list[Exception] = []

    def ask() -> None:
        try:
            client.infer("hold", X)
        except Exception as error:
            raised.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    broker.wait_for(broker.requests)
    client.submit("echo", X).add_done_callback(lambda _: client.close())
    thread.join(5)
    client._pump.thread.join(5)
    assert not thread.is_alive() and not client._pump.thread.is_alive()
    assert [type(error) for error in raised] == [BrokerUnreachable]
