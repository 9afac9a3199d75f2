"""The difference between what should be and what is, as orders to load and unload.

Knows: specs, and what each worker has. Must not know: queues, messages, why a worker is what it is.

Every version gets its wanted copies, at most one in a worker, where its device is. A copy that failed to
load in a worker is not tried there again (it is in another), until that worker is started anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from headway.models import ModelSpec
from headway_broker.catalog import Key


class Seat(NamedTuple):
    """A worker as placement sees it: its device, and the state of each copy it has."""

    worker: bytes
    name: str
    host: str
    device: str
    device_id: str
    copies: Mapping[Key, str]
    memory_bytes: int = 0
    device_memory_bytes: int = 0
    leaving: bool = False


class Want(NamedTuple):
    """So many copies, each of which needs so much memory (0: nobody knows)."""

    spec: ModelSpec
    copies: int
    need_bytes: int = 0


class Order(NamedTuple):
    """Load (`spec` given) or unload one version in one worker."""

    worker: bytes
    key: Key
    spec: ModelSpec | None


class Plan(NamedTuple):
    """`short` says for each version without its wanted copies why."""

    orders: list[Order]
    short: dict[Key, str]


def fits(spec: ModelSpec, device: str) -> bool:
    """Whether a worker on `device` can host the model: "auto" and "cpu" run anywhere, "cuda" on any GPU."""
    return spec.device in ("auto", "cpu", device) or (spec.device == "cuda" and device.startswith("cuda"))


def plan(wants: Iterable[Want], seats: list[Seat]) -> Plan:
    """The orders that lead from what is to what should be; none when all is well."""
    seats = [seat for seat in seats if not seat.leaving]
    counts = {want.spec.key: want.copies for want in wants}
    wanted = {want.spec.key: want.spec for want in wants}
    load = {seat.worker: len(seat.copies) for seat in seats}
    orders = [Order(s.worker, key, None) for s in seats for key in s.copies if key not in wanted]
    short: dict[Key, str] = {}
    for spec in wanted.values():
        live = [s for s in seats if s.copies.get(spec.key) in ("loading", "ready")]
        live.sort(key=lambda seat: seat.copies[spec.key] != "ready")  # keep those that serve already
        for seat in live[counts[spec.key] :]:
            orders.append(Order(seat.worker, spec.key, None))
        free = [s for s in seats if spec.key not in s.copies and fits(spec, s.device)]
        free.sort(key=lambda seat: load[seat.worker])
        missing = counts[spec.key] - len(live)
        for seat in free[: max(missing, 0)]:
            orders.append(Order(seat.worker, spec.key, spec))
            load[seat.worker] += 1
        if missing > len(free):
            short[spec.key] = _why(spec, seats)
    return Plan(orders, short)


def _why(spec: ModelSpec, seats: list[Seat]) -> str:
    if not seats:
        return "no worker has joined"
    suited = sum(fits(spec, seat.device) for seat in seats)
    if not suited:
        return f"no worker has a device {spec.device}"
    failed = sum(seat.copies.get(spec.key) == "failed" for seat in seats)
    return f"{spec.copies} copies wanted, {suited} workers suited, {failed} failed to load it"
