"""Batches that run beside one another as coroutines, in a loop of their model's own, which is a thread.

Knows: asyncio, the thread. Must not know: sockets, pipelines, how a handler is called.

A batch is prepared in the runner's thread and answered in the loop's, when its coroutine has ended; so it
does not wait for the runner, which may be in another model meanwhile. A batch that is dropped, or is there
when the model goes, is cancelled. The loop says now and then that it goes on, as long as it does: a coroutine
that blocks it is found by its lease. It runs for as long as the model is loaded, and what a handler starts in
it lives as long.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Sequence

from headway.errors import InternalError, ModelError
from headway_worker.abreast import BEAT_S, Reports, dropped, sign_of_life
from headway_worker.batches import Passage, refuse_batch
from headway_worker.faults import DeviceFault
from headway_worker.replies import error_text
from headway_worker.request import ModelRequest
from headway_worker.tracks import Clock, Share

log = logging.getLogger("headway.worker")
CLOSE_S = 5.0
AnswerLater = Callable[[Sequence[ModelRequest]], Awaitable[list[Share]]]


class Beside:
    """One model's batches. `ended` is called, in the loop's thread, after each was reported; with the fault
    if it was one of the device, which is not."""

    takes_turns = False

    def __init__(
        self,
        answer_later: AnswerLater,
        report: Reports,
        clock: Clock,
        ended: Callable[[DeviceFault | None], None] = lambda fault: None,
    ) -> None:
        self._answer_later = answer_later
        self._report = report
        self._clock = clock
        self._ended = ended
        self._open: dict[int, Passage] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}  # used in the loop's thread only
        self._beating: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._is_closed = False

    def __len__(self) -> int:
        return len(self._open)

    def join(self, passage: Passage) -> None:
        if not passage.requests:  # each has its error
            self._report(passage.result())
            return
        self._open[passage.batch.id] = passage
        self._started().call_soon_threadsafe(self._begin, passage)

    def drop(self, batch: int) -> None:
        if batch in self._open and self._loop:
            self._loop.call_soon_threadsafe(self._cancel, batch)

    def turn(self) -> None:
        """They go on by themselves."""

    def close(self) -> None:
        """Cancel what there is, and end the loop."""
        self._is_closed = True
        if self._loop and self._thread and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._stop)
            self._thread.join(CLOSE_S)
            if self._thread.is_alive():
                log.warning("a coroutine of an unloaded model does not end")

    def _started(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(target=self._run, args=[self._loop], daemon=True)
            self._thread.name = "headway-coroutines"
            self._thread.start()
        return self._loop

    # ---- in the loop's thread ----

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        while not self._is_closed:
            try:
                loop.run_forever()
            except BaseException:  # a task of the handler's own that raised SystemExit, say
                log.exception("a coroutine of a model")
        loop.run_until_complete(self._wind_up())
        loop.close()

    def _begin(self, passage: Passage) -> None:
        batch = passage.batch.id
        self._tasks[batch] = asyncio.ensure_future(self._answer(passage))
        self._tasks[batch].add_done_callback(lambda task: self._end(passage, task))
        if self._beating is None or self._beating.done():
            self._beating = asyncio.ensure_future(self._beat())

    def _cancel(self, batch: int) -> None:
        if task := self._tasks.get(batch):
            task.cancel()

    def _stop(self) -> None:
        asyncio.get_event_loop().stop()

    async def _wind_up(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.wait([asyncio.gather(*others, return_exceptions=True)], timeout=CLOSE_S)

    async def _answer(self, passage: Passage) -> None:
        """Run one batch to its end, and report it. Raises: DeviceFault."""
        start, requests = self._clock(), [*passage.requests.values()]
        try:
            shares = await self._answer_later(requests)
            if len(shares) != len(requests):
                raise ModelError(f"the backend answered {len(shares)} requests of {len(requests)}")
            result = passage.end(shares, self._clock() - start)
        except asyncio.CancelledError:
            result = dropped(passage.batch)
        except BaseException as error:
            result = passage.fail(error)
        self._report(result)

    def _end(self, passage: Passage, task: asyncio.Task[None]) -> None:
        batch, fault = passage.batch.id, None
        del self._open[batch], self._tasks[batch]
        if task.cancelled():  # before it began
            self._report(dropped(passage.batch))
        elif isinstance(error := task.exception(), DeviceFault):
            fault = error
        elif error:  # a defect of ours
            log.error("batch %d of model %s", batch, passage.batch.model, exc_info=error)
            self._report(refuse_batch(passage.batch, InternalError(error_text(error))))
        self._ended(fault)

    async def _beat(self) -> None:
        """Say that the loop goes on, as long as there are batches."""
        while self._open:
            await asyncio.sleep(BEAT_S)
            if self._tasks:
                self._report(sign_of_life(next(iter(self._tasks))))
