"""The whole benchmark: `scripts/bench`.

    scripts/bench                                   Headway alone
    scripts/bench --against torchserve,triton       side by side (scripts/bench-peers installs them)
    scripts/bench --cases tiny --seconds 2 --repeats 1
    scripts/bench --cases archive --against torchserve     one archive under both, half an hour
    scripts/bench --cases broker                    what a request costs the broker, half a minute
    scripts/bench --against torchserve,triton --write      and into docs/benchmarks.md

For each model all servers are up at once, each with that model only, and one at a time is asked: in each
repeat every case gives every server its turn, so that a slow minute of the machine does not fall on one
of them alone. That is fair as long as an idle server does nothing; what idle ones use is measured and shown.

Everything it found is in .bench/results.json; `python -m benchmarks.report` makes the tables again.

Knows: the order of things. Must not know: how a server is started, what a figure means.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from benchmarks import broker_cost
from benchmarks.cases import CASES, Case, Run
from benchmarks.measure import machine, measure
from benchmarks.report import show, write
from benchmarks.servers import OWN, PEERS, SERVERS, Server
from benchmarks.servers.base import ROOT

RESULTS = ROOT / ".bench" / "results.json"
RUNS = ROOT / ".bench" / "run"
MODELS = ("tiny", "payload", "resnet50")
BROKER = "broker"  # the case without a server
SETTLE_S, IDLE_S, WARM_UP_S = 3.0, 4.0, 3.0
Results = dict[str, Any]


def main() -> None:
    options = parsed()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit("stopped"))
    peers = tuple(filter(None, options.against.split(",")))
    names = (*OWN, *(name for peer in peers for name in PEERS[peer]))
    wanted = tuple(options.cases.split(","))
    cases = [case for case in CASES if case.name.startswith(wanted)]
    results: Results = {"machine": machine(peers), "seconds": options.seconds, "repeats": options.repeats}
    results |= {"date": time.strftime("%Y-%m-%d"), "cases": {}, "servers": {}}
    RESULTS.parent.mkdir(exist_ok=True)
    for model in MODELS:
        chosen = [case for case in cases if case.model == model]
        if chosen:
            try:
                measure_model(model, chosen, names, results)
            finally:
                RESULTS.write_text(json.dumps(results))
    if BROKER.startswith(wanted):
        results["broker"] = broker_cost.table(options.repeats)
        RESULTS.write_text(json.dumps(results))
    print("\n" + show(results))
    if options.write:
        write(results)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/bench", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--against", default="", help=f"any of {','.join(PEERS)}")
    parser.add_argument(
        "--cases",
        default=",".join((*MODELS, "archive", BROKER)),
        help="cases whose names begin so, with commas",
    )
    parser.add_argument("--seconds", type=float, default=5.0, help="of one run (ResNet: six times that)")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--write", action="store_true", help="into docs/benchmarks.md, with its plots")
    options = parser.parse_args()
    for peer in filter(None, options.against.split(",")):
        if peer not in PEERS:
            parser.error(f"--against {peer}: known are {', '.join(PEERS)}")
        if not (ROOT / ".bench" / peer / ".installed").exists():
            parser.error(f"{peer} is not installed: scripts/bench-peers {peer}")
    return options


def measure_model(model: str, cases: list[Case], names: tuple[str, ...], results: Results) -> None:
    """Every case of one model, all repeats."""
    needed = {run.server for case in cases for run in case.runs}
    wanted = [name for name in names if name in needed]
    with servers_up(model, wanted) as servers:
        results["servers"][model] = {name: {"idle_cpu": cpu} for name, cpu in idle(servers).items()}
        warm_up(model, servers, results["seconds"])
        for repeat in range(results["repeats"]):
            for case in cases:
                turn(case, servers, results, repeat)
        for name, server in servers.items():
            results["servers"][model][name] |= server.memory()


def warm_up(model: str, servers: dict[str, Server], seconds: float) -> None:
    """Load that is not counted: a Java program is slow until it has been compiled."""
    for name, server in servers.items():
        run = Run(name, name, server.dialect, 64)
        measure(Case("warm-up", "warm-up", model, (run,)), run, servers, max(seconds, WARM_UP_S))


def settle(servers: dict[str, Server]) -> None:
    """Wait until nobody is busy with what is over, but not for long."""
    give_up = time.monotonic() + SETTLE_S
    while time.monotonic() < give_up and sum(idle(servers, 0.25).values()) > 0.1:
        pass


def turn(case: Case, servers: dict[str, Server], results: Results, repeat: int) -> None:
    """Every run of one case, once. Who is first changes from repeat to repeat."""
    runs = [run for run in case.runs if run.server in servers or not run.server]
    found = results["cases"].setdefault(case.name, {run.label: [] for run in runs})
    for i in range(len(runs)):
        run = runs[(i + repeat) % len(runs)]
        settle(servers)
        try:
            facts = measure(case, run, servers, results["seconds"])
        except (RuntimeError, subprocess.TimeoutExpired) as error:
            facts = {"failed": str(error)}  # the others go on; the report says so
        found[run.label].append(facts)
        print(f"{repeat + 1}  {case.title:40} {run.label:28} {line_of(facts)}", flush=True)


def line_of(facts: dict[str, Any]) -> str:
    if "failed" in facts:
        return f"FAILED: {facts['failed']}"
    figures = f"{facts['rate']:10,.1f}/s   p50 {facts['p50_ms']:9.3f} ms   p99 {facts['p99_ms']:9.3f} ms"
    bad = facts["errors"] + facts.get("unanswered", 0)
    return figures + (f"   {bad} ERRORS" if bad else "")


@contextmanager
def servers_up(model: str, names: list[str]) -> Iterator[dict[str, Server]]:
    """All of them with this model, and ended whatever happens."""
    shutil.rmtree(RUNS, ignore_errors=True)
    with ExitStack() as stack:
        servers = {}
        for name in names:
            server = SERVERS[name](model, RUNS / name)
            stack.callback(server.close)
            print(f"starting {name} with {model}", flush=True)
            server.open()
            servers[name] = server
        settle(servers)
        yield servers


def idle(servers: dict[str, Server], seconds: float = IDLE_S) -> dict[str, float]:
    """Cores that each uses while nobody asks."""
    before = {name: server.cpu_s() for name, server in servers.items()}
    time.sleep(seconds)
    return {name: (server.cpu_s() - before[name]) / seconds for name, server in servers.items()}


def remove_left_behind() -> None:
    """Shared memory of loads that were ended halfway."""
    for left in Path("/dev/shm").glob("triton_bench_*"):
        left.unlink(missing_ok=True)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        remove_left_behind()
