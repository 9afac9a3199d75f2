"""Workers' processes, looked at from the outside: since when they run, what memory they take, how busy their
GPU is.

Knows: psutil, `nvidia-smi`. Must not know: the broker, what is said of it. Blocks: run it in a thread.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable, Mapping
from typing import Any

import psutil

from headway_gateway.torchserve.descriptions import NO_GPU_USAGE, Process

FIELDS = ("utilization.gpu [%]", "utilization.memory [%]", "memory.used [MiB]")
SMI_TIMEOUT_S = 5.0


def look_at(workers: Iterable[Mapping[str, Any]], home: str) -> dict[str, Process]:
    """By name, those of the broker's state that are on this host, `home`."""
    here = [each for each in workers if each["host"] == home]
    devices = {each["device_id"] for each in here if str(each["device"]).startswith("cuda")}
    usage = {device: gpu_usage(device) for device in devices}
    return {each["name"]: _look(each["pid"], usage.get(each["device_id"], NO_GPU_USAGE)) for each in here}


def _look(pid: int, usage: str) -> Process:
    try:
        process = psutil.Process(pid)
        return Process(process.create_time(), int(process.memory_info().rss), usage)
    except psutil.Error:
        return Process(gpu_usage=usage)


def gpu_usage(device: str) -> str:
    """As TorchServe writes it; "N/A" where nobody knows."""
    smi = shutil.which("nvidia-smi")
    if not smi:
        return NO_GPU_USAGE
    query = ",".join(field.partition(" ")[0] for field in ("index", *FIELDS))
    command = [smi, "-i", device, f"--query-gpu={query}", "--format=csv,noheader"]
    try:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=SMI_TIMEOUT_S, check=False)
    except (OSError, subprocess.SubprocessError):
        return NO_GPU_USAGE
    return usage_of(ran.stdout) if ran.returncode == 0 else NO_GPU_USAGE


def usage_of(line: str) -> str:
    """What `nvidia-smi` printed, in TorchServe's words."""
    index, *values = [value.strip() for value in line.strip().split(",")]
    if len(values) != len(FIELDS):
        return NO_GPU_USAGE
    said = [f"{field}::{value}" for field, value in zip(FIELDS, values, strict=True)]
    return " ".join([f"gpuId::{index}", *said])
