"""The worker's second thread: it owns the device, and does what the session orders.

Knows: orders and reports, which models are loaded here.
Must not know: sockets, the broker, heartbeats, in which order steps come (that is `pipeline`).

`run` is the thread's body: it takes orders in the order in which they were put, does the steps that the
pipeline names, and reports from its own thread. `obey` does one order to its end. Whatever a model's code
raises ends in a report, `SystemExit` and `KeyboardInterrupt` included: other models live here too. But not a
fault of the device (`DeviceFault`): no model of this process will run on it again, so `run` ends with it,
without an answer to the batches that were here, which the broker gives to other workers.

Two things go on at once. On a GPU a launched batch computes while the next one is prepared and copied in. On
the CPU the thread is inside the model, and lends what waits to the decoder's thread meanwhile, if it will be
there for AHEAD_S or longer.

A model whose batches run beside one another has them from their launch on (`abreast`). One that has a running
batch is given its turns between the batches of others: a round is at most one batch of theirs, then one turn.

Longer than 300 lines because the steps of batches and the orders between them share one state, `_loaded`.
"""

from __future__ import annotations

import logging
import queue
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch

from headway.errors import InternalError, NotReady
from headway.messages import Copy, Load, Result, Unload
from headway.settling import settle
from headway_worker import device as devices
from headway_worker.abreast import Abreast, dropped
from headway_worker.batches import Passage, refuse_batch
from headway_worker.beside import Beside
from headway_worker.continuous import Continuous
from headway_worker.decoder import Decoder
from headway_worker.faults import DeviceFault
from headway_worker.loaded import Loaded, load
from headway_worker.modes import Mode
from headway_worker.orders import Drop, Order, Report, Run
from headway_worker.pipeline import Finish, Launch, Obey, Pipeline, Prepare, Watch
from headway_worker.places import folder_of, spec_of
from headway_worker.replies import error_text, printable
from headway_worker.sharing import Sharing
from headway_worker.snapshot import steady
from headway_worker.warmup import warm_up
from headway_worker.yard import enter

T = TypeVar("T")
log = logging.getLogger("headway.worker")
DETAIL_CHARS_MAX = 59_000
TIDY_S = 5.0
JOIN_DECODER_S = 5.0
# PERF: lending costs two wake-ups of a thread, some 50 us of a core, and the two threads share one GIL:
# with a model of tens of microseconds the decoder would take more of its time than it gives.
AHEAD_S = 0.002
# While a batch is in flight and nothing waits, new orders are waited for in slices: a batch is answered
# late by at most a tenth of what it took.
WATCH_PART = 0.1
WATCH_S_MIN, WATCH_S_MAX = 0.00005, 0.001


class Host(Protocol):
    """Whoever brings the orders. A runner with nothing to do waits there, and says so before it is away for
    long."""

    def lead(self, until: Callable[[], bool], timeout_s: float) -> None: ...
    def leave(self) -> None: ...
    def call_runner(self) -> None: ...


class Runner:
    """Models on one device.

    `running` is (batch id, monotonic seconds of its start) while a batch runs, otherwise None; other threads
    may read it. `report` must not raise, and is called from the runner's thread; with pieces of replies, from
    any that a model has.
    """

    def __init__(
        self,
        device: torch.device,
        report: Callable[[Report], None],
        clock: Callable[[], float],
        sharing: Sharing | None = None,
        host: Host | None = None,
        store: Path | None = None,
    ) -> None:
        self.device = device
        self.running: tuple[int, float] | None = None
        self._report = report
        self._clock = clock
        self._sharing = sharing or Sharing()
        self._host = host
        self._store = store
        self._orders: queue.SimpleQueue[Order | DeviceFault | None] = queue.SimpleQueue()
        self._stopped = False
        self._loaded: dict[tuple[str, str], Loaded] = {}
        self._abreast: dict[tuple[str, str], Abreast] = {}
        self._turning: dict[tuple[str, str], Abreast] = {}  # those with a turn to come, in this order
        self._mode = Mode()
        self._fault: DeviceFault | None = None  # of a batch in another thread
        self._pipeline: Pipeline[_Held, Load | Unload] = Pipeline(self._depth, self._is_quiet)
        self._decoder: Decoder[Order | DeviceFault] = Decoder(
            self._orders, self._take, self._prepare_ahead, devices.take_threads
        )

    def put(self, order: Order) -> None:
        """Add an order to those that wait; from any thread."""
        self._orders.put(order)

    def stop(self) -> None:
        """Make `run` return after the order at hand; those that wait are left. From any thread."""
        self._stopped = True
        self._orders.put(None)

    def run(self) -> None:
        """Obey orders until `stop`. Raises: DeviceFault, with batches in flight unanswered."""
        try:
            enter(self.device)
            with self._mode:
                while not self._stopped:
                    self._turn()
        except BaseException as error:  # a fault may show itself where the runner only looks, too
            devices.raise_fault(error)
            raise
        self._decoder.stop(JOIN_DECODER_S)

    def obey(self, order: Order) -> None:
        """Do one order, after whatever waits, and report its outcome. Not while `run` runs."""
        self._take(order)
        with self._mode:
            while (step := self._pipeline.next()) is not None or self._turning:
                if step is not None:
                    self._do(Finish(self._pipeline.land()) if isinstance(step, Watch) else step)
                else:
                    self._give_turn()

    def _turn(self) -> None:
        if not self._orders.empty():
            return self._take(self._orders.get())
        if self._turning:
            return self._round()
        step = self._pipeline.next()
        if step is None:
            return self._wait()
        return self._watch(step.batch) if isinstance(step, Watch) else self._do(step)

    def _round(self) -> None:
        """One batch of what waits, if there is one, and a turn of one model's running batch."""
        self._leave()
        while (step := self._pipeline.next()) is not None:
            if isinstance(step, Watch):
                if step.batch.is_done:
                    self._finish(self._pipeline.land())
                break
            self._do(step)
            if isinstance(step, Launch) and not self._joins(step.batch):
                break
        self._give_turn()

    def _give_turn(self) -> None:
        self._mode.be(usual=False)
        key = next(iter(self._turning))
        abreast = self._turning.pop(key)
        abreast.turn()
        if len(abreast):
            self._turning[key] = abreast

    def _joins(self, held: _Held) -> bool:
        return (held.order.batch.model, held.order.batch.version) in self._abreast

    def _is_quiet(self) -> bool:
        return not any(len(abreast) for abreast in self._abreast.values())

    def _take(self, order: Order | DeviceFault | None) -> None:
        if isinstance(order, Run):
            self._pipeline.add(_Held(order))
        elif isinstance(order, Drop):
            self._drop(order.batch)
        elif isinstance(order, DeviceFault):
            self._fault = order
        elif order is not None:
            self._pipeline.bar(order)

    def _drop(self, batch: int) -> None:
        """Nobody waits for this batch. Only those that run beside others are dropped."""
        for held in self._pipeline.waiting:
            if held.order.batch.id == batch:
                held.is_dropped = self._joins(held)
                return
        for abreast in self._abreast.values():
            abreast.drop(batch)

    def _wait(self) -> None:
        """Wait for an order while there is nothing else to do."""
        if self._fault:
            raise self._fault
        try:
            if self._host is None:
                self._take(self._orders.get(timeout=TIDY_S))
            else:
                self._host.lead(lambda: not self._orders.empty(), TIDY_S)
                self._take(self._orders.get_nowait())
        except queue.Empty:
            self._sharing.tidy()

    def _leave(self) -> None:
        if self._host:
            self._host.leave()

    def _watch(self, held: _Held) -> None:
        """Wait until the batch is done or an order comes, whichever is first."""
        self._leave()
        while not held.is_done:
            waited_s = (self._clock() - held.launched) * WATCH_PART
            try:
                return self._take(self._orders.get(timeout=min(max(waited_s, WATCH_S_MIN), WATCH_S_MAX)))
            except queue.Empty:
                pass
        return self._finish(self._pipeline.land())

    def _do(self, step: Prepare[_Held] | Launch[_Held] | Finish[_Held] | Obey[Load | Unload]) -> None:
        match step:
            case Prepare(held):
                self._begin(held, self._of(held))
                self._prepare(held)
            case Launch(held):
                loaded = self._of(held)
                self._begin(held, loaded)
                self._launch(held, loaded)
            case Finish(held):
                self._finish(held)
            case Obey(order):
                with torch.inference_mode(False):  # what a model makes of its weights is its own affair
                    self._obey(order)

    def _obey(self, order: Load | Unload) -> None:
        if isinstance(order, Load):
            return self._load(order)
        self._free((order.model, order.version))
        return self._report(Copy(order.model, order.version, "gone", "", {}))

    def _load(self, order: Load) -> None:
        self._leave()
        self._report(Copy(order.model, order.version, "loading", "", {}))
        self._free((order.model, order.version))
        facts: dict[str, Any] = {}
        fault = None
        try:
            facts = self._ready(order)
            state, detail = "ready", ""
        except BaseException as error:
            state, detail = "failed", _traceback(error)
            fault = devices.fault_of(error)
        if fault:  # said, so that it is known which model did it
            self._report(Copy(order.model, order.version, state, detail, facts))
            raise fault
        if state == "failed":  # here, where the exception no longer holds the model in its frames
            log.warning("model %s version %s failed to load:\n%s", order.model, order.version, detail)
            self._forget((order.model, order.version))
        else:
            settle()
        self._report(Copy(order.model, order.version, state, detail, facts))

    def _ready(self, order: Load) -> dict[str, Any]:
        """Load and warm the model; the facts about it."""
        start, key = self._clock(), (order.model, order.version)
        folder = folder_of(order, self._store)
        facts = steady(folder, lambda: self._loaded_from(folder, order), lambda: self._forget(key))
        facts["load_ms"] = round((self._clock() - start) * 1000, 3)
        return facts

    def _loaded_from(self, folder: Path, order: Load) -> dict[str, Any]:
        spec = spec_of(order, folder)
        growth = devices.Growth(self.device)
        loaded = load(spec, devices.for_model(spec.device, self.device), self._sharing.holds)
        self._loaded[spec.key] = loaded
        if spec.abreast_max:
            self._abreast[spec.key] = self._abreast_of(loaded)
        with torch.inference_mode():
            facts = warm_up(loaded, self._clock)
        facts.update(growth.measured())
        facts["backend"] = {"name": spec.backend, **loaded.backend.describe()}
        return facts

    def _abreast_of(self, loaded: Loaded) -> Abreast:
        backend: Any = loaded.backend
        if loaded.spec.continuous:
            return Continuous(backend, loaded.spec.abreast_max, self._report, self._clock)
        return Beside(backend.answer_later, self._report, self._clock, self._ended)

    def _ended(self, fault: DeviceFault | None) -> None:
        """In another thread: a batch has ended there. An order may wait for that."""
        self._orders.put(fault)
        if self._host:
            self._host.call_runner()

    def _forget(self, key: tuple[str, str]) -> None:
        self._free(key)
        devices.free_memory()  # of one that was not through with its load, too

    def _free(self, key: tuple[str, str]) -> None:
        abreast = self._abreast.pop(key, None)
        if abreast is not None:
            abreast.close()
        loaded = self._loaded.pop(key, None)
        if loaded is not None:
            try:
                loaded.close()
            except BaseException as error:
                devices.raise_fault(error)
                loaded.tell(error)
            del loaded
            devices.free_memory()

    def _begin(self, held: _Held, loaded: Loaded | None) -> None:
        self._mode.be(usual=loaded is not None and loaded.wants_gradients)
        if self.running is None:
            self.running = (held.order.batch.id, self._clock())

    def _prepare(self, held: _Held) -> None:
        """Also called in the decoder's thread. Raises: nothing but DeviceFault."""
        loaded, batch = self._of(held), held.order.batch
        if loaded and loaded.preprocess:
            self._leave()  # it may decode a photograph
        if loaded is None:
            text = f"model {batch.model} version {batch.version} is not loaded here"
            held.refused = refuse_batch(batch, NotReady(text))
        else:
            held.passage = Passage(loaded, held.order, self._clock, self._sharing, self._report)
            held.step(Passage.prepare)

    def _launch(self, held: _Held, loaded: Loaded | None) -> None:
        if held.fault:
            raise held.fault
        if loaded is not None and loaded.spec.abreast_max:
            self._join(held)
            return
        if loaded is None or loaded.track.depth > 1:
            held.launched = self._clock()
            held.step(Passage.launch)
            return
        is_long = loaded.compute_s >= AHEAD_S
        if is_long:
            self._leave()
            self._decoder.lend(self._pipeline.is_open)
        held.step(Passage.launch)
        self._finish(self._pipeline.land())  # a launch on the CPU is the computation
        if is_long:
            self._decoder.take_back()

    def _join(self, held: _Held) -> None:
        """From here on the batch runs beside others of its model, and is theirs to answer."""
        self._pipeline.land()
        self.running = None
        key = (held.order.batch.model, held.order.batch.version)
        abreast = self._abreast[key]
        if held.passage is None or held.is_dropped:
            self._report(held.refused or dropped(held.order.batch))
        else:
            abreast.join(held.passage)
        if abreast.takes_turns and len(abreast) and key not in self._turning:
            self._turning[key] = abreast

    def _prepare_ahead(self) -> None:
        """In the decoder's thread: prepare the batch at the head, if it may be."""
        held = self._pipeline.ahead(self._may_be_ahead)
        if held is not None:
            try:
                with torch.inference_mode():  # which a thread must enter for itself
                    self._prepare(held)
            except DeviceFault as fault:
                held.fault = fault  # the runner finds it when it launches the batch

    def _may_be_ahead(self, held: _Held) -> bool:
        loaded = self._of(held)
        return loaded is not None and loaded.spec.decode_ahead

    def _finish(self, held: _Held) -> None:
        """Of a model in inference mode another one's batch may have been prepared or launched meanwhile."""
        if held.passage and not held.passage.loaded.wants_gradients:
            self._mode.be(usual=False)
        result = held.step(Passage.finish) or held.refused
        assert result is not None, "a batch without a passage is refused"
        flying = self._pipeline.in_flight
        self.running = (flying[0].order.batch.id, self._clock()) if flying else None
        self._report(result)

    def _depth(self, held: _Held) -> int:
        """How many batches may be in flight with this one."""
        loaded = self._of(held)
        return loaded.track.depth if loaded else 1

    def _of(self, held: _Held) -> Loaded | None:
        return self._loaded.get((held.order.batch.model, held.order.batch.version))


@dataclass(eq=False)
class _Held:
    """A batch that the runner holds. `refused` is there instead of a passage."""

    order: Run
    passage: Passage | None = None
    refused: Result | None = None
    fault: DeviceFault | None = None
    launched: float = 0.0
    is_dropped: bool = False

    def step(self, step: Callable[[Passage], T]) -> T | None:
        """Do one step of the passage, if there is one; a defect of ours refuses the whole batch.
        Raises: DeviceFault."""
        if self.passage is None:
            return None
        try:
            return step(self.passage)
        except BaseException as error:
            devices.raise_fault(error)
            batch = self.order.batch
            log.exception("batch %d of model %s", batch.id, batch.model)
            self.refused = refuse_batch(batch, InternalError(error_text(error)))
        self.passage.abandon()
        self.passage = None
        return None

    @property
    def is_done(self) -> bool:
        """Whether finishing it need not wait for the device."""
        return self.passage is None or self.passage.is_done


def _traceback(error: BaseException) -> str:
    """The traceback as it can travel: its end, where the reason is, when it is too long."""
    try:
        text = "".join(traceback.format_exception(error))
    except Exception:  # an exception that cannot be printed
        text = error_text(error)
    return printable(text[-DETAIL_CHARS_MAX:])
