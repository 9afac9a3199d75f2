"""One run: starts the load beside a server that is up, and says what it found and what it cost.

Knows: the load's command lines. Must not know: cases' meaning, tables.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.cases import Case, Run
from benchmarks.servers.base import ROOT, Server
from benchmarks.servers.headway import Headway
from benchmarks.servers.triton import Triton

LATE_S = 120.0  # a run may take so much longer than its time


def command(case: Case, run: Run, server: Server | None, seconds: float) -> list[str]:
    """The load's command line, without what is the same for all."""
    options = ["--model", case.model, "--seconds", f"{seconds * case.seconds:g}"]
    if server is None:
        return [sys.executable, "-m", "benchmarks.bare", *options]
    options += ["--callers", str(run.callers)] + (["--rate", str(run.rate)] if run.rate else [])
    if isinstance(server, Triton) and run.way.startswith("tritonclient"):
        way = run.way.removeprefix("tritonclient ")
        address = server.grpc if way.startswith("grpc") else server.address
        return [str(server.home / "bin" / "python"), "-m", "benchmarks.load_triton", way, address, *options]
    is_direct = run.way in ("direct", "async", "in-place")
    address = server.direct if isinstance(server, Headway) and is_direct else server.address
    return [sys.executable, "-m", "benchmarks.load", run.way, address, *options]


def measure(case: Case, run: Run, servers: Mapping[str, Server], seconds: float) -> dict[str, Any]:
    """What the load printed, `cpu_ms` for 1,000 requests, `load_cpu` (cores the load itself used), and
    `elsewhere_cpu` (cores that other servers used meanwhile).

    Raises: RuntimeError when the load fails.
    """
    server = servers.get(run.server)
    others = [other for other in servers.values() if other is not server]
    before, idle, own = _cpu_s(server), sum(map(_cpu_s, others)), _children_s()
    begin = time.monotonic()
    done = subprocess.run(
        command(case, run, server, seconds),
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        timeout=seconds * case.seconds + LATE_S,
    )
    if done.returncode:
        raise RuntimeError(f"{case.name}, {run.label}: {done.stderr.decode(errors='replace')[-2000:]}")
    took = time.monotonic() - begin
    facts: dict[str, Any] = json.loads(done.stdout)
    facts["cpu_ms"] = (_cpu_s(server) - before) * 1e6 / max(facts["answers"], 1)
    facts["load_cpu"] = (_children_s() - own) / took
    facts["elsewhere_cpu"] = (sum(map(_cpu_s, others)) - idle) / took
    return facts


def _cpu_s(server: Server | None) -> float:
    return server.cpu_s() if server else 0.0


def _children_s() -> float:
    """CPU seconds of the loads so far (servers are counted only when they have ended)."""
    times = os.times()
    return times.children_user + times.children_system


def machine(peers: tuple[str, ...]) -> dict[str, str]:
    """What the figures were made on, and with."""
    cpu = next(
        line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")
    )
    memory_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    cores = len(os.sched_getaffinity(0))
    facts = {
        "machine": f"{cores} cores ({cpu.partition(': ')[2]}), {memory_gb:.0f} GB, Linux {os.uname().release}"
    }
    facts["headway"] = _versions(_own_freeze(), ("headway", "torch", "numpy", "uvicorn"))
    for peer in peers:
        freeze = (ROOT / ".bench" / peer / "versions.txt").read_text()
        facts[peer] = _versions(freeze, (peer, "tritonclient", "torch", "numpy"))
    return facts


def _own_freeze() -> str:
    from importlib.metadata import distributions

    lines = [f"{d.metadata['Name']}=={d.version}" for d in distributions()]
    return "\n".join([*lines, f"Python=={sys.version.split()[0]}"])


def _versions(freeze: str, wanted: tuple[str, ...]) -> str:
    found = dict(line.split("==", 1) for line in freeze.splitlines() if "==" in line)
    return ", ".join(f"{name} {found[name]}" for name in (*wanted, "Python") if name in found)
