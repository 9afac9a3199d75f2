"""Placement and the fleet together: what is short of workers gets them, and they go when nothing needs them.

A worker joins JOIN_S after its agent was told to start it; a copy is ready LOAD_S after it was ordered.
"""

from __future__ import annotations

import random

from headway.messages import AgentWorker, StartWorker
from headway.models import ModelSpec
from headway_broker.catalog import Key
from headway_broker.fleet import Fleet, Joined, Need
from headway_broker.offers import Offer, Place
from headway_broker.placement import Plan, Seat, Want, plan

GIB = 1 << 30
JOIN_S, LOAD_S = 6.0, 4.0
PLACES = tuple(Place(f"cuda:{i}", f"{i}", 24 * GIB, 2, 50) for i in range(2))


class Site:
    """Hosts with two GPUs, each of which two workers may share; one worker runs if nobody needs more."""

    def __init__(self, hosts: int, copies_max: int = 0, wanted: int = 1) -> None:
        self.copies_max, self.wanted = copies_max, wanted
        self.fleet = Fleet()
        self.wants: dict[Key, Want] = {}
        self.now = 0.0
        self.workers: dict[str, dict[str, AgentWorker]] = {f"h{i}": {} for i in range(hosts)}
        self.joins: dict[str, float] = {}
        self.seats: dict[str, Seat] = {}
        self.loads: dict[tuple[str, Key], float] = {}
        self.started = self.stopped = 0
        self.short: dict[Key, str] = {}

    def want(self, name: str, copies: int, gib: float) -> None:
        spec = ModelSpec(name, "1", "/m", "python", device="cuda")
        self.wants[spec.key] = Want(spec, copies, int(gib * GIB))

    def run(self, seconds: int) -> None:
        for _ in range(seconds):
            self.now += 1.0
            self.step()

    def step(self) -> None:
        for name in [name for name, at in self.joins.items() if at <= self.now]:
            del self.joins[name]
            self.join(name)
        for worker, key in [load for load, at in self.loads.items() if at <= self.now]:
            del self.loads[worker, key]
            if worker in self.seats:
                self.set_copy(worker, key, "ready")
        made = plan(self.wants.values(), list(self.seats.values()))
        self.obey(made)
        self.short = made.short
        needs = [
            Need(self.wants[key].spec, count, self.wants[key].need_bytes, made.short[key])
            for key, count in made.lacking.items()
        ]
        joined = {name: Joined(seat.host, len(seat.copies)) for name, seat in self.seats.items()}
        offers = [
            Offer(host, 4, self.wanted, PLACES, dict(workers), 0.0, self.copies_max)
            for host, workers in self.workers.items()
        ]
        for order in self.fleet.orders(offers, joined, {}, needs, self.now):
            name = order.message.name
            if isinstance(order.message, StartWorker):
                self.started += 1
                self.workers[order.host][name] = AgentWorker(name, 1, order.message.device, "running", "")
                self.joins[name] = self.now + JOIN_S
            else:
                self.stopped += 1
                assert not self.seats[name].copies
                self.lose(name, "stopped")

    def join(self, name: str) -> None:
        host = name.partition("-")[0]
        device = self.workers[host][name].device
        seat = Seat(name.encode(), name, host, device, device, {}, 12 * GIB, 24 * GIB)
        self.seats[name] = seat._replace(copies_max=self.copies_max)

    def lose(self, name: str, reason: str) -> None:
        host = name.partition("-")[0]
        self.fleet.ended(host, self.workers[host].pop(name)._replace(state="ended", reason=reason), self.now)
        self.seats.pop(name, None)
        self.joins.pop(name, None)

    def obey(self, made: Plan) -> None:
        for order in made.orders:
            name = order.worker.decode()
            if order.spec:
                self.set_copy(name, order.key, "loading")
                self.loads[name, order.key] = self.now + LOAD_S
            else:
                copies = dict(self.seats[name].copies)
                del copies[order.key]
                self.seats[name] = self.seats[name]._replace(copies=copies)

    def set_copy(self, name: str, key: Key, state: str) -> None:
        self.seats[name] = self.seats[name]._replace(copies={**self.seats[name].copies, key: state})

    def ready(self, name: str) -> int:
        return sum(seat.copies.get((name, "1")) == "ready" for seat in self.seats.values())


def test_workers_come_when_versions_are_short_of_them_and_go_when_they_are_not() -> None:
    site = Site(3)
    site.run(30)
    assert (site.started, len(site.seats)) == (3, 3)
    for i in range(6):
        site.want(f"m{i}", 2, 5)
    site.run(60)
    assert all(site.ready(f"m{i}") == 2 for i in range(6)) and not site.short
    assert len(site.seats) == 6, "12 copies of 5 GiB in workers of 12 GiB"
    assert site.stopped == 0
    site.run(600)
    assert (site.started, site.stopped) == (6, 0), "calm"
    for i in range(1, 6):
        del site.wants[f"m{i}", "1"]
    site.run(90)
    assert 3 <= len(site.seats) <= 4 and site.ready("m0") == 2
    site.run(600)
    assert site.started == 6


def test_what_no_worker_could_take_starts_none() -> None:
    site = Site(3)
    site.run(30)
    site.want("huge", 1, 13)
    site.want("small", 3, 1)
    site.run(600)
    assert (site.started, site.stopped) == (3, 0)
    assert site.short == {("huge", "1"): "needs 13.0 GiB, the largest suited worker has 12.0 GiB"}


def test_when_all_is_full_it_is_said_and_nothing_is_tried_over_and_over() -> None:
    site = Site(2)
    for i in range(6):
        site.want(f"m{i}", 2, 10)
    site.run(120)
    assert (site.started, len(site.seats)) == (8, 8), "two hosts with two places on two devices"
    assert sum(site.ready(f"m{i}") for i in range(6)) == 8
    assert all(site.ready(f"m{i}") for i in range(6)), "one of each before two of one"
    assert len(site.short) == 4
    site.run(1000)
    assert (site.started, site.stopped) == (8, 0)


def test_workers_that_die_are_replaced_and_their_copies_are_loaded_elsewhere_meanwhile() -> None:
    site, dice = Site(4), random.Random(3)
    for i in range(8):
        site.want(f"m{i}", 2, 4)
    site.run(120)
    for _ in range(60):
        name = dice.choice(sorted(site.seats))
        site.lose(name, "killed by SIGKILL")
        site.run(dice.randint(1, 60))
    site.run(120)
    assert all(site.ready(f"m{i}") == 2 for i in range(8)) and not site.short
    assert all(len(workers) <= 4 for workers in site.workers.values())
    assert set(site.seats) == {name for workers in site.workers.values() for name in workers}


def test_with_one_copy_for_each_worker_there_are_as_many_workers_as_copies() -> None:
    site = Site(2, copies_max=1, wanted=0)
    site.run(30)
    assert site.started == 0, "none until one is needed"
    site.want("a", 2, 1)
    site.want("b", 3, 1)
    site.run(30)
    assert (site.ready("a"), site.ready("b"), len(site.seats)) == (2, 3, 5)
    assert all(len(seat.copies) == 1 for seat in site.seats.values())
    site.want("b", 7, 1)
    site.run(30)
    assert (site.ready("b"), len(site.seats)) == (6, 8), "more than both hosts may have"
    assert site.short == {
        ("b", "1"): "7 copies wanted, 8 workers suited, full (copies_max): every suited worker"
    }
    site.want("b", 1, 1)
    site.run(120)
    assert (site.ready("a"), site.ready("b"), len(site.seats)) == (2, 1, 3)
    assert site.started == 8
    site.lose(next(name for name, seat in site.seats.items() if ("a", "1") in seat.copies), "killed")
    site.run(20)
    assert (site.ready("a"), site.ready("b"), len(site.seats)) == (2, 1, 3)
