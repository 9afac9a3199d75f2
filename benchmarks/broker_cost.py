"""What a request costs the broker, with few and with many workers and models.

    python -m benchmarks.broker_cost                 the table, in half a minute
    python -m benchmarks.broker_cost --repeats 3

The real scheduler, fed with messages and asked to wake, in one process without sockets. Its CPU time is
counted and the load's is not. `decision` is `handle` and `wake` alone; `with wire` adds what the router
does to each message: decoding what comes and encoding what goes.

**What is compared.** A case with more workers and models must do the same work for a request, or the ratio
would measure batching. So each round is the same in all cases: one Requests message with a full batch for
one model, one batch to one worker, one Results, one Replies; the messages are of the same number and size.
What differs is only which worker and which model it is, and what the broker's tables hold meanwhile: models
are asked in turn. There are two such rounds:

- *idle*: the batch finds idle workers, and its result comes before the next request does;
- *busy*: every worker holds as many batches as it may, the rest of OPEN batches wait, some of every model,
  and each round one worker answers and one model is asked. OPEN is the same in all cases, as 1,000 workers
  cannot be busy with less: what so many open requests cost (they do not fit into the processor's caches) is
  no matter of workers and models.

With many of both, each worker hosts MODELS_EACH of the models, and hardly two the same: then each model's
40 workers are 40 crews, which is the worst that there can be for the broker. (Placement leaves most workers
alike.) Time passes as at RATE requests a second, so ticks, heartbeats and what every worker says of
itself twice a second are in the figures, in proportion. The garbage collector is off: it runs when more was
made than freed, so in the smallest case, where both are equal, never, and in the others for all of them.

Knows: the scheduler's events and actions, the wire. Must not know: sockets, how the broker decides.
"""

from __future__ import annotations

import argparse
import gc
import random
import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "common"), str(ROOT / "broker")]  # as the tests have it

from headway.messages import (  # noqa: E402  # noqa: E402
    OK,
    Alive,
    Batches,
    BatchReply,
    Copy,
    Join,
    Message,
    Request,
    Requests,
    Result,
    Results,
)
from headway.models import ModelSpec  # noqa: E402
from headway.wire import decode, encode  # noqa: E402
from headway_broker.catalog import Catalog  # noqa: E402
from headway_broker.events import FromCaller, FromWorker, Note, ToWorker  # noqa: E402
from headway_broker.placement import Seat, Want, plan  # noqa: E402
from headway_broker.scheduler import Scheduler  # noqa: E402

GOAL = 1.25  # of what the first case costs
BATCH = 16
MODELS_EACH = 20  # so 40 workers for each of 500 models
OPEN = 3000  # batches; two for each worker, and two of each model wait
RATE = 10_000.0
ALIVE_S = 0.5
REQUESTS = 10_000  # of a case in a repeat: a second, so that each has its ten ticks and two heartbeats
SLICES = 5
TENSORS = bytes(64)


@dataclass(frozen=True)
class Size:
    """How much the broker has in its tables. `mixed`: no two workers host the same models."""

    workers: int
    models: int
    mixed: bool = False

    @property
    def title(self) -> str:
        title = f"{_count(self.workers, 'worker')}, {_count(self.models, 'model')}"
        return f"{title}, mixed" if self.mixed else title

    def hosted(self) -> list[list[str]]:
        """The models of each worker: as placement orders them, or all different."""
        if self.mixed:
            names, dice = [f"m{m}" for m in range(self.models)], random.Random(1)
            return [dice.sample(names, MODELS_EACH) for _ in range(self.workers)]
        copies = min(self.workers, max(self.workers * MODELS_EACH // self.models, 1))
        specs = [_spec(m, copies) for m in range(self.models)]
        hosted: list[list[str]] = [[] for _ in range(self.workers)]
        seats = [Seat(b"%d" % i, f"w{i}", "h", "cpu", "cpu", {}) for i in range(self.workers)]
        for order in plan([Want(spec, spec.copies) for spec in specs], seats).orders:
            hosted[int(order.worker)].append(order.key[0])
        return hosted


def _spec(model: int, copies: int) -> ModelSpec:
    keys = {"batch_size_max": BATCH, "copies": copies, "queue_size_max": OPEN * BATCH}
    return ModelSpec(f"m{model}", "1", "/m", "python", **keys)  # type: ignore[arg-type]


SIZES = (Size(1, 1), Size(1000, 1), Size(1, 500), Size(1000, 500), Size(1000, 500, mixed=True))
KINDS = ("idle", "busy")


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' if number > 1 else ''}"


class Load:
    """Everybody around one scheduler. `cpu_s` is the scheduler's time, `wire_s` that of messages."""

    def __init__(self, size: Size, busy: bool) -> None:
        self.size = size
        self.now = 0.0
        self.cpu_s = self.wire_s = 0.0
        self.requests = 0
        self.batch_us = int(size.workers * BATCH / RATE * 1e6) if busy else 1000  # as long as its turn takes
        hosted = size.hosted()
        copies = Counter(name for names in hosted for name in names)
        specs = [_spec(m, copies[f"m{m}"]) for m in range(size.models)]
        self.scheduler = Scheduler(Catalog(specs), b"benchmark")
        self.workers = [b"w%d" % i for i in range(size.workers)]
        self.held: dict[bytes, list[int]] = {worker: [] for worker in self.workers}
        self.models = cycle(spec.name for spec in specs)
        self.turn = cycle(self.workers)
        self.speaks = cycle(self.workers)
        self.spoken = 0.0
        facts = {"batch_us": {str(BATCH): self.batch_us}}
        for worker, names in zip(self.workers, hosted, strict=True):
            ready = [Copy(name, "1", "ready", "", facts) for name in names]
            self.scheduler.handle(FromWorker(worker, Join(worker.decode(), "h", 1, "cpu", ready)), self.now)
        self.wake()
        if busy:
            self.fill()
        self.cpu_s = self.wire_s = 0.0

    def fill(self) -> None:
        """Everybody has all that it may have."""
        for _ in range(OPEN):
            self.ask()
            self.wake()

    def round(self, busy: bool) -> None:
        """As many requests as a batch holds, and as many answers."""
        self.now += BATCH / RATE
        self.speak()
        if not busy:
            self.ask()
            self.wake()
        worker = next(w for w in self.turn if self.held[w])
        self.answer(worker)
        if busy:
            self.ask()
        self.wake()

    def micros(self, requests: int) -> dict[str, float]:
        """Of CPU for each request."""
        each = 1e6 / requests
        return {"decision": self.cpu_s * each, "with wire": (self.cpu_s + self.wire_s) * each}

    def ask(self) -> None:
        name, first = next(self.models), self.requests
        self.requests += BATCH
        requests = [Request(first + i, name, "", 3_600_000, 0, 0, {}, TENSORS) for i in range(BATCH)]
        self.deliver(FromCaller, [(b"caller", Requests(requests))])

    def answer(self, worker: bytes) -> None:
        result = Result(self.held[worker].pop(0), self.batch_us, [BatchReply(OK, TENSORS, {})] * BATCH)
        self.deliver(FromWorker, [(worker, Results([result]))])

    def speak(self) -> None:
        """Each worker says twice a second that it lives."""
        self.spoken += self.size.workers * BATCH / RATE / ALIVE_S
        count, self.spoken = int(self.spoken), self.spoken % 1.0
        self.deliver(FromWorker, [(next(self.speaks), Alive()) for _ in range(count)])

    def deliver(self, event: Any, messages: list[tuple[bytes, Message]]) -> None:
        """All that the router would find in one turn."""
        frames = [(peer, encode(message)) for peer, message in messages]
        start = time.process_time_ns()
        decoded = [event(peer, decode(frame)) for peer, frame in frames]
        middle = time.process_time_ns()
        for each in decoded:
            self.scheduler.handle(each, self.now)
        self.cpu_s += (time.process_time_ns() - middle) / 1e9
        self.wire_s += (middle - start) / 1e9

    def wake(self) -> None:
        start = time.process_time_ns()
        actions = self.scheduler.wake(self.now)
        middle = time.process_time_ns()
        for action in actions:
            if not isinstance(action, Note):
                encode(action.message)
        self.wire_s += (time.process_time_ns() - middle) / 1e9
        self.cpu_s += (middle - start) / 1e9
        for action in actions:
            if isinstance(action, ToWorker) and isinstance(action.message, Batches):
                self.held[action.worker] += [batch.id for batch in action.message.batches]


Case = tuple[str, Size]
Figures = dict[Case, list[dict[str, float]]]


def run(repeats: int, requests: int = REQUESTS) -> Figures:
    """All cases in each repeat, a slice of each in turn. Who is first changes, because each finds the
    processor's caches as the one before it left them."""
    loads = {(kind, size): Load(size, kind == "busy") for kind in KINDS for size in SIZES}
    gc.collect()
    gc.disable()
    figures: Figures = {case: [] for case in loads}
    order, rounds = list(loads), requests // SLICES // BATCH
    for repeat in range(repeats + 1):
        for load in loads.values():
            load.cpu_s = load.wire_s = 0.0
        for first in range(repeat, repeat + SLICES):
            for i in range(len(order)):
                case = order[(first + i) % len(order)]
                for _ in range(rounds):
                    loads[case].round(case[0] == "busy")
        for case, load in loads.items() if repeat else ():  # the first one is warm-up
            figures[case].append(load.micros(rounds * SLICES * BATCH))
    gc.enable()
    return figures


def ratios(figures: Figures, kind: str, size: Size, what: str) -> list[float]:
    """By the smallest case, repeat by repeat."""
    pairs = zip(figures[kind, size], figures[kind, SIZES[0]], strict=True)
    return [mine[what] / least[what] for mine, least in pairs]


def rows(figures: Figures) -> Iterator[list[str]]:
    for kind in KINDS:
        for size in SIZES:
            found = figures[kind, size]
            cells = []
            for what in ("decision", "with wire"):
                ratio = statistics.median(ratios(figures, kind, size, what))
                cells += [f"{statistics.median(each[what] for each in found):.2f}", f"{ratio:.2f}"]
            reached = float(cells[-1]) <= GOAL and float(cells[-3]) <= GOAL
            yield [kind, size.title, *cells, "reached" if reached else "**missed**"]


HEAD = ["", "tables", "decision, us", "ratio", "with wire, us", "ratio", f"goal: at most {GOAL:g}"]


def table(repeats: int) -> list[list[str]]:
    """Measured now, with its head."""
    return [HEAD, *rows(run(repeats))]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.broker_cost", description="See the module.")
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    for row in table(options.repeats):
        print(" | ".join(f"{cell:>14}" for cell in row))


if __name__ == "__main__":
    main()
