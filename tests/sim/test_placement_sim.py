"""Placement for a hundred hosts with eight GPUs each and a thousand models, through losses and changes.

The fleet here is a few dictionaries: what each worker has, and since when. A worker obeys its orders one
after another; how far others are meanwhile is the worst that could be, so each device is watched at the sum
of the most that each of its workers ever has.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from dataclasses import replace

import pytest

from headway.models import ModelSpec
from headway_broker.catalog import Key
from headway_broker.placement import Plan, Seat, Want, plan

HOSTS, DEVICES, MODELS = 100, 8, 1000
GIB = 1 << 30
DEVICE_BYTES = 24 * GIB


def wants(rng: random.Random) -> dict[Key, Want]:
    """Most are small and a few take most of a device; some needs are not known."""
    made = {}
    for number in range(MODELS):
        size = min(rng.paretovariate(1.1) * 0.4, 20.0) if number % 20 else 0.0
        device = "cuda" if number % 3 else "auto"
        spec = ModelSpec(f"m{number}", "1", "/m", "python", device=device)
        made[spec.key] = Want(spec, rng.randint(1, 4), int(size * GIB))
    return made


def workers_of(host: int) -> list[Seat]:
    """Every fourth device is shared by two workers."""
    seats = []
    for device in range(DEVICES):
        for worker in range(2 if device % 4 == 0 else 1):
            name = f"h{host}-d{device}-{worker}"
            own = DEVICE_BYTES * 6 // 10 if device % 4 == 0 else DEVICE_BYTES
            id = f"GPU-{host}-{device}"
            seats.append(Seat(name.encode(), name, f"h{host}", f"cuda:{device}", id, {}, own, DEVICE_BYTES))
    return seats


class Site:
    """Everything there is. Each plan is checked against it as it is obeyed."""

    def __init__(self, rng: random.Random) -> None:
        self.wants = wants(rng)
        self.seats = {seat.worker: seat for host in range(HOSTS) for seat in workers_of(host)}
        self.copies: dict[bytes, dict[Key, str]] = {worker: {} for worker in self.seats}
        self.needs = {key: want.need_bytes for key, want in self.wants.items()}

    def plan(self) -> Plan:
        seats = [seat._replace(copies=dict(self.copies[worker])) for worker, seat in self.seats.items()]
        return plan(self.wants.values(), seats, self.needs)

    def step(self) -> Plan:
        made = self.plan()
        orders = defaultdict(list)
        for order in made.orders:
            orders[order.worker].append(order)
        devices: Counter[str] = Counter()
        for worker, seat in self.seats.items():
            most = self.held(worker)
            for order in orders[worker]:
                if order.spec is None:
                    del self.copies[worker][order.key]
                else:
                    assert order.key not in self.copies[worker]
                    self.copies[worker][order.key] = "loading"
                most = max(most, self.held(worker))
            assert most <= seat.memory_bytes
            devices[seat.device_id] += most
        assert max(devices.values()) <= DEVICE_BYTES
        return made

    def settle(self) -> Plan:
        made = self.step()
        for copies in self.copies.values():
            copies.update(dict.fromkeys(copies, "ready"))
        assert self.plan().orders == []
        return made

    def held(self, worker: bytes) -> int:
        return sum(self.needs[key] for key in self.copies[worker])

    def free(self, worker: bytes) -> int:
        seat = self.seats[worker]
        others = [w for w, other in self.seats.items() if other.device_id == seat.device_id]
        left = DEVICE_BYTES - sum(self.held(other) for other in others)
        return min(left, seat.memory_bytes - self.held(worker))

    def lose(self, host: str) -> Counter[Key]:
        """What the host held."""
        lost: Counter[Key] = Counter()
        for worker in [w for w, seat in self.seats.items() if seat.host == host]:
            lost.update(self.copies.pop(worker).keys())
            del self.seats[worker]
        return lost

    def bring_back(self, number: int) -> None:
        for seat in workers_of(number):
            self.seats[seat.worker] = seat
            self.copies[seat.worker] = {}

    def places(self, key: Key) -> list[Seat]:
        return [self.seats[worker] for worker, copies in self.copies.items() if key in copies]

    def scale(self, key: Key, copies: int) -> None:
        self.wants[key] = self.wants[key]._replace(copies=copies)


def counted(made: Plan) -> tuple[Counter[Key], Counter[Key]]:
    """Loads and unloads of each version."""
    loads = Counter(order.key for order in made.orders if order.spec)
    return loads, Counter(order.key for order in made.orders if not order.spec)


@pytest.fixture
def site() -> Site:
    site = Site(random.Random(5))
    assert site.settle().short == {}
    return site


def test_everything_is_placed_over_many_devices_and_hosts(site: Site) -> None:
    assert len(site.seats) == HOSTS * 10
    for key, want in site.wants.items():
        places = site.places(key)
        assert len(places) == want.copies
        assert len({seat.device_id for seat in places}) == want.copies
        assert len({seat.host for seat in places}) == want.copies


def test_when_all_is_well_nothing_moves(site: Site) -> None:
    for _ in range(3):
        assert site.step() == Plan([], {})


@pytest.mark.parametrize("number", [0, 41, 99])
def test_after_one_hosts_loss_only_what_it_held_is_loaded_anew(site: Site, number: int) -> None:
    lost = site.lose(f"h{number}")
    assert lost
    made = site.settle()
    assert counted(made) == (lost, Counter())
    assert made.short == {}
    site.bring_back(number)
    assert site.step() == Plan([], {}), "when it comes back it is spare"


def test_a_host_that_was_only_out_of_sight_comes_back_with_its_copies_and_keeps_them(site: Site) -> None:
    """Its workers serve; what was about to be loaded in their place does not yet."""
    had = {w: dict(site.copies[w]) for w, seat in site.seats.items() if seat.host == "h7"}
    lost = site.lose("h7")
    assert counted(site.step())[0] == lost  # these are still loading when
    site.bring_back(7)
    site.copies.update(had)
    assert counted(site.settle()) == (Counter(), lost)
    assert {w: site.copies[w] for w in had} == had


def test_ten_hosts_are_lost_one_after_another_and_come_back(site: Site) -> None:
    for number in range(10):
        lost = site.lose(f"h{number}")
        assert counted(site.settle()) == (lost, Counter())
    for number in range(10):
        site.bring_back(number)
        assert site.settle().orders == []


def test_a_new_model_is_one_load(site: Site) -> None:
    spec = ModelSpec("new", "1", "/m", "python", device="cuda")
    site.wants[spec.key], site.needs[spec.key] = Want(spec, 1, GIB), GIB
    assert counted(site.settle()) == (Counter({spec.key: 1}), Counter())
    del site.wants[spec.key]
    assert counted(site.settle()) == (Counter(), Counter({spec.key: 1}))


@pytest.mark.parametrize("name", ["m0", "m1", "m500", "m999"])
def test_scaling_touches_nothing_else(site: Site, name: str) -> None:
    key = (name, "1")
    before = site.wants[key].copies
    site.scale(key, before + 3)
    assert counted(site.settle()) == (Counter({key: 3}), Counter())
    assert len({seat.host for seat in site.places(key)}) == before + 3
    site.scale(key, 1)
    assert counted(site.settle()) == (Counter(), Counter({key: before + 2}))


def test_a_new_version_is_placed_beside_the_old_one_and_then_takes_its_room(site: Site) -> None:
    old = site.wants["m1", "1"]
    new = old._replace(spec=replace(old.spec, version="2"))
    site.wants[new.spec.key], site.needs[new.spec.key] = new, new.need_bytes
    assert counted(site.settle()) == (Counter({new.spec.key: old.copies}), Counter())
    del site.wants[old.spec.key]
    assert counted(site.settle()) == (Counter(), Counter({old.spec.key: old.copies}))


def test_where_there_is_too_little_memory_everybody_has_one_copy_before_anybody_has_two() -> None:
    site = Site(random.Random(6))
    for host in range(10, HOSTS):
        site.lose(f"h{host}")
    made = site.settle()
    assert made.short
    assert all(site.places(key) for key in site.wants)
    for key, reason in made.short.items():
        assert f"needs {site.needs[key] / GIB:.1f} GiB" in reason or site.needs[key] < GIB
        free = max(site.free(worker) for worker in site.seats if key not in site.copies[worker])
        assert free < site.needs[key], "what could be placed was"
