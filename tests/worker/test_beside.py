"""Batches as coroutines, in a real loop in its thread, with a model that the test plays."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Sequence

import pytest

from headway.messages import Result
from headway_worker import abreast, beside
from headway_worker.beside import Beside
from headway_worker.faults import DeviceFault
from headway_worker.request import ModelRequest
from headway_worker.tracks import Share
from tests.worker.abreast_bench import AbreastBench, text

WAIT_S = 5.0


class Coroutines(AbreastBench):
    """The model does what a request's body says: answer, wait for a bell, ring it, raise, block."""

    def __init__(self) -> None:
        super().__init__(in_flight_max=10)
        self.faults: list[DeviceFault | None] = []
        self.bell: asyncio.Event | None = None
        self.cancelled: list[bytes] = []
        self.beside = Beside(self.answer, self.reports.append, self.clock, self.faults.append)

    async def answer(self, requests: Sequence[ModelRequest]) -> list[Share]:
        self.bell = self.bell or asyncio.Event()
        said = requests[0].body
        if said == b"wait":
            try:
                await self.bell.wait()
            except asyncio.CancelledError:
                self.cancelled.append(said)
                raise
        elif said == b"ring":
            self.bell.set()
        elif said == b"raise":
            raise ValueError("told to")
        elif said == b"exit":
            raise SystemExit(3)
        elif said == b"fault":
            raise DeviceFault("broken")
        elif said == b"too few":
            return []
        return [text(request.body + b"!") for request in requests]

    def join(self, batch: int, *bodies: bytes) -> None:
        self.beside.join(self.passage(batch, *bodies))

    def until(self, true: Callable[[], object]) -> None:
        end = time.monotonic() + WAIT_S
        while not true():
            assert time.monotonic() < end, f"only {self.reports}"
            time.sleep(0.002)


@pytest.fixture
def bench() -> Iterator[Coroutines]:
    made = Coroutines()
    yield made
    made.beside.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "headway-coroutines"]


def test_one_waits_for_another_that_came_later_and_they_end_out_of_order(bench: Coroutines) -> None:
    bench.join(1, b"wait")
    bench.join(2, b"a", b"b")
    bench.until(lambda: 2 in bench.results)
    assert (list(bench.results), len(bench.beside)) == ([2], 1)
    bench.join(3, b"ring")
    bench.until(lambda: len(bench.results) == 3)
    assert bench.results == {2: [b"a!", b"b!"], 3: [b"ring!"], 1: [b"wait!"]}
    bench.until(lambda: not len(bench.beside))
    assert bench.faults == [None] * 3


@pytest.mark.parametrize("what", [b"raise", b"exit", b"too few"])
def test_an_exception_is_its_batchs_alone(bench: Coroutines, what: bytes) -> None:
    bench.join(1, b"wait")
    bench.join(2, what)
    bench.join(3, b"ring")
    bench.until(lambda: len(bench.results) == 3)
    assert isinstance(bench.results[2][0], str)
    assert (bench.results[1], bench.results[3]) == ([b"wait!"], [b"ring!"])


def test_one_that_is_dropped_is_cancelled_and_answered(bench: Coroutines) -> None:
    bench.join(1, b"wait")
    bench.join(2, b"wait")
    bench.until(lambda: bench.bell)
    bench.beside.drop(1)
    bench.beside.drop(77)
    bench.until(lambda: 1 in bench.results)
    assert bench.cancelled == [b"wait"]
    assert 2 not in bench.results


def test_one_that_is_dropped_before_it_begins_is_answered(bench: Coroutines) -> None:
    bench.join(1, b"wait")
    bench.beside.drop(1)
    bench.until(lambda: 1 in bench.results)


def test_a_fault_of_the_device_is_told_and_answers_nobody(bench: Coroutines) -> None:
    bench.join(1, b"fault")
    bench.until(lambda: bench.faults)
    assert isinstance(bench.faults[0], DeviceFault)
    assert not bench.results


def test_closing_cancels_what_is_there(bench: Coroutines) -> None:
    bench.join(1, b"wait")
    bench.until(lambda: bench.bell)
    bench.beside.close()
    assert bench.cancelled == [b"wait"]


def test_the_loop_says_that_it_goes_on_as_long_as_there_are_batches(
    bench: Coroutines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(beside, "BEAT_S", abreast.BEAT_S / 100)
    bench.join(1, b"wait")
    bench.until(lambda: len(bench.signs_of_life) > 2)
    bench.join(2, b"ring")
    bench.until(lambda: len(bench.results) == 2)
    count = len(bench.signs_of_life)
    time.sleep(0.05)
    assert len(bench.signs_of_life) <= count + 1
    bench.join(3, b"ring")
    bench.until(lambda: 3 in bench.results)


def test_a_batch_of_which_nothing_is_to_be_run_is_answered_at_once(bench: Coroutines) -> None:
    bench.beside.join(bench.passage(1, b"a", late_s=100.0))
    [result] = [report for report in bench.reports if isinstance(report, Result)]
    assert result.replies[0].code
    assert len(bench.beside) == 0
