"""What `nvidia-smi` says of the GPUs of this host, which one may ask before CUDA starts.

Knows: how nvidia-smi prints. Must not know: torch, CUDA's own numbers for devices (they may differ).
"""

from __future__ import annotations

import re
import subprocess
from typing import NamedTuple

PROGRAM = "nvidia-smi"
TIMEOUT_S = 20.0  # without nvidia-persistenced the driver is loaded first
_LINE = re.compile(r"\s*(GPU|MIG)\s+(.*?)\s*\(UUID:\s*((?:GPU|MIG)-[^)\s]+)\)")
_UUID = re.compile(r"(GPU|MIG)-[0-9A-Za-z/-]{4,80}")


class Listed(NamedTuple):
    """A GPU or a MIG slice."""

    uuid: str
    text: str


def is_uuid(text: str) -> bool:
    """Whether a text has the form of a GPU's or a MIG slice's UUID, or of its beginning."""
    return _UUID.fullmatch(text) is not None


def listed(program: str = PROGRAM) -> list[Listed]:
    """What is there; [] also where nvidia-smi is not."""
    found = map(_LINE.match, _output(program, "-L").splitlines())
    return [Listed(line[3], f"{line[1]} {line[2]}") for line in found if line]


def full_uuid(text: str, program: str = PROGRAM) -> str:
    """The UUID that begins so, if there is exactly one; else the text as it is."""
    found = [entry.uuid for entry in listed(program) if entry.uuid.startswith(text)]
    return found[0] if len(found) == 1 else text


def only_gpu(program: str = PROGRAM) -> str:
    """The UUID of the host's GPU, if there is one and it is not cut into slices; else ""."""
    found = listed(program)
    return found[0].uuid if len(found) == 1 else ""


def memory_mib(uuid: str, program: str = PROGRAM) -> int:
    """A GPU's memory; 0 if nvidia-smi does not tell, as of MIG slices."""
    answer = _output(program, "-i", uuid, "--query-gpu=memory.total", "--format=csv,noheader,nounits")
    return int(answer.strip()) if answer.strip().isdecimal() else 0


def _output(program: str, *arguments: str) -> str:
    try:
        done = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""
