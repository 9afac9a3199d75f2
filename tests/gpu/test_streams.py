"""Batches on a real GPU: what comes out is what a plain loop computes, however they overlap."""

from __future__ import annotations

import random
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from headway.errors import ModelError
from headway.lent import Lender
from headway.messages import BatchRequest
from headway.outgoing import ask_tensors
from headway_worker.sharing import Sharing
from tests.gpu.conftest import OnGpu
from tests.worker.bench import X, Y, floats, request, tensor, tensors_of

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

SIZE = 1 << 16
WIDE = tensor("inputs", "x", shape=(SIZE,)) + tensor("outputs", "y", shape=(SIZE,))
# Enough work that the next batch is copied in meanwhile; every row of the output depends on its input alone.
BUSY = """
import torch
class Model(torch.nn.Module):
    def forward(self, x):
        y = x.double()
        for _ in range(20): y = (y * 3 + 1) / 3
        return (y - 20 / 3).float()
"""
# A plain network, in which kernels differ from size to size.
NET = """
import torch
class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(5)
            self.net = torch.nn.Sequential(
                torch.nn.Conv2d(3, 16, 3, stride=2), torch.nn.ReLU(), torch.nn.Conv2d(16, 32, 3, stride=2),
                torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(32, 10))
    def forward(self, x):
        return self.net(x)
"""
IMAGE = tensor("inputs", "x", shape=(3, 64, 64)) + tensor("outputs", "y", shape=(10,))


def row(value: float) -> BatchRequest:
    return request(timeout_ms=60_000, x=np.full(SIZE, value, np.float32))


def expected(images: np.ndarray) -> np.ndarray:
    """What the network computes on the CPU, one image after the other."""
    names: dict = {}
    exec(NET, names)
    with torch.inference_mode():
        return names["Model"]().eval()(torch.from_numpy(images)).numpy()


@pytest.mark.parametrize("more", ["", "batch_buckets = [1, 3, 8]\n", "cuda_graphs = true\n"])
def test_many_batches_of_random_sizes_each_get_their_own_outputs(on_gpu: OnGpu, more: str) -> None:
    on_gpu.load("batch_size_max = 8\n" + more + WIDE, BUSY)
    random_ = random.Random(5)
    batches = [[random_.uniform(-9, 9) for _ in range(random_.randint(1, 8))] for _ in range(200)]
    for number, values in enumerate(batches):
        on_gpu.put(number, *map(row, values))
    for number, values in enumerate(batches):
        result = on_gpu.result()
        assert result.batch == number
        for value, reply in zip(values, result.replies, strict=True):
            assert np.allclose(tensors_of(reply)["y"], np.float32(value), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("more", "error"),
    [
        ("", 2e-3),  # TF32 may be on
        ("cuda_graphs = true\n", 2e-3),
        ("channels_last = true\n", 2e-3),
        ('precision = "float16"\n', 2e-2),
        ('precision = "bfloat16"\n', 1e-1),
        ('precision = "float16"\nchannels_last = true\ncuda_graphs = true\n', 2e-2),
        ("batch_buckets = [4, 8]\ncuda_graphs = true\n", 2e-3),
    ],
)
def test_a_network_answers_as_it_does_on_the_cpu(on_gpu: OnGpu, more: str, error: float) -> None:
    copy = on_gpu.load("batch_size_max = 8\n" + more + IMAGE, NET)
    if "cuda_graphs" in more:
        sizes = 2 if "buckets" in more else 4
        assert copy.facts["cuda_graphs"] == f"captured for {sizes} sizes"
    images = np.random.default_rng(7).standard_normal((40, 3, 64, 64), np.float32)
    want = expected(images)
    places, cuts = 0, []
    for rows in (1, 8, 3, 5, 2, 8, 7, 6):
        cuts.append(slice(places, places + rows))
        places += rows
    for number, cut in enumerate(cuts):
        on_gpu.put(number, *(request(timeout_ms=60_000, x=image) for image in images[cut]))
    for cut in cuts:
        got = np.stack([tensors_of(reply)["y"] for reply in on_gpu.result().replies])
        assert np.abs(got - want[cut]).max() < error


def test_copies_in_overlap_the_computation_of_the_batch_before(on_gpu: OnGpu) -> None:
    """Two batches whose computing takes as long as their copying in: together they take less than twice
    one."""
    size = 1 << 24
    toml = tensor("inputs", "x", shape=(size,)) + tensor("outputs", "y", shape=())
    model = """
import torch
class Model(torch.nn.Module):
    def forward(self, x):
        y = x
        for _ in range(60): y = y * 1.0001
        return y.sum(1)
"""
    on_gpu.load(toml, model)
    track = on_gpu.runner._loaded["m", "1"].track
    events: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []
    launch = track.launch

    def noted(inputs, clock):
        copied = torch.cuda.Event(enable_timing=True)
        flight = launch(inputs, clock)
        copied.record(track._gpu.copy_in)
        events.append((copied, flight._computed))
        return flight

    track.launch = noted
    x = np.ones(size, np.float32)
    for number in range(6):
        on_gpu.put(number, request(timeout_ms=60_000, x=x))
    for _ in range(6):
        on_gpu.result()
    torch.cuda.synchronize()
    # Some batch was in before the one before it was computed.
    pairs = pairwise(events)
    leads_ms = [copied.elapsed_time(before) for (_, before), (copied, _) in pairs]
    assert max(leads_ms) > 0, leads_ms


def test_a_callers_memory_is_read_by_the_copy_engine(tmp_path: Path) -> None:
    from headway_worker.pages import pages_for

    pages = pages_for(torch.device("cuda", 0))
    assert pages is not None
    on_gpu = OnGpu(tmp_path, Sharing(tmp_path / "segments", pages))
    lender = Lender(f"ipc://{tmp_path}/broker.sock", 1 << 26)
    try:
        on_gpu.load("batch_size_max = 4\nbatch_buckets = [1, 2, 4]\n" + WIDE, BUSY)
        collate = on_gpu.runner._loaded["m", "1"].track.collate
        kinds = []

        def noted(requests):
            inputs = collate(requests)
            kinds.append(type(inputs["x"]).__name__)
            return inputs

        on_gpu.runner._loaded["m", "1"].track.collate = noted
        asked = [
            [ask_tensors("m", {"x": np.full(SIZE, n + i / 4, np.float32)}, lender=lender) for i in range(3)]
            for n in range(20)
        ]
        for number, batch in enumerate(asked):
            on_gpu.put(number, *(BatchRequest(60_000, 0, ask.options, b"") for ask in batch))
        for n in range(20):
            for i, reply in enumerate(on_gpu.result().replies):
                assert np.allclose(tensors_of(reply)["y"], n + i / 4, rtol=1e-5, atol=1e-5)
        assert set(kinds) == {"Direct"}, "the driver did not take the segment"
    finally:
        lender.close()
        on_gpu.stop()
    on_gpu.runner._sharing.tidy()
    assert pages._lengths == {}


def test_memory_that_runs_out_costs_the_batch_but_not_its_requests(on_gpu: OnGpu) -> None:
    """More than one row is more than the device has; one by one they fit."""
    free, _ = torch.cuda.mem_get_info()
    toml = "batch_size_max = 4\n" + tensor("inputs", "x", shape=(-1,)) + tensor("outputs", "y", shape=())
    model = f"""
import torch
class Model:
    def infer(self, x):
        torch.empty((len(x), {free * 6 // 10}), dtype=torch.uint8, device=x.device)
        return x.sum(1)
"""
    on_gpu.load(toml, model)
    on_gpu.put(1, *(request(timeout_ms=60_000, x=floats(n, 1)) for n in range(3)))
    on_gpu.put(2, request(timeout_ms=60_000, x=floats(5, 1)))
    assert [tensors_of(reply)["y"].item() for reply in on_gpu.result().replies] == [1, 2, 3]
    assert [tensors_of(reply)["y"].item() for reply in on_gpu.result().replies] == [6]


def test_a_request_that_raises_gets_the_error_and_those_in_flight_around_it_are_answered(
    on_gpu: OnGpu,
) -> None:
    model = """
class Model:
    def infer(self, x):
        if (x == 13).any(): raise RuntimeError("unlucky")
        return x * 2
"""
    on_gpu.load("batch_size_max = 4\n" + X + Y, model)
    for number in range(30):
        second = 13 if number % 3 else 2
        on_gpu.put(number, *(request(timeout_ms=60_000, x=floats(n, n)) for n in (1, second)))
    for number in range(30):
        codes = [reply.code for reply in on_gpu.result().replies]
        assert codes == [0, ModelError.code if number % 3 else 0]


def test_what_warm_up_measured_grows_with_the_batch(on_gpu: OnGpu) -> None:
    costs = on_gpu.load("batch_size_max = 64\n" + WIDE, BUSY).facts["batch_us"]
    assert list(costs) == ["1", "2", "4", "8", "16", "32", "64"]
    assert costs["64"] > costs["1"] > 0


def test_a_model_on_the_cpu_runs_beside_one_on_the_gpu(on_gpu: OnGpu) -> None:
    on_gpu.load("batch_size_max = 4\n" + X + Y, "class Model:\n    def infer(self, x): return x * 2\n")
    model = "class Model:\n    def infer(self, x):\n        assert not x.is_cuda\n        return x * 3\n"
    on_gpu.load('device = "cpu"\nbatch_size_max = 4\n' + X + Y, model, version="2")
    for number in range(20):
        on_gpu.put(number, request(timeout_ms=60_000, x=floats(1, 1)), version=str(1 + number % 2))
    got = [tensors_of(on_gpu.result().replies[0])["y"][0] for _ in range(20)]
    assert got == [2, 3] * 10
