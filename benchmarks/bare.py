"""The limit: a model in a bare loop, with its batch already made, and no server at all.

    python -m benchmarks.bare --model resnet50 --seconds 30

Prints what `load.py` prints; a request is one example, and takes as long as its batch.
"""

from __future__ import annotations

import argparse
import json
import tomllib
from pathlib import Path
from runpy import run_path
from time import monotonic_ns
from typing import Any

import torch

from benchmarks.inputs import EXAMPLES
from benchmarks.tally import Closed

MODELS = Path(__file__).parent / "models"


def run(model: str, seconds: float, threads: int) -> dict[str, Any]:
    torch.set_num_threads(threads)
    folder = MODELS / model / "1"
    batch = tomllib.loads((folder / "model.toml").read_text())["batch_size_max"]
    network = run_path(str(folder / "model.py"))["Model"]().eval()
    x = torch.from_numpy(EXAMPLES[model].x).repeat(batch, 1, 1, 1)
    with torch.inference_mode():
        network(x[:1])
        return loop(network, x, seconds)


def loop(network: Any, x: torch.Tensor, seconds: float) -> dict[str, Any]:
    tally, going = Closed(monotonic_ns(), seconds), True
    while going:
        asked = monotonic_ns()
        network(x)
        now = monotonic_ns()
        counted = [tally.add(now, asked, True) for _ in x]
        going = all(counted)
    return tally.facts()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="resnet50")
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    print(json.dumps(run(options.model, options.seconds, options.threads)))
