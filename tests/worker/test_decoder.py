"""The decoder's thread: what it is lent it gives back, whatever happens meanwhile."""

from __future__ import annotations

import queue
import threading

import pytest

from headway_worker.decoder import Decoder

WAIT_S = 30.0


class Shop:
    """A queue of orders, and a decoder that writes down what it did and in which thread."""

    def __init__(self) -> None:
        self.orders: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self.done: list[str] = []
        self.began: list[str] = []
        self.threads: set[str] = set()
        self.prepared = threading.Event()
        self.gate = threading.Event()
        self.gate.set()
        self.decoder: Decoder[str] = Decoder(self.orders, self.take, self.prepare, self.begin)

    def begin(self) -> None:
        self.began.append(threading.current_thread().name)

    def take(self, order: str) -> None:
        self.done.append(f"took {order}")

    def prepare(self) -> None:
        self.threads.add(threading.current_thread().name)
        self.gate.wait(WAIT_S)
        self.done.append("prepared")
        self.prepared.set()


@pytest.fixture
def shop():
    shop = Shop()
    yield shop
    shop.decoder.stop(WAIT_S)


def test_an_order_that_comes_during_a_loan_is_taken_and_prepared(shop):
    shop.decoder.lend(is_open=True)
    shop.orders.put("a")
    assert shop.prepared.wait(WAIT_S)
    shop.decoder.take_back()
    assert shop.done == ["took a", "prepared"]
    assert shop.threads == {"headway-decoder"}
    assert shop.began == ["headway-decoder"]


def test_with_a_batch_waiting_none_is_taken_from_the_queue(shop):
    shop.orders.put("b")
    shop.decoder.lend(is_open=False)
    assert shop.prepared.wait(WAIT_S)
    shop.decoder.take_back()
    assert shop.done == ["prepared"]
    assert shop.orders.get_nowait() == "b"


def test_it_is_given_back_though_no_order_came(shop):
    for _ in range(100):
        shop.decoder.lend(is_open=True)
        shop.decoder.take_back()
    assert "took" not in "".join(shop.done)


def test_taking_back_waits_for_the_batch_that_is_being_prepared(shop):
    shop.gate.clear()
    shop.decoder.lend(is_open=False)
    threading.Timer(0.05, shop.gate.set).start()
    shop.decoder.take_back()
    assert shop.done == ["prepared"]


def test_no_order_is_lost_or_taken_twice_whenever_it_comes(shop):
    count = 300
    feeder = threading.Thread(target=lambda: [shop.orders.put(str(n)) for n in range(count)])
    feeder.start()
    taken: list[str] = []
    while len(taken) < count:
        shop.decoder.lend(is_open=True)
        shop.decoder.take_back()
        taken += [line.removeprefix("took ") for line in shop.done if line != "prepared"]
        shop.done.clear()
        while not shop.orders.empty():
            order = shop.orders.get()
            taken += [order] if order is not None else []
    feeder.join(WAIT_S)
    assert taken == [str(n) for n in range(count)]


def test_a_decoder_that_was_never_used_has_no_thread_to_stop():
    shop = Shop()
    shop.decoder.stop(0)
    assert shop.decoder._thread is None


def test_stopping_ends_the_thread():
    shop = Shop()
    shop.decoder.lend(is_open=True)
    shop.decoder.take_back()
    thread = shop.decoder._thread
    shop.decoder.stop(WAIT_S)
    assert thread is not None and not thread.is_alive()
