"""Where shared memory begins to pay: round trips of one tensor inline and in a slot, through a real broker.

    python benchmarks/slots.py [--sizes 16384,65536,...] [--seconds 1.0]

Starts `headway up` with an echo model that answers with one number (`small`) or with what it got (`same`),
asks one at a time, inline and in a slot by turns, and prints the median of each in microseconds.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from headway import Client
from tests.system.stack import Up, add_model

MODEL = """
class Model:
    def infer(self, x):
        return {"y": %s}
"""
TOML = """
backend = "python"
batch_size_max = 1
[[inputs]]
name = "x"
dtype = "uint8"
shape = [-1]
"""
ROUNDS = 5


def measured(client: Client, model: str, size: int, seconds: float, in_place: bool) -> list[float]:
    x = client.empty(size, np.uint8) if in_place else np.empty(size, np.uint8)
    x[:] = 1
    took, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        client.infer(model, {"x": x})
        took.append((time.perf_counter() - start) * 1e6)
    return took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", default="4096,16384,32768,65536,131072,262144,602112,5242880")
    parser.add_argument("--seconds", type=float, default=0.3)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="hw-", dir="/dev/shm"))
    add_model(folder / "models", "small", TOML, MODEL % "x[:, :1] * 2")
    add_model(folder / "models", "same", TOML, MODEL % "x")
    up = Up(folder)
    try:
        up.hear("ready: http://")
        with Client(up.direct, shm_bytes=0) as inline, Client(up.direct) as shared:
            shared.lender.bytes_min = 1024
            print(f"{'model':6} {'bytes':>8} {'inline':>8} {'slot':>8} {'in place':>8}  (median us)")
            for model in ("small", "same"):
                for size in map(int, options.sizes.split(",")):
                    took: list[list[float]] = [[], [], []]
                    for _ in range(ROUNDS):
                        took[0] += measured(inline, model, size, options.seconds, False)
                        took[1] += measured(shared, model, size, options.seconds, False)
                        took[2] += measured(shared, model, size, options.seconds, True)
                    print(f"{model:6} {size:8} " + " ".join(f"{statistics.median(t):8.0f}" for t in took))
    finally:
        up.close()


if __name__ == "__main__":
    main()
