"""What the agents offer: their hosts' devices, and how many workers these may have.

Knows: an AgentJoin's facts. Must not know: which workers there should be (that is `fleet`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from headway.errors import RemoteProtocolError
from headway.messages import AgentWorker
from headway.models import ModelSpec
from headway_broker.placement import fits

PLACES_MAX = 4096
DEVICE = re.compile(r"cpu|cuda:[0-9]+|(GPU|MIG)-[A-Za-z0-9/-]+")


class Place(NamedTuple):
    """A device of a host, and how many workers it may have. `memory_bytes` 0: nobody knows. `share`: what
    each worker gets of it, in percent; 0: no share of its own."""

    device: str
    device_id: str
    memory_bytes: int
    places: int
    share: int = 0


class Offer(NamedTuple):
    """A host with an agent. `workers`: the last that the agent said of each; those that ended may be among
    them. `joined_at`: when it last joined. `copies_max`: how many copies each worker takes; 0: as many as
    fit."""

    host: str
    workers_max: int
    workers_wanted: int
    places: tuple[Place, ...]
    workers: Mapping[str, AgentWorker]
    joined_at: float
    copies_max: int = 0

    @property
    def room(self) -> int:
        """How many workers fit."""
        return min(self.workers_max, sum(place.places for place in self.places))

    def memory_of(self, device: str) -> float:
        """What one worker on the device has for its models, in bytes."""
        place = next((place for place in self.places if place.device == device), None)
        if place is None or not place.memory_bytes:
            return math.inf
        return place.memory_bytes * (place.share or 100) / 100


def suits(spec: ModelSpec, device: str) -> bool:
    """Whether a worker that is started on `device` could host the model."""
    return fits(spec, "cuda" if device.startswith(("GPU-", "MIG-")) else device)


def wanted(offer: Offer, ordered: int | None) -> int:
    """How many workers the host shall have: what was ordered, or else what its agent says, if they fit."""
    return min(offer.workers_wanted if ordered is None else ordered, offer.room)


def check_count(offer: Offer, count: int) -> str:
    """Why a host cannot have so many workers; "" if it can."""
    places = sum(place.places for place in offer.places)
    if count < 0:
        return f"count: {count} is below 0"
    if count > offer.workers_max:
        return f"count: {offer.host} may have {offer.workers_max} workers, not {count}"
    if count > places:
        return f"count: the devices of {offer.host} have places for {places} workers, not {count}"
    return ""


def offer_of(
    host: str, facts: Mapping[str, Any], workers: Mapping[str, AgentWorker], joined_at: float
) -> Offer:
    """What an agent says of its host in its AgentJoin. Raises: RemoteProtocolError naming what is wrong."""
    devices = facts.get("devices")
    if not isinstance(devices, list):
        raise RemoteProtocolError(f"devices of the agent on {host} must be a list, not {devices!r}")
    places = tuple(_place(host, device) for device in devices)
    if len({place.device for place in places}) < len(places):
        raise RemoteProtocolError(f"devices of the agent on {host}: one is there twice")
    most, wanted = (_whole(host, facts, key) for key in ("workers_max", "workers_wanted"))
    copies = _whole(host, facts, "copies_max") if "copies_max" in facts else 0
    return Offer(host, most, wanted, places, workers, joined_at, copies)


def _place(host: str, facts: Any) -> Place:
    if not isinstance(facts, Mapping):
        raise RemoteProtocolError(f"devices of the agent on {host} must be maps, not {facts!r}")
    device, id = facts.get("device"), facts.get("device_id")
    if not isinstance(device, str) or not DEVICE.fullmatch(device):
        raise RemoteProtocolError(f"the agent on {host} has an unknown device {device!r}")
    if not isinstance(id, str):
        raise RemoteProtocolError(f"the agent on {host} says no device_id of {device}")
    memory = _whole(host, facts, "memory_bytes", 1 << 60) if "memory_bytes" in facts else 0
    share = _whole(host, facts, "share", 100) if "share" in facts else 0
    return Place(device, id, memory, _whole(host, facts, "places"), share)


def _whole(host: str, facts: Mapping[str, Any], key: str, most: int = PLACES_MAX) -> int:
    value = facts.get(key)
    if type(value) is not int or not 0 <= value <= most:
        raise RemoteProtocolError(f"{key} of the agent on {host} must be from 0 to {most}, not {value!r}")
    return value
