"""The worker's second thread: it owns the device, and does what the session orders, one thing at a time.

Knows: orders and reports, which models are loaded here.
Must not know: sockets, the broker, heartbeats.

`run` is the thread's body: it takes orders in the order in which they were put, and reports from its own
thread. `obey` does one order and returns when it is done; `run` is a loop around it. Whatever a model's code
raises ends in a report, `SystemExit` and `KeyboardInterrupt` included: other models live here too.
"""

from __future__ import annotations

import logging
import queue
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from headway.errors import InternalError, NotReady
from headway.messages import Copy, Load, Unload
from headway.models import ModelSpec
from headway.store import read_version
from headway_worker import device as devices
from headway_worker.batches import refuse_batch, run_batch
from headway_worker.loaded import Loaded, load, warm_up
from headway_worker.orders import Order, Report, Run
from headway_worker.replies import error_text, printable
from headway_worker.sharing import Sharing

log = logging.getLogger("headway.worker")
DETAIL_CHARS_MAX = 59_000
TIDY_S = 5.0


class Runner:
    """Models on one device.

    `running` is (batch id, monotonic seconds of its start) while a batch runs, otherwise None; other
    threads may read it. `report` is called from the runner's thread and must not raise.
    """

    def __init__(
        self,
        device: torch.device,
        report: Callable[[Report], None],
        clock: Callable[[], float],
        sharing: Sharing | None = None,
    ) -> None:
        self.device = device
        self.running: tuple[int, float] | None = None
        self._report = report
        self._clock = clock
        self._sharing = sharing or Sharing()
        self._orders: queue.SimpleQueue[Order | None] = queue.SimpleQueue()
        self._stopped = False
        self._loaded: dict[tuple[str, str], Loaded] = {}

    def put(self, order: Order) -> None:
        """Add an order to those that wait; from any thread."""
        self._orders.put(order)

    def stop(self) -> None:
        """Make `run` return after the order at hand; those that wait are left. From any thread."""
        self._stopped = True
        self._orders.put(None)

    def run(self) -> None:
        """Obey orders until `stop`."""
        devices.enter(self.device)
        while not self._stopped:
            try:
                order = self._orders.get(timeout=TIDY_S)
            except queue.Empty:
                self._sharing.tidy()
                continue
            if order is not None and not self._stopped:
                self.obey(order)
            del order  # a batch's tensors are not kept while the queue is empty

    def obey(self, order: Order) -> None:
        """Do one order and report its outcome."""
        if isinstance(order, Load):
            self._load(order)
        elif isinstance(order, Unload):
            self._free((order.model, order.version))
            self._report(Copy(order.model, order.version, "gone", "", {}))
        else:
            self._run(order)

    def _load(self, order: Load) -> None:
        self._report(Copy(order.model, order.version, "loading", "", {}))
        self._free((order.model, order.version))
        facts: dict[str, Any] = {}
        try:
            facts = self._ready(order)
            state, detail = "ready", ""
        except BaseException as error:
            state, detail = "failed", _traceback(error)
        if state == "failed":  # here, where the exception no longer holds the model in its frames
            log.warning("model %s version %s failed to load:\n%s", order.model, order.version, detail)
            self._free((order.model, order.version))
            devices.free_memory(self.device)
        self._report(Copy(order.model, order.version, state, detail, facts))

    def _ready(self, order: Load) -> dict[str, Any]:
        """Load and warm the model; the facts about it."""
        start = self._clock()
        spec = self._spec(order)
        loaded = load(spec, devices.for_model(spec.device, self.device))
        self._loaded[spec.key] = loaded
        with torch.inference_mode():
            facts = warm_up(loaded, self._clock)
        facts["backend"] = {"name": spec.backend, **loaded.backend.describe()}
        facts["load_ms"] = round((self._clock() - start) * 1000, 3)
        return facts

    def _spec(self, order: Load) -> ModelSpec:
        # The names are the broker's: a version's folder may be a link to one of another name.
        return replace(read_version(Path(order.folder)), name=order.model, version=order.version)

    def _free(self, key: tuple[str, str]) -> None:
        loaded = self._loaded.pop(key, None)
        if loaded is not None:
            try:
                loaded.close()
            except BaseException as error:
                loaded.tell(error)
            del loaded
            devices.free_memory(self.device)

    def _run(self, order: Run) -> None:
        batch = order.batch
        self.running = (batch.id, self._clock())
        loaded = self._loaded.get((batch.model, batch.version))
        try:
            if loaded is None:
                raise NotReady(f"model {batch.model} version {batch.version} is not loaded here")
            with torch.inference_mode():
                result = run_batch(loaded, order, self._clock, self._sharing)
        except NotReady as error:
            result = refuse_batch(batch, error)
        except BaseException as error:
            log.exception("batch %d of model %s", batch.id, batch.model)
            result = refuse_batch(batch, InternalError(error_text(error)))
        self.running = None
        self._report(result)


def _traceback(error: BaseException) -> str:
    """The traceback as it can travel: its end, where the reason is, when it is too long."""
    try:
        text = "".join(traceback.format_exception(error))
    except Exception:  # an exception that cannot be printed
        text = error_text(error)
    return printable(text[-DETAIL_CHARS_MAX:])
