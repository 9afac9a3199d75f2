"""The tiny model over HTTP and direct: what Headway itself costs.

    python benchmarks/tiny.py [--seconds 5] [--repeats 5] [--markdown]

Starts `headway up` with one worker and one gateway process, drives it with `load.py`, and prints medians over
the repeats with their spread. The cases take turns, so that a slow minute of the machine does not fall on
one of them alone. CPU is that of all of Headway's processes, not of the load.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from headway import Client, __version__

HERE = Path(__file__).parent
HTTP = "127.0.0.1:18080"
CASES = [("http", 1), ("http", 8), ("http", 64), ("direct", 1), ("direct", 64), ("direct", 512)]
READY_S = 60.0


class Stack:
    """`headway up` in a run directory of its own."""

    def __init__(self, store: Path) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="hw", dir="/dev/shm")
        self.direct = f"ipc://{self.folder.name}/broker.sock"
        command = [sys.executable, "-m", "headway", "up", "--model-store", str(store), "--http", HTTP]
        self.process = subprocess.Popen([*command, "--workers", "1", "--run-dir", self.folder.name])
        self._wait()

    def _wait(self) -> None:
        until = time.monotonic() + READY_S
        with Client(self.direct, timeout_s=5.0) as client:
            while time.monotonic() < until:
                if all(model["state"] == "ready" for model in client.models()):
                    time.sleep(2.0)  # the gateway may still be starting
                    return
                time.sleep(0.2)
        raise SystemExit("the stack did not become ready")

    def cpu_s(self) -> float:
        """CPU seconds of every process of the stack so far."""
        root = psutil.Process(self.process.pid)
        times = [process.cpu_times() for process in (root, *root.children(recursive=True))]
        return sum(t.user + t.system for t in times)

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(30)
        self.folder.cleanup()


def measure(stack: Stack, way: str, callers: int, seconds: float) -> dict[str, Any]:
    address = HTTP if way == "http" else stack.direct
    command = [sys.executable, str(HERE / "load.py"), way, address]
    before = stack.cpu_s()
    output = subprocess.check_output([*command, "--callers", str(callers), "--seconds", str(seconds)])
    facts: dict[str, Any] = json.loads(output)
    if facts["errors"]:
        raise SystemExit(f"{way}, {callers} callers: {facts['errors']} errors")
    facts["rate"] = facts["requests"] / facts["seconds"]
    # The load's warm-up is a tenth of its time: that much of the CPU belongs to requests not counted.
    facts["cpu_ms"] = (stack.cpu_s() - before) * 0.9 / facts["requests"] * 1000 * 1000
    return facts


def spread(runs: list[dict[str, Any]], key: str, digits: int = 2) -> str:
    """Median, and the range in brackets."""
    values = [run[key] for run in runs]
    low, middle, high = (f"{v:,.{digits}f}" for v in (min(values), statistics.median(values), max(values)))
    return f"{middle} ({low} to {high})"


def rows(results: dict[tuple[str, int], list[dict[str, Any]]]) -> list[str]:
    lines = [
        "| way | in flight | requests/s | p50 ms | p99 ms | CPU ms per 1,000 requests |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for (way, callers), runs in results.items():
        cells = [spread(runs, "rate", 0), spread(runs, "p50_ms"), spread(runs, "p99_ms"), spread(runs, "cpu_ms", 0)]
        lines.append(f"| {way} | {callers} | {' | '.join(cells)} |")
    return lines


def machine() -> str:
    return (
        f"Headway {__version__}, Python {platform.python_version()}, {os.cpu_count()} cores, "
        f"{platform.machine()}, Linux {platform.release()}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    results: dict[tuple[str, int], list[dict[str, Any]]] = {case: [] for case in CASES}
    stack = Stack(HERE / "models")
    try:
        for _ in range(options.repeats):
            for way, callers in CASES:
                results[way, callers].append(measure(stack, way, callers, options.seconds))
    finally:
        stack.close()
    print(f"\n{machine()}; median of {options.repeats} runs of {options.seconds:g} s (range)\n")
    print("\n".join(rows(results)))


if __name__ == "__main__":
    main()
