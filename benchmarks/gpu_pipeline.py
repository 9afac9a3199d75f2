"""How much of a GPU is left after our pipeline: ResNet-50 through the worker's runner, and in a bare loop.

    python -m benchmarks.gpu_pipeline --rows 32 --precision float16
    python -m benchmarks.gpu_pipeline --no-graphs --inline      without CUDA graphs; tensors in messages

Three figures, images a second: the network alone on an image that is on the GPU already (what the GPU can
do); a bare loop that copies each batch in from page-locked memory on a second stream (what a program
without a server can do); the runner with requests of one image each, two batches at a time as the broker
sends them, read from shared memory unless `--inline`. All in the same precision, channels last, with CUDA
graphs.

Needs a GPU. Must not know: the broker, HTTP.
"""

from __future__ import annotations

import argparse
import json
import queue
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from runpy import run_path
from typing import Any

import numpy as np
import torch

from headway.lent import Lender
from headway.messages import Batch, BatchRequest, Copy, Load, Result
from headway.outgoing import ask_tensors
from headway.tensors import pack
from headway_worker.orders import Report, Run
from headway_worker.pages import pages_for
from headway_worker.runner import Runner
from headway_worker.sharing import Sharing

SOURCE = Path(__file__).parent / "models" / "resnet50" / "1" / "model.py"
IMAGE = (3, 224, 224)
CREDIT = 2
WAIT_S = 600.0
TOML = """
backend = "python"
batch_size_max = {rows}
batch_buckets = [1, {rows}]
precision = "{precision}"
channels_last = true
cuda_graphs = {graphs}
inputs = [{{name = "x", dtype = "float32", shape = [3, 224, 224]}}]
outputs = [{{name = "y", dtype = "float32", shape = [1000]}}]
"""


def rate(step: Callable[[], Any], rows: int, seconds: float, end: Callable[[], Any]) -> float:
    """Images a second of `step`, which does one batch; `end` waits for the last one."""
    for _ in range(10):
        step()
    end()
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        step()
        count += 1
        if count % 4 == 0:  # or the loop runs far ahead of the GPU
            end()
    end()
    return rows * count / (time.perf_counter() - start)


class Bare:
    """The network as a program without a server would run it: captured, two static inputs, two streams."""

    def __init__(self, rows: int, precision: str, graphs: bool) -> None:
        self.dtype = getattr(torch, precision)
        network = run_path(str(SOURCE))["Model"]().eval().cuda()
        self.network = network.to(self.dtype).to(memory_format=torch.channels_last)
        self.x = torch.zeros(rows, *IMAGE, device="cuda", dtype=self.dtype).contiguous(
            memory_format=torch.channels_last
        )
        self.host = [torch.rand(rows, *IMAGE).pin_memory() for _ in range(2)]
        self.placed = [torch.empty(rows, *IMAGE, device="cuda") for _ in range(2)]
        self.filled = [torch.cuda.Event() for _ in range(2)]
        self.consumed = [torch.cuda.Event() for _ in range(2)]
        self.copying, self.turn = torch.cuda.Stream(), 0
        self.run: Callable[[], Any] = lambda: self.network(self.x)
        if graphs:
            self.run = self._captured()

    def _captured(self) -> Callable[[], Any]:
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            for _ in range(3):
                self.network(self.x)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            self.out = self.network(self.x)
        return graph.replay

    def copy_and_run(self) -> None:
        """One batch, copied in while the one before computes."""
        turn = self.turn = 1 - self.turn
        self.copying.wait_event(self.consumed[turn])
        with torch.cuda.stream(self.copying):
            self.placed[turn].copy_(self.host[turn], non_blocking=True)
        self.filled[turn].record(self.copying)
        torch.cuda.current_stream().wait_event(self.filled[turn])
        self.x.copy_(self.placed[turn])
        self.consumed[turn].record()
        self.run()


class Served:
    """A runner that is kept busy as a broker would: two batches at a time."""

    def __init__(self, folder: Path, rows: int, precision: str, graphs: bool) -> None:
        version = folder / "resnet50" / "1"
        version.mkdir(parents=True)
        (version / "model.py").write_text(SOURCE.read_text())
        toml = TOML.format(rows=rows, precision=precision, graphs=str(graphs).lower())
        (version / "model.toml").write_text(toml)
        device = torch.device("cuda", 0)
        self.reports: queue.SimpleQueue[Report] = queue.SimpleQueue()
        sharing = Sharing(folder / "segments", pages_for(device))
        self.runner = Runner(device, self.reports.put, time.monotonic, sharing)
        self.thread = threading.Thread(target=self.runner.run, daemon=True)
        self.thread.start()
        self.runner.put(Load("resnet50", "1", str(version)))
        self.reports.get(timeout=WAIT_S)
        copy = self.reports.get(timeout=WAIT_S)
        assert isinstance(copy, Copy)
        if copy.state != "ready":
            raise SystemExit(copy.detail)
        self.facts = copy.facts
        self.count = 0

    def put(self, requests: list[BatchRequest]) -> None:
        self.count += 1
        self.runner.put(Run(Batch(self.count, "resnet50", "1", 60_000, requests), time.monotonic()))

    def step(self, requests: list[BatchRequest]) -> None:
        """One batch done, the next one sent."""
        result = self.reports.get(timeout=WAIT_S)
        assert isinstance(result, Result)
        assert all(reply.code == 0 for reply in result.replies), result.replies[0].content
        self.put(requests)

    def stop(self) -> None:
        self.runner.stop()
        self.thread.join(WAIT_S)


def served(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    images = np.random.default_rng(5).standard_normal((options.rows, *IMAGE), np.float32)
    lender = Lender(f"ipc://{folder}/broker.sock", 1 << 29)
    asked = [ask_tensors("resnet50", {"x": image}, lender=lender) for image in images]
    requests = [BatchRequest(3_600_000, 0, ask.options, b"") for ask in asked]
    if options.inline:
        requests = [BatchRequest(3_600_000, 0, {}, pack({"x": image})) for image in images]
    server = Served(folder, options.rows, options.precision, options.graphs)
    try:
        for _ in range(CREDIT):
            server.put(requests)
        done = rate(lambda: server.step(requests), options.rows, options.seconds, lambda: None)
        return {
            "runner": done,
            "facts": {k: server.facts[k] for k in ("batch_us", "cuda_graphs") if k in server.facts},
        }
    finally:
        server.stop()
        lender.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--precision", default="float16", choices=["float32", "float16", "bfloat16"])
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--no-graphs", dest="graphs", action="store_false")
    parser.add_argument("--inline", action="store_true")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("torch sees no CUDA device")
    with torch.inference_mode():
        bare = Bare(options.rows, options.precision, options.graphs)
        wait = torch.cuda.synchronize
        found: dict[str, Any] = {"network": rate(bare.run, options.rows, options.seconds, wait)}
        found["bare"] = rate(bare.copy_and_run, options.rows, options.seconds, wait)
    with tempfile.TemporaryDirectory(prefix="headway-", dir="/dev/shm") as folder:
        found |= served(options, Path(folder))
    found["of_bare"] = round(found["runner"] / found["bare"], 3)
    print(json.dumps({"device": torch.cuda.get_device_name(), **found}))


if __name__ == "__main__":
    main()
