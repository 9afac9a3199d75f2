"""Scaling by itself: each rule, and whole days in a small world of queues."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway_broker.scaling import Load, Scaler, ScalingTimes, Wish

M = ("m", "1")
CALM = Load(0, 0.0, 0.7, 0.7, 1, 1, 0.0)
LATE = CALM._replace(waiting=10, oldest_wait_s=1.0, busy=1.0, own=1.0)


def looks(
    load: Load, count: int, least: int = 1, most: int = 8, slo_s: float = 0.0, every_s: float = 1.0
) -> list[Wish]:
    """As many looks at the same load; what is wished is had at once."""
    scaler, wishes = Scaler(), []
    for i in range(count):
        wishes.append(scaler.decide(M, least, most, load, slo_s, i * every_s))
        load = load._replace(wanted=wishes[-1].copies, ready=wishes[-1].copies)
    return wishes


def copies(wishes: list[Wish]) -> list[int]:
    return [wish.copies for wish in wishes]


# ---- up ----


def test_requests_that_wait_too_long_in_two_looks_get_another_copy() -> None:
    wishes = looks(LATE, 2)
    assert wishes == [Wish(1, ""), Wish(2, "a request has waited 1 s, more than 0.25 s")]


def test_one_long_wait_is_none() -> None:
    scaler = Scaler()
    for now, load in enumerate([LATE, CALM, LATE, CALM, LATE]):
        assert scaler.decide(M, 1, 8, load, 0.0, float(now)) == Wish(1, "")


def test_half_an_slo_is_what_a_request_may_wait() -> None:
    assert copies(looks(LATE._replace(oldest_wait_s=0.2), 2, slo_s=0.3)) == [1, 2]
    assert copies(looks(LATE._replace(oldest_wait_s=0.9), 3, slo_s=2.0)) == [1, 1, 1]


def test_a_wait_that_soon_will_be_right_needs_no_copy() -> None:
    scaler, slow = Scaler(), Scaler()
    for i in range(5):
        assert not scaler.decide(M, 1, 8, LATE._replace(oldest_wait_s=4.0 - i), 0.0, float(i)).reason
    wishes = [slow.decide(M, 1, 8, LATE._replace(oldest_wait_s=9 - i / 10), 0.0, float(i)) for i in range(3)]
    assert wishes[1].copies == 2


def test_busy_copies_get_another_after_some_seconds() -> None:
    wishes = looks(CALM._replace(busy=0.9, own=0.9), 4)
    assert wishes[:3] == [Wish(1, "")] * 3
    assert wishes[3] == Wish(2, "its workers are busy 90% of the time")


def test_growth_is_in_proportion_and_at_most_double() -> None:
    four = Load(0, 0.0, 0.9, 0.9, 4, 4, 0.0)
    assert looks(four, 4, most=100)[-1].copies == 6
    assert looks(four._replace(waiting=9, oldest_wait_s=0.3), 2, most=100)[-1].copies == 5
    assert looks(four._replace(waiting=9, oldest_wait_s=60.0), 2, most=100)[-1].copies == 8
    assert looks(four._replace(waiting=9, oldest_wait_s=60.0), 2, most=7)[-1].copies == 7


def test_a_neighbour_that_keeps_its_workers_busy_does_not_make_a_version_grow() -> None:
    assert copies(looks(CALM._replace(busy=1.0, own=0.1), 30)) == [1] * 30


def test_while_a_copy_is_loading_there_is_no_other() -> None:
    scaler = Scaler()
    loading = LATE._replace(wanted=2, ready=1)
    for now in range(30):
        assert scaler.decide(M, 1, 8, loading, 0.0, float(now)) == Wish(2, "")
    ready = loading._replace(ready=2)
    assert [scaler.decide(M, 1, 8, ready, 0.0, 30.0 + i).copies for i in range(2)] == [2, 4]


def test_there_are_never_more_than_the_most() -> None:
    assert set(copies(looks(LATE, 50, most=3))[3:]) == {3}


# ---- down ----


def test_after_a_calm_minute_there_is_one_copy_fewer() -> None:
    wishes = looks(Load(0, 0.0, 0.1, 0.1, 4, 4, 0.0), 200)
    changes = [(i, wish) for i, wish in enumerate(wishes) if wish.reason]
    assert [i for i, _ in changes] == [60, 121, 182]
    assert changes[0][1] == Wish(3, "its copies are busy 10% of the time: fewer will do")
    assert wishes[-1].copies == 1


def test_a_busy_moment_begins_the_minute_anew() -> None:
    scaler, calm = Scaler(), Load(0, 0.0, 0.1, 0.1, 2, 2, 0.0)
    for now in range(300):
        load = calm if now % 50 else calm._replace(busy=0.5, own=0.5)
        assert scaler.decide(M, 1, 8, load, 0.0, float(now)) == Wish(2, "")


def test_who_would_be_too_busy_with_fewer_stays() -> None:
    assert copies(looks(Load(0, 0.0, 0.45, 0.45, 3, 3, 0.0), 500)) == [3] * 500, "two would be busy 0.68"
    assert copies(looks(Load(0, 0.0, 0.7, 0.1, 3, 3, 0.0), 500)) == [3] * 500, "its neighbours are busy"


def test_a_version_that_nobody_asks_goes_down_beside_busy_neighbours() -> None:
    assert looks(Load(0, 0.0, 0.9, 0.0, 3, 3, 100.0), 100)[-1].copies == 2


# ---- none ----


def test_a_version_that_may_have_none_has_none_after_a_while_and_one_when_a_request_waits() -> None:
    unused = Load(0, 0.0, 0.0, 0.0, 1, 1, 299.0)
    assert looks(unused, 400, least=0)[-1].copies == 1
    assert looks(unused._replace(idle_s=300.0), 1, least=0) == [Wish(0, "no request for 300 s")]
    assert looks(unused._replace(idle_s=300.0), 400, least=1)[-1].copies == 1
    none = unused._replace(ready=0, wanted=0)
    assert looks(none, 400, least=0)[-1].copies == 0
    assert looks(none._replace(waiting=1), 1, least=0) == [Wish(1, "a request waits, and there is no copy")]
    assert looks(none._replace(waiting=1), 1, least=0, most=0) == [Wish(0, "")]


# ---- orders ----


def test_what_is_ordered_holds_at_once() -> None:
    assert looks(CALM, 1, least=3) == [Wish(3, "at least 3 are ordered")]
    assert looks(CALM._replace(wanted=5), 1, most=2) == [Wish(2, "at most 2 are ordered")]
    assert looks(CALM._replace(wanted=5), 1, least=0, most=0) == [Wish(0, "at most 0 are ordered")]


def test_a_version_that_was_gone_begins_anew() -> None:
    scaler = Scaler()
    scaler.decide(M, 1, 8, LATE, 0.0, 0.0)
    scaler.forget(M)
    assert scaler.decide(M, 1, 8, LATE, 0.0, 1.0) == Wish(1, "")
    scaler.forget(("never", "seen"))


PARTS = st.floats(0, 1)
LOADS = st.builds(
    lambda waiting, wait_s, a, b, ready, wanted, idle_s: Load(
        waiting, wait_s, max(a, b), min(a, b), min(ready, wanted), wanted, idle_s
    ),
    *(st.integers(0, 9), st.floats(0, 100), PARTS, PARTS, st.integers(0, 9), st.integers(0, 9)),
    st.floats(0, 999),
)


@given(st.lists(LOADS, min_size=1, max_size=20), st.integers(0, 4), st.integers(0, 4), st.floats(0, 2))
def test_a_wish_is_as_ordered_and_has_a_reason_when_it_changes(
    loads: list[Load], least: int, more: int, slo_s: float
) -> None:
    scaler = Scaler()
    for now, load in enumerate(loads):
        wish = scaler.decide(M, least, least + more, load, slo_s, now * 30.0)
        assert least <= wish.copies <= least + more
        assert bool(wish.reason) == (wish.copies != load.wanted)
        assert wish.copies <= max(load.wanted * 2, least, 1)


# ---- days ----


@dataclass
class Town:
    """One version under a load that is a function of time, in steps of a second. A copy does `rate` rows in a
    second, what is beyond waits, and a copy takes `load_s` to load."""

    rows_at: Callable[[float], float]
    least: int = 1
    most: int = 16
    rate: float = 100.0
    load_s: float = 8.0
    wanted: int = 1
    now: float = 0.0
    waiting: float = 0.0
    asked_at: float = 0.0
    loading: list[float] = field(default_factory=list)
    changes: list[tuple[float, int, str]] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.scaler = Scaler()

    @property
    def ready(self) -> int:
        return self.wanted - len(self.loading)

    def run(self, until: float) -> None:
        while self.now < until:
            self.step()

    def step(self) -> None:
        self.now += 1.0
        self.loading = [at for at in self.loading if at > self.now]
        came, can = self.rows_at(self.now), self.ready * self.rate
        if came:
            self.asked_at = self.now
        work = min(self.waiting + came, can)
        self.waiting += came - work
        wait_s = self.waiting / can if can else (1.0 if self.waiting else 0.0)
        self.waits.append(wait_s)
        busy = work / can if can else 0.0
        idle_s = self.now - self.asked_at
        load = Load(math.ceil(self.waiting), wait_s, busy, busy, self.ready, self.wanted, idle_s)
        wish = self.scaler.decide(M, self.least, self.most, load, 0.0, self.now)
        if wish.reason:
            self.obey(wish)

    def obey(self, wish: Wish) -> None:
        more = wish.copies - self.wanted
        self.loading = [*self.loading, *[self.now + self.load_s] * more][: max(len(self.loading) + more, 0)]
        self.wanted = wish.copies
        self.changes.append((self.now, wish.copies, wish.reason))

    def longest_wait(self, since: float, until: float = math.inf) -> float:
        return max(wait for i, wait in enumerate(self.waits) if since <= i + 1 <= until)


HOUR = 3600.0


@pytest.mark.parametrize("rows", [10.0, 55.0, 150.0, 420.0, 1000.0])
def test_under_a_constant_load_the_copies_become_enough_and_then_stay(rows: float) -> None:
    town = Town(lambda now: rows)
    town.run(4 * HOUR)
    assert rows / town.rate <= town.wanted <= max(math.ceil(rows / town.rate / 0.55), 1)
    assert town.longest_wait(since=120.0) < 0.25
    assert not [change for change in town.changes if change[0] > 0.5 * HOUR]
    ups = [copies for _, copies, _ in town.changes]
    assert len(ups) <= 12


def test_a_step_of_the_load_is_answered_within_a_minute() -> None:
    town = Town(lambda now: 600.0 if 1000 <= now < 5000 else 50.0)
    town.run(2.5 * HOUR)
    first = next(now for now, _, _ in town.changes)
    assert 1000 < first <= 1003
    assert town.longest_wait(since=1060, until=5000) < 0.25, "the backlog is gone, and no new one comes"
    grown = [copies for now, copies, _ in town.changes if now < 5000]
    assert max(grown) >= 7
    assert town.wanted == 1


def test_going_down_is_one_at_a_time_and_a_minute_apart() -> None:
    town = Town(lambda now: 1000.0 if now < 1000 else 0.0)
    town.run(1.5 * HOUR)
    down = [(now, copies) for now, copies, _ in town.changes if now > 1000]
    assert [copies for _, copies in down] == list(range(down[0][1], 0, -1))
    assert all(later - earlier >= 60 for (earlier, _), (later, _) in itertools.pairwise(down))


def test_a_short_burst_costs_few_changes() -> None:
    """One that is over before a copy could be loaded."""
    town = Town(lambda now: 400.0 if 1000 <= now < 1003 else 40.0)
    town.run(HOUR)
    assert max(copies for _, copies, _ in town.changes) <= 2
    assert len(town.changes) <= 2 and town.wanted == 1


def test_a_days_curve_is_followed_without_swinging() -> None:
    def rows_at(now: float) -> float:
        return 500.0 - 450.0 * math.cos(2 * math.pi * now / (24 * HOUR))

    town = Town(rows_at)
    town.run(48 * HOUR)
    counts = [1, *(copies for _, copies, _ in town.changes)]
    turns = [
        i for i in range(1, len(counts) - 1) if (counts[i] - counts[i - 1]) * (counts[i + 1] - counts[i]) < 0
    ]
    assert len(turns) <= 4, "up, down, up, down"
    assert 12 <= max(counts) <= 16
    assert town.longest_wait(since=60.0) < 0.5
    assert sum(town.waits) / len(town.waits) < 0.01


def test_a_noisy_load_does_not_make_it_swing() -> None:
    town = Town(lambda now: 300.0 * (1 + 0.15 * math.sin(now * 1.7)) + 100.0 * (int(now) % 97 == 0))
    town.run(6 * HOUR)
    assert len([change for change in town.changes if change[0] > 600]) <= 2
    assert town.longest_wait(since=120.0) < 0.5


def test_what_is_unused_goes_to_none_and_comes_back_for_the_first_request() -> None:
    town = Town(lambda now: 20.0 if now < 600 or now > 2 * HOUR else 0.0, least=0)
    town.run(HOUR)
    assert town.wanted == 0 and 899 <= town.changes[-1][0] <= 902
    town.run(2 * HOUR + 60)
    assert town.wanted == 1 and town.waits[-1] == 0
    assert [copies for _, copies, _ in town.changes] == [0, 1]


def test_times_are_settings() -> None:
    scaler = Scaler(ScalingTimes(none_s=5.0))
    assert scaler.decide(M, 0, 1, Load(0, 0.0, 0.0, 0.0, 1, 1, 5.0), 0.0, 0.0).copies == 0
