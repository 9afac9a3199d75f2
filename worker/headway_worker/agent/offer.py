"""What the host offers to the broker, and which workers therefore cannot be started. Pure.

Knows: devices, places, shares. Must not know: processes, how devices are found.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from headway.messages import StartWorker

# A name becomes a file's, a unit's and an argument's: nothing that has a meaning to any of them.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
SHARE_MAX = 100


@dataclass(frozen=True)
class Device:
    """A device of the host. `device_id` is what no other on the host is called, `places` how many workers it
    may have, `memory_bytes` 0 if nobody knows."""

    device: str
    device_id: str
    device_name: str
    memory_bytes: int
    places: int

    def facts(self, is_closing: bool, share: int) -> dict[str, Any]:
        facts: dict[str, Any] = {
            "device": self.device,
            "device_id": self.device_id,
            "device_name": self.device_name,
            "places": 0 if is_closing else self.places,
        }
        facts |= {"share": share} if share else {}
        return facts | ({"memory_bytes": self.memory_bytes} if self.memory_bytes else {})


class Placed(Protocol):
    """A worker that has a place, in whatever state."""

    name: str
    device: str
    share: int


@dataclass(frozen=True)
class Offer:
    """`share` is what a worker gets whose order names none; `copies_max`, how many copies each worker takes,
    0 for as many as fit."""

    devices: tuple[Device, ...]
    workers_max: int
    workers_wanted: int
    share: int = 0
    copies_max: int = 0

    def facts(self, is_closing: bool = False) -> dict[str, Any]:
        """As an AgentJoin has them; of an agent that ends: nothing."""
        facts: dict[str, Any] = {"copies_max": self.copies_max} if self.copies_max else {}
        return facts | {
            "workers_max": 0 if is_closing else self.workers_max,
            "workers_wanted": 0 if is_closing else self.workers_wanted,
            "devices": [device.facts(is_closing, self.share) for device in self.devices],
        }

    def share_of(self, order: StartWorker) -> int:
        return order.share or self.share

    def refusal(self, order: StartWorker, placed: Sequence[Placed]) -> str:
        """Why `order` cannot be obeyed beside the workers that are there; "" if it can."""
        device = next((d for d in self.devices if d.device == order.device), None)
        beside = [worker for worker in placed if worker.device == order.device]
        share = self.share_of(order)
        if not NAME.fullmatch(order.name):
            return f"{order.name!r} is no worker's name: letters, digits, '.', '_' and '-', at most 100"
        if any(worker.name == order.name for worker in placed):
            return f"a worker called {order.name} is there already"
        if device is None:
            known = ", ".join(d.device for d in self.devices)
            return f"device {order.device!r} is not offered by this host, which has {known}"
        if len(placed) >= self.workers_max:
            return f"this host has {len(placed)} workers and may have {self.workers_max}"
        if len(beside) >= device.places:
            return f"{order.device} has {len(beside)} workers and places for {device.places}"
        return _share_refusal(order.device, share, sum(worker.share for worker in beside))


def _share_refusal(device: str, share: int, taken: int) -> str:
    if share > SHARE_MAX:
        return f"a share of {share} % is over {SHARE_MAX} %"
    if share + taken > SHARE_MAX:
        return f"a share of {share} % does not fit: {taken} % of {device} are taken"
    return ""
