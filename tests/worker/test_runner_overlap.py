"""The runner's thread with the decoder's beside it, and with batches in flight: nothing is lost or mixed
up."""

from __future__ import annotations

import queue
import random
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from headway.body import Body, pack_body
from headway.errors import DeadlineExceeded, InternalError, ModelError, NotReady
from headway.messages import Batch, BatchRequest, Copy, Load, Result, Unload
from headway_worker.faults import DeviceFault
from headway_worker.orders import Order, Report, Run
from headway_worker.runner import Runner
from headway_worker.streams import StreamTrack
from tests.worker.bench import DOUBLE, Bench, X, Y, floats, json_of, request, tensor, tensors_of
from tests.worker.standin import Event, StandIn

WAIT_S = 60.0
# Busy for 20 ms as a model on the CPU is: without the GIL. Answers with the thread that preprocessed.
SLOW = """
import threading, time, torch
class Model:
    def preprocess(self, request):
        if request.body == b"exit": raise SystemExit("no")
        request.state["thread"] = threading.current_thread().name
        assert torch.is_inference_mode_enabled()
        return torch.tensor([float(request.body), 0.0])
    def infer(self, x):
        time.sleep(0.02)
        return x * 2
    def postprocess(self, outputs, request):
        return [request.state["thread"], float(outputs["y"][0])]
"""
DECODER = "headway-decoder"


class Threaded:
    """A runner in a thread of its own, with a real clock, and what it reports."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.reports: queue.SimpleQueue[Report] = queue.SimpleQueue()
        self.runner = Runner(torch.device("cpu"), self.reports.put, time.monotonic)
        self.thread = threading.Thread(target=self.runner.run, name="headway-runner")
        self.thread.start()

    def load(self, toml: str, model: str) -> None:
        folder = self.bench.write(toml, model=model)
        self.runner.put(Load("m", "1", str(folder)))
        loading, ready = self.next(), self.next()
        assert isinstance(loading, Copy) and isinstance(ready, Copy)
        assert ready.state == "ready", ready.detail

    def put(self, *orders: Order) -> None:
        for order in orders:
            self.runner.put(order)

    def next(self) -> Report:
        return self.reports.get(timeout=WAIT_S)

    def result(self) -> Result:
        report = self.next()
        assert isinstance(report, Result)
        return report

    def stop(self) -> None:
        self.runner.stop()
        self.thread.join(WAIT_S)
        assert not self.thread.is_alive()


@pytest.fixture
def threaded(bench: Bench) -> Iterator[Threaded]:
    threaded = Threaded(bench)
    yield threaded
    threaded.stop()


def run(number: int, *requests: BatchRequest) -> Run:
    return Run(Batch(number, "m", "1", 60_000, list(requests)), time.monotonic())


def body(text: str, timeout_ms: int = 60_000) -> BatchRequest:
    packed, options = pack_body(Body(text.encode()))
    return BatchRequest(timeout_ms, 0, options, packed)


def test_the_next_batch_is_prepared_in_the_decoders_thread_while_one_computes(threaded: Threaded) -> None:
    threaded.load("batch_size_max = 4\n" + X + Y, SLOW)
    threaded.put(*(run(n, body(str(n)), body(str(n + 0.5))) for n in range(5)))
    results = [threaded.result() for _ in range(5)]
    assert [result.batch for result in results] == list(range(5))
    answers = [[json_of(reply) for reply in result.replies] for result in results]
    assert [[answer[1] for answer in pair] for pair in answers] == [[2 * n, 2 * n + 1] for n in range(5)]
    threads = [pair[0][0] for pair in answers]
    assert threads == ["headway-runner"] + [DECODER] * 4


def test_a_batch_that_comes_while_one_computes_is_prepared_then(threaded: Threaded) -> None:
    threaded.load(X + Y, SLOW.replace("0.02", "0.3"))
    threaded.put(run(0, body("0")))
    time.sleep(0.1)  # it computes, and the decoder waits for an order
    threaded.put(run(1, body("1")))
    assert [json_of(threaded.result().replies[0])[0] for _ in range(2)] == ["headway-runner", DECODER]


def test_a_batch_that_finds_the_runner_idle_sees_no_other_thread(threaded: Threaded) -> None:
    threaded.load(X + Y, SLOW)
    for n in range(3):
        threaded.put(run(n, body("1")))
        assert json_of(threaded.result().replies[0])[0] == "headway-runner"


@pytest.mark.parametrize(
    ("toml", "model"),
    [("decode_ahead = false\n", SLOW), ("", SLOW.replace("time.sleep(0.02)", "pass"))],
)
def test_nothing_is_prepared_ahead_where_it_may_not_be_or_does_not_pay(
    threaded: Threaded, toml: str, model: str
) -> None:
    threaded.load(toml + X + Y, model)
    threaded.put(*(run(n, body("1")) for n in range(4)))
    assert {json_of(threaded.result().replies[0])[0] for _ in range(4)} == {"headway-runner"}


def test_an_exit_in_the_decoders_thread_answers_its_request_only(threaded: Threaded) -> None:
    threaded.load("batch_size_max = 4\n" + X + Y, SLOW)
    threaded.put(run(0, body("0")), run(1, body("1"), body("exit"), body("3")), run(2, body("2")))
    assert [[r.code for r in threaded.result().replies] for _ in range(3)] == [
        [0],
        [0, ModelError.code, 0],
        [0],
    ]


def test_a_defect_of_ours_in_the_decoders_thread_answers_its_batch_only(threaded: Threaded) -> None:
    threaded.load(X + Y, SLOW)
    nonsense = body("1")._replace(timeout_ms=None)  # the wire would not let it pass
    threaded.put(run(0, body("0")), run(1, nonsense), run(2, body("2")))
    assert [threaded.result().replies[0].code for _ in range(3)] == [0, InternalError.code, 0]


def test_what_expires_after_it_was_prepared_is_not_run(threaded: Threaded) -> None:
    threaded.load("batch_size_max = 4\n" + X + Y, SLOW.replace("0.02", "0.2"))
    threaded.put(run(0, body("0")), run(1, body("1"), body("2", timeout_ms=100), body("3")))
    threaded.result()
    replies = threaded.result().replies
    assert [reply.code for reply in replies] == [0, DeadlineExceeded.code, 0]
    assert [json_of(reply) for reply in replies[::2]] == [[DECODER, 2], [DECODER, 6]]


def test_a_batch_of_which_all_expire_after_it_was_prepared_costs_nothing(threaded: Threaded) -> None:
    threaded.load(X + Y, SLOW.replace("0.02", "0.2"))
    threaded.put(run(0, body("0")), run(1, body("1", timeout_ms=100)))
    threaded.result()
    result = threaded.result()
    assert (result.compute_us, result.replies[0].code) == (0, DeadlineExceeded.code)


def test_an_unload_waits_for_what_was_prepared_and_later_batches_find_no_model(threaded: Threaded) -> None:
    threaded.load(X + Y, SLOW)
    threaded.put(run(0, body("0")), run(1, body("1")), Unload("m", "1"), run(2, body("2")))
    assert [threaded.result().replies[0].code for _ in range(2)] == [0, 0]
    assert threaded.next() == Copy("m", "1", "gone", "", {})
    assert threaded.result().replies[0].code == NotReady.code


def test_a_load_between_two_batches_is_of_the_new_files(threaded: Threaded, bench: Bench) -> None:
    threaded.load(X + Y, SLOW)
    other = bench.write_version("2", X + Y, model=SLOW.replace("x * 2", "x * 100"))
    threaded.put(run(0, body("1")), Load("m", "1", str(other)), run(1, body("1")))
    assert json_of(threaded.result().replies[0])[1] == 2
    assert [threaded.next() for _ in range(2)][1].state == "ready"  # type: ignore[union-attr]
    assert json_of(threaded.result().replies[0])[1] == 100


def test_stopping_while_the_decoder_prepares_ends_both_threads(bench: Bench) -> None:
    threaded = Threaded(bench)
    threaded.load(X + Y, SLOW)
    threaded.put(*(run(n, body("1")) for n in range(50)))
    threaded.result()
    threaded.stop()
    assert not [thread for thread in threading.enumerate() if thread is threaded.runner._decoder._thread]


def test_a_model_that_keeps_or_returns_its_inputs_harms_no_other_batch(threaded: Threaded) -> None:
    model = """
import time
class Model:
    kept = []
    def infer(self, x):
        time.sleep(0.005)
        self.kept = [*self.kept[-3:], (x, x.clone())]
        assert all((one == other).all() for one, other in self.kept)
        return x[:, ::1]
"""
    size = 1 << 18  # a MiB: worth keeping
    threaded.load(
        "batch_size_max = 2\n" + tensor("inputs", "x", shape=(size,)) + tensor("outputs", "y", shape=(size,)),
        model,
    )
    for n in range(12):
        requests = [request(timeout_ms=60_000, x=np.full(size, n + i / 2, np.float32)) for i in (0, 1)]
        threaded.put(run(n, *requests))
    for n in range(12):
        for i, reply in enumerate(threaded.result().replies):
            y = tensors_of(reply)["y"]
            assert (y == n + i / 2).all()


def on_streams(runner: Runner, gpu: StandIn) -> None:
    """Move the loaded model to a device that stands in for a GPU."""
    loaded = runner._loaded["m", "1"]
    loaded.track = StreamTrack(loaded.spec, loaded.backend.infer, loaded.buckets, gpu, lambda *_: False)


PICKY = DOUBLE.replace("return", "if (x == 13).any(): raise RuntimeError('unlucky')\n        return")


@pytest.mark.parametrize("seed", range(5))
def test_batches_in_flight_on_a_device_are_answered_in_order_and_the_guilty_alone_get_the_error(
    threaded: Threaded, seed: int
) -> None:
    threaded.load("batch_size_max = 4\n" + X + Y, PICKY)
    on_streams(threaded.runner, StandIn(seed, waits=True))
    random_ = random.Random(seed)
    batches = [[random_.choice([1, 2, 3, 13]) for _ in range(random_.randint(1, 4))] for _ in range(30)]
    for number, values in enumerate(batches):
        threaded.put(run(number, *(request(timeout_ms=60_000, x=floats(v, v)) for v in values)))
        if random_.random() < 0.2:
            time.sleep(0.001)
    for number, values in enumerate(batches):
        result = threaded.result()
        assert result.batch == number
        assert [reply.code for reply in result.replies] == [ModelError.code * (v == 13) for v in values]
        for value, reply in zip(values, result.replies, strict=True):
            assert value == 13 or tensors_of(reply)["y"].tolist() == [2 * value] * 2


def test_one_batch_on_a_device_is_answered_without_waiting_for_another(threaded: Threaded) -> None:
    threaded.load("batch_size_max = 4\n" + X + Y, DOUBLE)
    on_streams(threaded.runner, StandIn())
    threaded.put(run(1, request(timeout_ms=60_000, x=floats(1, 2))))
    assert tensors_of(threaded.result().replies[0])["y"].tolist() == [2, 4]


class Failing(StandIn):
    """Fails twice while a batch is in flight."""

    failures = 2

    def __init__(self, error: str) -> None:
        super().__init__()
        self.error = error

    def is_done(self, event: Event) -> bool:
        return self.fail() or super().is_done(event)

    def synchronize(self, event: Event) -> None:
        super().synchronize(event)
        self.fail()

    def fail(self) -> bool:
        if self.failures:
            self.failures -= 1
            raise RuntimeError(self.error)
        return False


def test_a_device_that_fails_while_a_batch_is_in_flight_fails_that_batch_only(threaded: Threaded) -> None:
    threaded.load("batch_size_max = 4\n" + X + Y, DOUBLE)
    on_streams(threaded.runner, Failing("CUDA error: invalid argument"))
    threaded.put(run(1, request(timeout_ms=60_000, x=floats(1, 2))))
    first = threaded.result()
    threaded.put(run(2, request(timeout_ms=60_000, x=floats(1, 2))))
    second = threaded.result()
    assert (first.batch, first.replies[0].code) == (1, ModelError.code)
    assert "invalid argument" in str(first.replies[0].content)
    assert (second.batch, second.replies[0].code) == (2, 0)


def test_a_device_that_breaks_while_batches_are_in_flight_ends_the_run_and_answers_neither(
    bench: Bench,
) -> None:
    bench.serve("batch_size_max = 4\n" + X + Y)
    on_streams(bench.runner, Failing("CUDA error: an illegal memory access was encountered"))
    told = len(bench.reports)
    for number in (1, 2, 3):
        bench.runner.put(run(number, request(timeout_ms=60_000, x=floats(1, 2))))
    with pytest.raises(DeviceFault, match="illegal memory access"):
        bench.runner.run()
    assert bench.reports[told:] == []


def test_memory_that_runs_out_in_flight_has_requests_run_one_by_one(threaded: Threaded) -> None:
    full = "if len(x) > 1 and x.max() == 3: raise torch.cuda.OutOfMemoryError\n        return"
    model = "import torch\n" + DOUBLE.replace("return", full)
    threaded.load("batch_size_max = 4\n" + X + Y, model)
    on_streams(threaded.runner, StandIn(waits=True))
    threaded.put(
        run(1, *(request(timeout_ms=60_000, x=floats(3, n)) for n in (1, 2))),
        run(2, request(timeout_ms=60_000, x=floats(1, 2))),
    )
    assert [reply.code for _ in range(2) for reply in threaded.result().replies] == [0, 0, 0]
