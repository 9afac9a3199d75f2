"""Ten small models in two workers, or in a worker each: throughput, latency, memory, time to start.

    python -m benchmarks.ten_models [--repeats 5] [--seconds 5] [--rate 300]

On a machine without a GPU a worker stands for one GPU's: what is compared is two processes that each have
five models with ten that each have one, on the same cores. Every worker has one CPU thread. A third
arrangement has two workers with a copy of every model in both, so that either can take any request.

    closed      forty callers, four for each model; each asks again when it has its answer
    even        requests come at random times, as many for each model
    uneven      as many in all, for the k-th model in proportion to 1 / k: a third go to the first

In each repeat each arrangement is started, measured and stopped; who is first changes. The models: five
multilayer perceptrons and five small convolutional networks, 4 and 7 MB each, by the python backend. Each
answers with another number of outputs, so that another model's answer would be noticed.

Knows: the arrangements, the load's plan. Must not know: placement's rules; it checks what came of them.
"""

from __future__ import annotations

import argparse
import asyncio
import heapq
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import uvloop

from benchmarks.arrivals import NS, poisson
from benchmarks.histogram import Histogram
from benchmarks.inputs import Example
from benchmarks.load_direct import DRAIN_S, Sender, caller
from benchmarks.measure import machine
from benchmarks.report import ratios, spread, table
from benchmarks.servers.base import MB, ROOT
from benchmarks.tally import MS, Closed, Open, Tally
from headway import AsyncClient, Client
from headway.errors import HeadwayError
from tests.system.stack import Up, add_model

COUNT = 10
CALLERS_EACH = 4
READY_S = 120.0
TOML = """
backend = "python"
batch_size_max = 8
copies = %d
[[inputs]]
name = "x"
dtype = "float32"
shape = %s
"""
PERCEPTRON = """
import torch
class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(%(outputs)d)
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(256, 1024), torch.nn.ReLU(), torch.nn.Linear(1024, 1024), torch.nn.ReLU(),
            torch.nn.Linear(1024, 512), torch.nn.ReLU(), torch.nn.Linear(512, %(outputs)d))
    def forward(self, x):
        return {"y": self.layers(x)}
"""
CONVOLUTIONS = """
import torch
def block(channels, out):
    convolution = torch.nn.Conv2d(channels, out, 3, stride=2, padding=1)
    return [convolution, torch.nn.BatchNorm2d(out), torch.nn.ReLU()]
class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(%(outputs)d)
        self.layers = torch.nn.Sequential(
            *block(3, 32), *block(32, 64), *block(64, 128), *block(128, 256), torch.nn.Flatten(),
            torch.nn.Linear(1024, 512), torch.nn.ReLU(), torch.nn.Linear(512, %(outputs)d))
    def forward(self, x):
        return {"y": self.layers(x)}
"""
EXAMPLES = [
    Example(f"{'image' if i % 2 else 'vector'}-{i}", (3, 32, 32) if i % 2 else (256,), 10 + i)
    for i in range(COUNT)
]


@dataclass(frozen=True)
class Arrangement:
    """How many workers, with how many copies of each model."""

    title: str
    workers: int
    copies: int


TWO = Arrangement("two workers", 2, 1)
BOTH = Arrangement("two workers, all models in both", 2, 2)
TEN = Arrangement("ten workers", COUNT, 1)
ARRANGEMENTS = (TWO, BOTH, TEN)
WAYS = ("closed", "even", "uneven")


# ---- the load, in a process of its own ----


def load(way: str, address: str, seconds: float, rate: float) -> dict[str, Any]:
    """All models' figures as one; `slowest_p99_ms` is that of the model with the worst."""
    if way == "closed":
        return merged(uvloop.run(_closed(address, seconds)))
    weights = [1.0 if way == "even" else 1 / (k + 1) for k in range(COUNT)]
    return merged(_open(address, seconds, [rate * weight / sum(weights) for weight in weights]))


async def _closed(address: str, seconds: float) -> list[Tally]:
    async with AsyncClient(address) as client:
        begin = time.monotonic_ns()
        tallies: list[Tally] = [Closed(begin, seconds) for _ in EXAMPLES]
        pairs = zip(EXAMPLES, tallies, strict=True)
        await asyncio.gather(*(caller(client, *pair) for pair in pairs for _ in range(CALLERS_EACH)))
        return tallies


def _open(address: str, seconds: float, rates: list[float]) -> list[Tally]:
    with Client(address, timeout_s=seconds + DRAIN_S) as client:
        begin = time.monotonic_ns()
        senders = [Sender(client, example, Open(begin, seconds)) for example in EXAMPLES]
        times = [[(at, k) for at in poisson(rate, seconds, k)] for k, rate in enumerate(rates)]
        for at, k in heapq.merge(*times):
            pause = begin + at - time.monotonic_ns()
            if pause > 0:
                time.sleep(pause / NS)
            senders[k].ask(begin + at)
        give_up = time.monotonic() + DRAIN_S
        for sender in senders:
            sender.finish(give_up)
        return [sender.tally for sender in senders]


def merged(tallies: list[Tally]) -> dict[str, Any]:
    every = Histogram()
    for tally in tallies:
        every.merge(Histogram.of(tally.latencies))
    each = [Histogram.of(tally.latencies).percentile(99) / MS for tally in tallies]
    bad = sum(tally.errors + getattr(tally, "unanswered", 0) for tally in tallies)
    facts = {"answers": sum(t.answers for t in tallies), "errors": bad}
    facts["rate"] = sum(t.facts()["rate"] for t in tallies)
    p50, p99 = every.percentile(50) / MS, every.percentile(99) / MS
    return facts | {"p50_ms": p50, "p99_ms": p99, "slowest_p99_ms": max(each)}


# ---- the servers ----


def add_models(store: Path, copies: int) -> None:
    for example in EXAMPLES:
        code = CONVOLUTIONS if len(example.shape) > 1 else PERCEPTRON
        toml = TOML % (copies, list(example.shape))
        add_model(store, example.model, toml, code % {"outputs": example.outputs})


def start(up: Up, arrangement: Arrangement, began: float) -> dict[str, float]:
    """Waits for the workers, gives them the models, waits for the copies. The models come last, as the first
    worker would take all of them otherwise. Returns seconds."""
    with Client(up.direct, timeout_s=READY_S) as client:
        _until(lambda: len(client.state()["workers"]) == arrangement.workers)
        joined = time.monotonic()
        add_models(up.folder / "models", arrangement.copies)
        token = (up.folder / "state" / "token").read_text().strip()
        client.command("rescan", {}, token)
        _until(lambda: _ready(client) == COUNT * arrangement.copies)
        each = COUNT * arrangement.copies // arrangement.workers
        assert all(len(worker["copies"]) == each for worker in client.state()["workers"])
        return {"workers_s": joined - began, "models_s": time.monotonic() - joined}


def _ready(client: Client) -> int:
    return sum(model["ready"] for model in client.models())


def _until(true: Any) -> None:
    give_up = time.monotonic() + READY_S
    while True:
        try:
            if true():
                return
        except HeadwayError:
            pass
        if time.monotonic() > give_up:
            raise RuntimeError(f"not ready within {READY_S:g} s")
        time.sleep(0.05)


def processes(up: Up) -> list[psutil.Process]:
    return [psutil.Process(pid) for pid in up.pids()]


def memory(up: Up) -> dict[str, float]:
    """Of all processes, and of the workers among them, in MB."""
    infos = {process.pid: process.memory_full_info() for process in processes(up)}
    workers = [infos[pid] for pid in up.pids("headway_worker")]
    found = {"rss_mb": sum(i.rss for i in infos.values()), "pss_mb": sum(i.pss for i in infos.values())}
    found["workers_pss_mb"] = sum(i.pss for i in workers)
    return {key: value / MB for key, value in found.items()} | {"processes": len(infos)}


def cpu_s(up: Up) -> float:
    return sum(sum(process.cpu_times()[:2]) for process in processes(up))


def measured(up: Up, way: str, seconds: float, rate: float) -> dict[str, Any]:
    """What the load found, and `cpu_ms`: the server's for 1,000 requests.

    Raises: RuntimeError when the load fails.
    """
    before = cpu_s(up)
    command = [sys.executable, "-m", "benchmarks.ten_models", "--load", way, "--address", up.direct]
    command += ["--seconds", f"{seconds}", "--rate", f"{rate}"]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        timeout=seconds + 120,
    )
    if done.returncode:
        raise RuntimeError(done.stderr.decode(errors="replace")[-2000:])
    facts: dict[str, Any] = json.loads(done.stdout)
    return facts | {"cpu_ms": (cpu_s(up) - before) * 1e6 / max(facts["answers"], 1)}


def turn(arrangement: Arrangement, seconds: float, rate: float) -> dict[str, dict[str, Any]]:
    """One arrangement, once: by way, and `server`: what it took to have it."""
    folder = Path(tempfile.mkdtemp(prefix="hw-", dir="/dev/shm"))
    (folder / "models").mkdir()
    began = time.monotonic()
    options = ("--threads", "1", "--state-dir", str(folder / "state"))
    up = Up(folder, *options, workers=arrangement.workers)
    try:
        server = start(up, arrangement, began)
        server["idle_mb"] = memory(up)["pss_mb"]
        measured(up, "closed", 2.0, rate)  # not counted
        found = {way: measured(up, way, seconds, rate) for way in WAYS}
        return found | {"server": server | memory(up)}
    finally:
        up.end(signal.SIGINT)
        up.close()
        shutil.rmtree(folder, ignore_errors=True)


# ---- tables ----

Found = dict[str, list[dict[str, dict[str, Any]]]]  # by arrangement


def show(found: Found) -> str:
    load_rows = [[f"{way}: {title}", *_row(found, way, title)] for way in WAYS for title in found]
    head = [
        "load",
        "requests/s",
        "p50 ms",
        "p99 ms",
        "p99 ms of the slowest model",
        "CPU ms per 1,000 requests",
    ]
    ratio_head = ["ten workers / two", *head[1:]]
    ratio_rows = [[way, *_ratios(found, way, LOAD_KEYS)] for way in WAYS]
    for row in ratio_rows[1:]:
        row[1] = ""
    server_head = [
        "",
        "processes",
        "RSS MB",
        "PSS MB",
        "PSS MB of the workers",
        "workers joined after s",
        "models s",
    ]
    server_rows = [
        [title, *(spread(_of(found, "server", title, key)) for key in SERVER_KEYS)] for title in found
    ]
    server_rows.append(["ten workers / two", *_ratios(found, "server", SERVER_KEYS)])
    tables = (table(head, load_rows), table(ratio_head, ratio_rows), table(server_head, server_rows))
    return "\n\n".join(tables)


LOAD_KEYS = ("rate", "p50_ms", "p99_ms", "slowest_p99_ms", "cpu_ms")
SERVER_KEYS = ("processes", "rss_mb", "pss_mb", "workers_pss_mb", "workers_s", "models_s")


def _of(found: Found, way: str, title: str, key: str) -> list[float]:
    return [run[way][key] for run in found[title]]


def _row(found: Found, way: str, title: str) -> list[str]:
    bad = sum(run[way]["errors"] for run in found[title])
    row = [spread(_of(found, way, title, key)) for key in LOAD_KEYS]
    rate = row[0] if way == "closed" else ""  # what was asked, in an open loop
    return [(rate + f" ({bad} failed)" * bool(bad)).strip(), *row[1:]]


def _ratios(found: Found, way: str, keys: tuple[str, ...]) -> list[str]:
    ten, two = ([run[way] for run in found[each.title]] for each in (TEN, TWO))
    return [spread(ratios(ten, two, key)) for key in keys]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0, help="of one run")
    parser.add_argument(
        "--rate", type=float, default=300.0, help="requests a second in the open loops, in all"
    )
    parser.add_argument("--load", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--address", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.load:
        print(json.dumps(load(options.load, options.address, options.seconds, options.rate)))
        return
    found: Found = {arrangement.title: [] for arrangement in ARRANGEMENTS}
    for repeat in range(options.repeats):
        for i in range(len(ARRANGEMENTS)):
            arrangement = ARRANGEMENTS[(i + repeat) % len(ARRANGEMENTS)]
            found[arrangement.title].append(turn(arrangement, options.seconds, options.rate))
            rates = {way: round(found[arrangement.title][-1][way]["rate"]) for way in WAYS}
            print(f"{repeat + 1}  {arrangement.title:34} {rates}", flush=True)
    about = machine(())
    print(f"\n{about['machine']}; median of {options.repeats} runs of {options.seconds:g} s (range).")
    print(f"{about['headway']}\n\n{show(found)}")


if __name__ == "__main__":
    main()
