"""A runner on a real GPU. Without one these tests are skipped."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from headway.messages import Batch, BatchRequest, Copy, Load, Result
from headway_worker.orders import Report, Run
from headway_worker.runner import Runner
from headway_worker.sharing import Sharing
from tests.worker.bench import Bench

WAIT_S = 120.0


class OnGpu:
    """A runner in a thread of its own on `cuda:0`. Batches that are put while it is busy are in flight
    together."""

    def __init__(self, store: Path, sharing: Sharing | None = None) -> None:
        self.bench = Bench(store)
        self.reports: queue.SimpleQueue[Report] = queue.SimpleQueue()
        self.runner = Runner(torch.device("cuda", 0), self.reports.put, time.monotonic, sharing)
        self.thread = threading.Thread(target=self.runner.run)
        self.thread.start()

    def load(self, toml: str, model: str, version: str = "1") -> Copy:
        """The copy's last state, which must be ready."""
        folder = self.bench.write_version(version, toml, model=model)
        self.runner.put(Load("m", version, str(folder)))
        self.reports.get(timeout=WAIT_S)
        copy = self.reports.get(timeout=WAIT_S)
        assert isinstance(copy, Copy) and copy.state == "ready", getattr(copy, "detail", copy)
        return copy

    def put(self, number: int, *requests: BatchRequest, version: str = "1") -> None:
        self.runner.put(Run(Batch(number, "m", version, 60_000, list(requests)), time.monotonic()))

    def result(self) -> Result:
        report = self.reports.get(timeout=WAIT_S)
        assert isinstance(report, Result)
        return report

    def stop(self) -> None:
        self.runner.stop()
        self.thread.join(WAIT_S)
        assert not self.thread.is_alive()


@pytest.fixture
def on_gpu(tmp_path: Path) -> Iterator[OnGpu]:
    made = OnGpu(tmp_path)
    yield made
    made.stop()
