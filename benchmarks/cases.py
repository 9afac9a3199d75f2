"""What is measured: each case is one piece of work, and who does it in which way.

A case's runs are compared with one another: the first is Headway's. `goals` are ratios that Headway is to
reach against a run of the same case, by `key`: of rates at least so much, of times at most so much; None:
the ratio is shown, and no figure was promised.

Knows: names of servers, ways of `load.py` and `load_triton.py`. Must not know: how either works.
"""

from __future__ import annotations

from dataclasses import dataclass, field

HTTP = {
    "headway": "oip",
    "torchserve": "torchserve",
    "torchserve-quiet": "torchserve",
    "triton": "oip",
    "triton-0ms": "oip",
    "mosec": "mosec",
}
ALL = tuple(HTTP)
QUIET = ("headway", "torchserve-quiet", "triton", "mosec")  # where neither logs nor a delay of 1 ms decide
LONG = 4.0  # a batch of ResNets takes a second


@dataclass(frozen=True)
class Run:
    """`server` does it; `way` is a way of `load.py`, of `load_triton.py` ("tritonclient ..."), or "bare"."""

    label: str
    server: str
    way: str
    callers: int = 1
    rate: float | None = None  # open loop, requests a second


@dataclass(frozen=True)
class Case:
    """`key` is what it is about: `rate`, `p50_ms` or `p99_ms`. `seconds` multiplies the time of a run."""

    name: str
    title: str
    model: str
    runs: tuple[Run, ...]
    key: str = "rate"
    goals: dict[str, float | None] = field(default_factory=dict)
    seconds: float = 1.0

    @property
    def is_open(self) -> bool:
        return self.runs[0].rate is not None


def http(callers: int, servers: tuple[str, ...] = ALL) -> tuple[Run, ...]:
    return tuple(Run(name, name, HTTP[name], callers) for name in servers)


def arriving(rate: float, servers: tuple[str, ...] = ALL) -> tuple[Run, ...]:
    return tuple(Run(name, name, HTTP[name], 256, rate) for name in servers)


def headway(way: str, callers: int) -> Run:
    return Run("headway", "headway", way, callers)


def triton(way: str, callers: int = 1, server: str = "triton-0ms") -> Run:
    """Triton's own client; without a delay where one request waits for the last."""
    label = f"tritonclient {way}" if server == "triton-0ms" else f"tritonclient {way}, {server}"
    return Run(label, server, f"tritonclient {way}", callers)


def archive(model: str, callers: int, seconds: float = 1.0) -> Case:
    """The same TorchServe archive under TorchServe and under `headway torchserve`."""
    runs = (Run("headway", "headway-archive", "torchserve", callers),)
    runs += (Run("headway-archive-0ms", "headway-archive-0ms", "torchserve", callers),)
    runs += tuple(Run(name, name, "torchserve", callers) for name in ("torchserve", "torchserve-quiet"))
    title = f"archive of {model}, {callers} connection{'s' * (callers > 1)}"
    goals = {"torchserve": 1.0, "torchserve-quiet": 1.0}
    return Case(f"archive-{model}-{callers}", title, model, runs, goals=goals, seconds=seconds)


BEST = {name: None if name == "triton-0ms" else 1.5 for name in ALL if name != "headway"}
CASES = (
    Case("tiny-http-1", "tiny, HTTP, 1 connection", "tiny", http(1), goals=BEST),
    Case("tiny-http-8", "tiny, HTTP, 8 connections", "tiny", http(8), goals=BEST),
    Case(
        "tiny-http-64",
        "tiny, HTTP, 64 connections",
        "tiny",
        http(64),
        goals={"triton": 1.4, "triton-0ms": None, "torchserve-quiet": 1.8, "mosec": None},
    ),
    Case(
        "tiny-direct-1",
        "tiny, native client, one at a time",
        "tiny",
        (headway("direct", 1), triton("http"), triton("grpc")),
        key="p50_ms",
        goals={"tritonclient http": 0.6, "tritonclient grpc": None},
    ),
    Case(
        "tiny-direct-64",
        "tiny, native client, 64 in flight",
        "tiny",
        (headway("direct", 64), triton("grpc", 64)),
    ),
    Case(
        "tiny-direct-512",
        "tiny, 512 in flight",
        "tiny",
        (
            headway("direct", 512),
            Run("asyncio client", "headway", "async", 512),
            Run("triton", "triton", "oip", 512),
            triton("grpc", 512, "triton"),
        ),
        goals={"triton": 8.0, "tritonclient grpc, triton": 8.0},
    ),
    Case("tiny-open-500", "tiny, HTTP, 500 a second", "tiny", arriving(500), key="p99_ms"),
    Case("tiny-open-2000", "tiny, HTTP, 2,000 a second", "tiny", arriving(2000), key="p99_ms"),
    Case(
        "tiny-direct-open",
        "tiny, native client, 5,000 a second",
        "tiny",
        (Run("headway", "headway", "direct", 1, 5000),),
        key="p99_ms",
    ),
    Case("payload-http-1", "payload, HTTP, 1 connection", "payload", http(1, QUIET)),
    Case(
        "payload-http-64",
        "payload, HTTP, 64 connections",
        "payload",
        http(64, QUIET),
        goals={"triton": 1.4},
    ),
    Case(
        "payload-direct-1",
        "payload, native client, one at a time",
        "payload",
        (
            headway("direct", 1),
            Run("written in place", "headway", "in-place"),
            triton("shm"),
            triton("grpc-shm"),
        ),
        key="p50_ms",
        goals={"tritonclient shm": 0.4, "tritonclient grpc-shm": None},
    ),
    Case("payload-direct-64", "payload, native client, 64 in flight", "payload", (headway("direct", 64),)),
    Case("payload-open-200", "payload, HTTP, 200 a second", "payload", arriving(200, QUIET), key="p99_ms"),
    Case(
        "resnet50-64",
        "ResNet-50, 64 at a time",
        "resnet50",
        (*http(64, QUIET), Run("native client", "headway", "direct", 64), Run("bare", "", "bare", 8)),
        goals={"bare": 0.95},
        seconds=LONG,
    ),
    *(archive("tiny", callers) for callers in (1, 2, 8, 32, 64)),
    *(archive("payload", callers) for callers in (1, 8)),
    *(archive("resnet50", callers, LONG) for callers in (1, 8)),
)
