"""Steady load while something else happens: every answer is checked, and counted by what was going on.

Requests come at random times (a Poisson process for each door), by three doors at once: the Open Inference
Protocol and `/predictions` on keep-alive connections, and the direct client, each with several threads. The
model answers x * 2 + version, so that it is known which version answered; x is another number each time, so
that another request's answer is a wrong one. Every tenth request names version 1, every tenth has a sticky
key, and some of the direct client's are so large that they travel in shared memory.

What is going on is a *phase*: it is said when it begins, with the versions that may answer a request which
names none. A request counts for the phase in which it is asked, and its latency from when it was meant to be.

Knows: the doors, threads, the clock. Must not know: what is done to the server meanwhile.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from itertools import count
from typing import NamedTuple

import numpy as np

from benchmarks.arrivals import NS, endless
from benchmarks.histogram import Histogram
from benchmarks.tally import MS
from headway import Client
from headway.errors import HeadwayError

MODEL = "step"
TIMEOUT_S = 20.0
LARGE = 32_768  # float32: 128 KiB, which travel in shared memory
KEYS = 21  # no divisor of ten: every key comes up; of three the point is above 0.9
CALLERS = 8  # threads for each door
TOML = """
backend = "python"
batch_size_max = 8
[[inputs]]
name = "x"
dtype = "float32"
shape = [-1]
warmup_shape = [1]
"""
CODE = """
import time
class Model:
    def infer(self, x):
        time.sleep(0.005)  # so that a worker which is killed often has a batch
        return {"y": x * 2 + %s}
"""


class Question(NamedTuple):
    """`size` numbers x; for `version`, or whichever has the traffic, or the one that `sticky` stands for."""

    x: int
    size: int
    version: str
    sticky: str


Ask = Callable[[Question], list[float]]


@dataclass
class Phase:
    """What was asked while this went on. `versions` may answer a request that names none."""

    name: str
    versions: frozenset[str]
    began: float
    asked: Counter[str] = field(default_factory=Counter)  # by door
    free: Counter[str] = field(
        default_factory=Counter
    )  # by version; without those that name one or have a key
    answered: Counter[str] = field(default_factory=Counter)  # by version
    sticky: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    latencies: Histogram = field(default_factory=Histogram)
    failures: list[str] = field(default_factory=list)

    def add(self, door: str, question: Question, found: str | Exception, latency_ns: int) -> None:
        """`found`: the version that answered, or why there is none."""
        self.asked[door] += 1
        self.latencies.add(latency_ns)
        if isinstance(found, Exception):
            self.failures.append(f"{self.name}, {door}: {type(found).__name__}: {found}")
            return
        self.answered[found] += 1
        if found not in ({question.version} if question.version else self.versions):
            self.failures.append(f"{self.name}, {door}: version {found} answered {question}")
        if question.sticky:
            self.sticky[question.sticky].add(found)
        elif not question.version:
            self.free[found] += 1


class Load:
    """As long as the block lasts. `http` is HOST:PORT, `direct` the broker's address, `rate` each door's."""

    def __init__(self, http: str, direct: str, rate: float) -> None:
        self.phases: list[Phase] = []
        self._http, self._rate = http, rate
        self._client = Client(direct, timeout_s=TIMEOUT_S)
        self._numbers = count(1)
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._threads: list[threading.Thread] = []
        self.phase("beginning", "1")

    def __enter__(self) -> Load:
        begin = time.monotonic_ns()
        for seed, door in enumerate(("oip", "predictions", "direct")):
            due = (begin + int(at * NS) for at in endless(self._rate, seed))
            caller = _Caller(self, door, due)
            self._threads += [threading.Thread(target=caller.run, name=door) for _ in range(CALLERS)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """What is asked is still answered."""
        self._over.set()
        for thread in self._threads:
            thread.join()
        self._client.close()

    def phase(self, name: str, *versions: str) -> Phase:
        """From here on this goes on."""
        phase = Phase(name, frozenset(versions), time.monotonic())
        self.phases.append(phase)
        return phase

    @property
    def failures(self) -> list[str]:
        return [failure for phase in self.phases for failure in phase.failures]

    # ---- for the callers ----

    def question(self, due: Iterator[int], door: str) -> tuple[int, Question]:
        """The next one of a door, and when it is to be asked."""
        with self._lock:
            x, at = next(self._numbers), next(due)
        version = "1" if x % 10 == 3 else ""
        sticky = f"reader-{x % KEYS}" if x % 10 == 6 else ""
        return at, Question(x % 1_000_000, LARGE if door == "direct" and x % 4 == 0 else 1, version, sticky)

    def wait_until(self, at: int) -> bool:
        """False: the load is over."""
        return not self._over.wait(max(at - time.monotonic_ns(), 0) / NS)

    def note(self, phase: Phase, door: str, question: Question, found: str | Exception, due: int) -> None:
        with self._lock:
            phase.add(door, question, found, time.monotonic_ns() - due)

    def door(self, name: str) -> Ask:
        if name == "direct":
            return self._direct
        connection = HTTPConnection(*self._http.split(":"), timeout=TIMEOUT_S + 5)  # type: ignore[misc]
        return _oip(connection) if name == "oip" else _predictions(connection)

    def _direct(self, q: Question) -> list[float]:
        x = np.full(q.size, q.x, np.float32)
        found = self._client.infer(MODEL, {"x": x}, version=q.version, sticky=q.sticky)["y"]
        if not (found == found[0]).all():
            raise HTTPException("the numbers of one answer differ")
        return [float(found[0])] * (found.shape == (q.size,))


class _Caller:
    """The threads of one door."""

    def __init__(self, load: Load, door: str, due: Iterator[int]) -> None:
        self.load, self.door, self.due = load, door, due

    def run(self) -> None:
        ask = self.load.door(self.door)
        while True:
            at, question = self.load.question(self.due, self.door)
            if not self.load.wait_until(at):
                return
            phase = self.load.phases[-1]
            try:
                found: str | Exception = version_of(question, ask(question))
            except (HeadwayError, OSError, HTTPException, ValueError, LookupError) as error:
                found = error
            self.load.note(phase, self.door, question, found, at)


def version_of(question: Question, answer: list[float]) -> str:
    """Which version this answer is of. Raises: ValueError for one that is of none."""
    versions = {question.x * 2.0 + number: str(number) for number in (1, 2)}
    if len(answer) != 1 or answer[0] not in versions:
        raise ValueError(f"wrong answer {answer} to {question}")
    return versions[answer[0]]


def _oip(connection: HTTPConnection) -> Ask:
    def ask(q: Question) -> list[float]:
        path = f"/v2/models/{MODEL}{'/versions/' * bool(q.version)}{q.version}/infer"
        tensor = {"name": "x", "shape": [1, 1], "datatype": "FP32", "data": [q.x]}
        return list(_post(connection, path, {"inputs": [tensor]}, q)["outputs"][0]["data"])

    return ask


def _predictions(connection: HTTPConnection) -> Ask:
    def ask(q: Question) -> list[float]:
        path = f"/predictions/{MODEL}{'/' * bool(q.version)}{q.version}"
        return list(_post(connection, path, {"x": [q.x]}, q)["y"])

    return ask


def _post(connection: HTTPConnection, path: str, body: object, q: Question) -> dict[str, list]:
    headers = {"Content-Type": "application/json", "Headway-Timeout-Ms": f"{TIMEOUT_S * 1000:.0f}"}
    if q.sticky:
        headers["Headway-Sticky-Key"] = q.sticky
    try:
        connection.request("POST", path, json.dumps(body), headers)
        response = connection.getresponse()
        data = response.read()
    except (OSError, HTTPException):
        connection.close()  # the next request opens it again
        raise
    if response.status != 200:
        raise HTTPException(f"{response.status} {data[:300]!r}")
    found = json.loads(data)
    if not isinstance(found, dict):
        raise ValueError(f"an answer that is no object: {data[:300]!r}")
    return found


def table(phases: list[Phase], ended: float) -> str:
    """For people: what was asked, what failed, who answered, how long it took. Phases of one name are one."""
    lines = [
        f"{'':32} {'s':>6} {'requests':>8} {'failed':>6} {'v1':>7} {'v2':>6} {'p50 ms':>7} {'max ms':>7}"
    ]
    seconds: defaultdict[str, float] = defaultdict(float)
    by_name: defaultdict[str, list[Phase]] = defaultdict(list)
    for phase, until in zip(phases, [*(p.began for p in phases[1:]), ended], strict=True):
        seconds[phase.name] += until - phase.began
        by_name[phase.name].append(phase)
    lines += [_line(total(each, name), seconds[name]) for name, each in by_name.items()]
    every = total(phases, "all")
    lines.append(_line(every, ended - phases[0].began))
    return "\n".join(
        [*lines, ", ".join(f"{door}: {every.asked[door]:,} requests" for door in sorted(every.asked))]
    )


def total(phases: list[Phase], name: str) -> Phase:
    """All of them as one."""
    found = Phase(name, frozenset(), 0.0)
    for phase in phases:
        found.asked += phase.asked
        found.answered += phase.answered
        found.latencies.merge(phase.latencies)
        found.failures += phase.failures
    return found


def _line(phase: Phase, seconds: float) -> str:
    took = phase.latencies
    p50, most = (took.percentile(50) / MS, took.largest / MS) if took.total else (0.0, 0.0)
    counts = f"{phase.asked.total():8,} {len(phase.failures):6}"
    versions = f"{phase.answered['1']:7,} {phase.answered['2']:6,}"
    return f"{phase.name:32} {seconds:6.1f} {counts} {versions} {p50:7.1f} {most:7.0f}"
