"""The servers that are compared, each behind one small class: start, wait, measure, stop.

`SERVERS` names every one, with its settings; a name is what `benchmarks/cases.py` and the results call it.
Each has ports of its own (18070 to 18099), so that all can be up at once.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks.servers.base import Server, ServerSettings
from benchmarks.servers.headway import Headway
from benchmarks.servers.headway_torchserve import HeadwayTorchServe
from benchmarks.servers.mosec import Mosec
from benchmarks.servers.torchserve import TorchServe
from benchmarks.servers.triton import Triton

Maker = Callable[[str, Path], Server]

SERVERS: dict[str, Maker] = {
    "headway-archive": partial(HeadwayTorchServe, ServerSettings(port=18075, delay_ms=1)),
    "headway-archive-0ms": partial(HeadwayTorchServe, ServerSettings(port=18070, delay_ms=1), waits=False),
    "headway": partial(Headway, ServerSettings(port=18080)),
    "torchserve": partial(TorchServe, ServerSettings(port=18083, delay_ms=1)),
    "torchserve-quiet": partial(TorchServe, ServerSettings(port=18088, delay_ms=1, quiet=True)),
    "triton": partial(Triton, ServerSettings(port=18093, delay_ms=1)),
    "triton-0ms": partial(Triton, ServerSettings(port=18096, delay_ms=0)),
    "mosec": partial(Mosec, ServerSettings(port=18099, delay_ms=1)),
}
OWN = ("headway", "headway-archive", "headway-archive-0ms")
# What a name after --against stands for.
PEERS = {
    "torchserve": ("torchserve", "torchserve-quiet"),
    "triton": ("triton", "triton-0ms"),
    "mosec": ("mosec",),
}
TITLES = {
    "headway": "Headway",
    "headway-archive": "Headway, archive",
    "headway-archive-0ms": "Headway, archive, no delay",
    "torchserve": "TorchServe",
    "torchserve-quiet": "TorchServe, logs off",
    "triton": "Triton",
    "triton-0ms": "Triton, no delay",
    "mosec": "mosec",
    "bare": "bare torch loop",
}
__all__ = ["OWN", "PEERS", "SERVERS", "TITLES", "Server"]
