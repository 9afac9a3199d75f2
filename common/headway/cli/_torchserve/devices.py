"""How many GPUs and cores there are, which decides how many workers a model gets of which nothing says it.

Knows: `nvidia-smi`, the affinity of this process. Must not know: what runs on them.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping

ASK_TIMEOUT_S = 10.0


def count_gpus(environment: Mapping[str, str], nvidia_smi: str = "nvidia-smi") -> int:
    """Those that CUDA programs see here."""
    try:
        said = subprocess.run(
            [nvidia_smi, "-L"], capture_output=True, text=True, timeout=ASK_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return 0
    there = sum(line.startswith("GPU ") for line in said.stdout.splitlines()) if said.returncode == 0 else 0
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    return (
        there if visible is None else min(there, len([name for name in visible.split(",") if name.strip()]))
    )


def count_cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0))


def devices_for(number_of_gpu: int, there: int) -> str:
    """What an agent's `devices` is. `number_of_gpu`: the property, -1 for all."""
    count = there if number_of_gpu < 0 else min(number_of_gpu, there)
    return ",".join(f"cuda:{i}" for i in range(count)) or "cpu"
