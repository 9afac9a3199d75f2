"""What this host's CPU, memory, disk and GPUs do at the moment, under TorchServe's names.

Knows: psutil, how nvidia-smi prints. Must not know: who asks, how often, where it goes.
"""

from __future__ import annotations

import subprocess
from typing import NamedTuple

import psutil

PROGRAM = "nvidia-smi"
_QUERY = "--query-gpu=index,utilization.gpu,memory.used,memory.total"
_TIMEOUT_S = 20.0
_MIB, _GIB = 1 << 20, 1 << 30


class Reading(NamedTuple):
    """`device`: a GPU's number, "" for the host."""

    name: str
    value: float
    device: str = ""


def host_readings(cpu_over_s: float | None = None) -> list[Reading]:
    """Blocks for `cpu_over_s`; None: the CPU's use since the last call."""
    memory, disk = psutil.virtual_memory(), psutil.disk_usage("/")
    return [
        Reading("CPUUtilization", psutil.cpu_percent(cpu_over_s)),
        Reading("DiskAvailable", disk.free / _GIB),
        Reading("DiskUsage", disk.used / _GIB),
        Reading("DiskUtilization", disk.percent),
        Reading("MemoryAvailable", memory.available / _MIB),
        Reading("MemoryUsed", memory.used / _MIB),
        Reading("MemoryUtilization", memory.percent),
    ]


def gpu_readings(program: str = PROGRAM) -> list[Reading]:
    """[] where there is no nvidia-smi, or it fails."""
    command = [program, _QUERY, "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired):
        return []
    lines = done.stdout.splitlines() if done.returncode == 0 else []
    return [reading for line in lines for reading in parsed(line)]


def parsed(line: str) -> list[Reading]:
    """One GPU's line; what it does not tell (`[N/A]`) is left out."""
    index, *rest = [part.strip() for part in line.split(",")]
    if len(rest) != 3 or not index.isdecimal():
        return []
    use, used, whole = map(_number, rest)
    found = [("GPUMemoryUtilization", used / whole * 100)] if used is not None and whole else []
    found += [("GPUMemoryUsed", used)] if used is not None else []
    found += [("GPUUtilization", use)] if use is not None else []
    return [Reading(name, value, index) for name, value in found]


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
