"""A second thread, which prepares the next batch while the runner's is inside a model.

Knows: threads, when to let go. Must not know: torch, models, what preparing is.

While the runner computes on the CPU, it *lends* the decoder what waits: the queue of orders and the head of
the pipeline. Where nothing waits yet the decoder waits for one order; it prepares the batch at the head,
and gives all back; or it gives it back when the runner asks. So each of the two has them alone, and no lock
is needed. A batch that comes while the runner is idle never sees this thread.

`prepare` must not raise. The thread is made at the first loan, and is a daemon: code of a model's that never
returns must not keep the process.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Decoder(Generic[T]):
    """`take(order)` gets the order that came, and `prepare()` then prepares what there is to prepare, if
    anything; its thread begins with `begin()`. None in the queue of orders only wakes whoever waits for one.
    """

    def __init__(
        self,
        orders: queue.SimpleQueue[T | None],
        take: Callable[[T], None],
        prepare: Callable[[], None],
        begin: Callable[[], None] = lambda: None,
    ) -> None:
        self._orders = orders
        self._take = take
        self._prepare = prepare
        self._begin = begin
        self._loans: queue.SimpleQueue[bool | None] = queue.SimpleQueue()
        self._returned: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def lend(self, is_open: bool) -> None:
        """Let the thread have what waits. `is_open`: nothing does yet, so it is to wait for an order."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="headway-decoder", daemon=True)
            self._thread.start()
        self._loans.put(is_open)

    def take_back(self) -> None:
        """Have it again; waits until the batch that is being prepared is."""
        try:
            self._returned.get_nowait()
        except queue.Empty:
            self._orders.put(None)  # it waits for an order; if it does not, the driver finds this later
            self._returned.get()

    def stop(self, timeout_s: float) -> None:
        """End the thread; nothing must be lent."""
        if self._thread is not None:
            self._loans.put(None)
            self._thread.join(timeout_s)

    def _run(self) -> None:
        self._begin()
        while (is_open := self._loans.get()) is not None:
            order = self._orders.get() if is_open else None
            if order is not None:
                self._take(order)
            del order  # a batch's tensors are not kept while nothing comes
            self._prepare()
            self._returned.put(None)
