"""Placement: from what is to what should be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headway.models import ModelSpec
from headway_broker.placement import Plan, Seat, Want, fits
from headway_broker.placement import plan as plan_for
from tests.broker.bench import spec

M = ("m", "1")
GIB = 1 << 30


def seat(name: str, device: str = "cpu", **copies: str) -> Seat:
    return Seat(name.encode(), name, "h", device, device, {(m, "1"): state for m, state in copies.items()})


def plan(specs: list[ModelSpec], seats: list[Seat]) -> Plan:
    """Where nobody knows what anything needs, and as many copies are wanted as the specs say."""
    return plan_for([Want(spec, spec.copies) for spec in specs], seats)


def orders(plan: Plan) -> list[tuple[str, str, str]]:
    return [(o.worker.decode(), "load" if o.spec else "unload", o.key[0]) for o in plan.orders]


@pytest.mark.parametrize(
    ("wanted", "device", "fit"),
    [
        ("auto", "cpu", True),
        ("auto", "cuda:1", True),
        ("cpu", "cpu", True),
        ("cpu", "cuda:0", True),
        ("cuda", "cuda:1", True),
        ("cuda", "cpu", False),
        ("cuda:1", "cuda:1", True),
        ("cuda:1", "cuda:0", False),
        ("cuda:1", "cpu", False),
    ],
)
def test_a_model_goes_where_its_device_is(wanted: str, device: str, fit: bool) -> None:
    assert fits(spec(device=wanted), device) is fit
    made = plan([spec(device=wanted)], [seat("w", device)])
    assert bool(made.orders) is fit
    if not fit:
        assert made.short == {M: f"no worker has a device {wanted}"}


def test_when_all_is_well_there_is_nothing_to_do() -> None:
    assert plan([spec(copies=2)], [seat("a", m="ready"), seat("b", m="loading")]) == Plan([], {})


def test_every_version_gets_its_copies_each_in_another_worker() -> None:
    made = plan([spec(copies=2)], [seat("a"), seat("b"), seat("c")])
    assert orders(made) == [("a", "load", "m"), ("b", "load", "m")]


def test_the_worker_with_the_fewest_copies_is_chosen() -> None:
    made = plan([spec("x"), spec("y"), spec("z")], [seat("a", x="ready"), seat("b")])
    assert orders(made) == [("b", "load", "y"), ("a", "load", "z")]


def test_too_few_workers_are_said_to_be_too_few() -> None:
    made = plan([spec(copies=3)], [seat("a", m="failed"), seat("b")])
    assert orders(made) == [("b", "load", "m")]
    assert made.short == {M: "3 copies wanted, 2 workers suited, 1 failed to load it"}
    assert plan([spec()], []).short == {M: "no worker has joined"}


def test_a_copy_that_failed_is_placed_elsewhere_and_not_tried_there_again() -> None:
    made = plan([spec()], [seat("a", m="failed"), seat("b")])
    assert orders(made) == [("b", "load", "m")]
    assert orders(plan([spec()], [seat("a", m="failed")])) == []


def test_surplus_copies_are_unloaded() -> None:
    made = plan([spec(copies=1)], [seat("a", m="ready"), seat("b", m="ready"), seat("c", m="loading")])
    assert orders(made) == [("b", "unload", "m"), ("c", "unload", "m")]


def test_of_surplus_copies_those_that_serve_are_kept() -> None:
    made = plan([spec(copies=1)], [seat("a", m="loading"), seat("b", m="ready")])
    assert orders(made) == [("a", "unload", "m")]


def test_copies_of_what_nobody_wants_are_unloaded_whatever_their_state() -> None:
    made = plan([spec()], [seat("a", m="ready", old="ready", older="failed")])
    assert sorted(orders(made)) == [("a", "unload", "old"), ("a", "unload", "older")]


def test_no_copies_may_be_wanted() -> None:
    assert orders(plan([spec(copies=0)], [seat("a"), seat("b", m="ready")])) == [("b", "unload", "m")]


def gpu(name: str, host: str, id: str, room: tuple[int, int] = (0, 0), **copies: str) -> Seat:
    """`room`: the worker's memory and its device's."""
    had = {(model, "1"): state for model, state in copies.items()}
    return Seat(name.encode(), name, host, "cuda:0", id, had, *room)


def want(name: str, copies: int = 1, need: int = 0, **keys: Any) -> Want:
    return Want(spec(name, **keys), copies, need)


def placed(made: Plan) -> dict[str, list[str]]:
    """Which models are to be loaded in which worker."""
    where: dict[str, list[str]] = {}
    for order in made.orders:
        if order.spec:
            where.setdefault(order.worker.decode(), []).append(order.key[0])
    return where


# ---- memory ----


def test_a_worker_gets_no_more_than_its_memory_holds() -> None:
    made = plan_for([want("a", need=6), want("b", need=5)], [gpu("w", "h", "0", (10, 0))])
    assert placed(made) == {"w": ["a"]}
    assert made.lacking == {("b", "1"): 1}


def test_the_workers_of_one_device_share_its_memory() -> None:
    seats = [gpu("a", "h", "0", (10, 12)), gpu("b", "h", "0", (10, 12))]
    assert placed(plan_for([want("x", need=8), want("y", need=5)], seats)) == {"a": ["x"]}
    assert placed(plan_for([want("x", need=8), want("y", need=4)], seats)) == {"a": ["x"], "b": ["y"]}
    elsewhere = [seats[0], gpu("b", "h2", "0", (10, 12))]
    assert placed(plan_for([want("x", need=8), want("y", need=5)], elsewhere)) == {"a": ["x"], "b": ["y"]}


def test_what_a_failed_copy_would_have_needed_is_free() -> None:
    seats = [gpu("a", "h", "0", (10, 10), x="failed")]
    assert placed(plan_for([want("x", need=10), want("y", need=10)], seats)) == {"a": ["y"]}


def test_one_worker_loads_what_another_on_its_device_still_has_no_room_for() -> None:
    seats = [gpu("a", "h", "0", (10, 10), old="ready"), gpu("b", "h", "0", (10, 10))]
    held = {("old", "1"): 8}
    made = plan_for([want("new", need=8)], seats, held)
    assert orders(made) == [("a", "unload", "old"), ("a", "load", "new")], "a worker obeys in this order"
    made = plan_for(
        [want("new", need=8)], [seats[0]._replace(copies={("old", "1"): "unloading"}), seats[1]], held
    )
    assert made.orders == [] and made.lacking == {("new", "1"): 1}, "until it is gone"


def test_the_largest_is_placed_first() -> None:
    seats = [gpu("a", "h", "0", (10, 10)), gpu("b", "h", "1", (10, 10))]
    made = plan_for([want("x", need=3), want("y", need=3), want("z", need=10)], seats)
    assert sorted(placed(made).values()) == [["x", "y"], ["z"]]


def test_a_version_with_no_copy_comes_before_the_second_one_of_a_larger() -> None:
    seats = [gpu("a", "h", "0", (10, 10)), gpu("b", "h", "1", (10, 10))]
    made = plan_for([want("large", 2, need=10), want("small", need=1)], seats)
    assert sorted(placed(made).values()) == [["large"], ["small"]]
    assert made.lacking == {("large", "1"): 1}


# ---- spread ----


def test_a_second_copy_is_on_another_host_or_at_least_on_another_device() -> None:
    seats = [gpu("a", "h", "0"), gpu("b", "h", "0"), gpu("c", "h", "1"), gpu("d", "g", "0")]
    assert set(placed(plan_for([want("m", 2)], seats))) == {"a", "d"}
    assert set(placed(plan_for([want("m", 3)], seats))) == {"a", "d", "c"}
    assert set(placed(plan_for([want("m", 4)], seats))) == {"a", "b", "c", "d"}


def test_copies_are_spread_before_they_are_packed() -> None:
    seats = [
        gpu("a", "h", "0", (40, 40), x="ready"),
        gpu("b", "h", "1", (40, 40)),
        gpu("c", "g", "0", (40, 40)),
    ]
    assert set(placed(plan_for([want("x", need=1), want("m", 2, need=1)], seats))) == {"a", "c"}


def test_surplus_goes_from_where_there_is_most_of_it() -> None:
    seats = [gpu("a", "h", "0", m="ready"), gpu("b", "g", "0", m="ready"), gpu("c", "g", "0", m="ready")]
    assert orders(plan_for([want("m", 2)], seats)) == [("c", "unload", "m")]
    seats = [gpu("a", "h", "0", m="ready"), gpu("b", "h", "1", m="ready"), gpu("c", "g", "0", m="ready")]
    assert orders(plan_for([want("m", 2)], seats)) == [("b", "unload", "m")]
    seats = [gpu("a", "h", "0", m="ready", x="ready"), gpu("b", "h", "1", m="ready")]
    assert orders(plan_for([want("m"), want("x")], seats)) == [("a", "unload", "m")]


# ---- packing ----


def test_small_models_share_a_few_devices() -> None:
    seats = [gpu(f"w{i}", f"h{i // 2}", f"{i}", (100, 100)) for i in range(10)]
    made = plan_for([want(f"m{i}", need=1) for i in range(10)], seats)
    assert sorted(len(models) for models in placed(made).values()) == [2, 4, 4]


def test_small_models_do_not_pile_up_in_one_worker() -> None:
    seats = [gpu("a", "h", "0", (100, 100)), gpu("b", "h", "1", (100, 100))]
    made = plan_for([want(f"m{i}", need=1) for i in range(10)], seats)
    assert sorted(len(models) for models in placed(made).values()) == [4, 6]


def test_large_models_do_not_share_while_a_device_is_free() -> None:
    seats = [gpu("a", "h", "0", (100, 100)), gpu("b", "h", "1", (100, 100))]
    made = plan_for([want(f"m{i}", need=30) for i in range(2)], seats)
    assert sorted(len(models) for models in placed(made).values()) == [1, 1]


def test_a_warm_worker_is_preferred_and_of_warm_ones_the_fuller() -> None:
    cold, warm = gpu("cold", "h", "0", (20, 20)), gpu("warm", "h", "1", (40, 40), x="ready")
    wants = [want("x", need=1), want("m", need=1)]
    assert placed(plan_for(wants, [cold, warm])) == {"warm": ["m"]}
    fuller = gpu("fuller", "h", "2", (20, 20), x="ready")
    wants[0] = want("x", 2, need=1)
    assert placed(plan_for(wants, [cold, warm, fuller])) == {"fuller": ["m"]}


def test_what_needs_nobody_knows_how_much_goes_where_there_is_most_room() -> None:
    seats = [gpu("a", "h", "0", (10, 10)), gpu("b", "h", "1", (20, 20))]
    assert placed(plan_for([want("m")], seats)) == {"b": ["m"]}


def test_equal_workers_are_taken_from_one_host_and_device_after_another() -> None:
    seats = [gpu(f"{h}{d}{w}", h, f"{d}") for h in "ab" for d in range(2) for w in range(2)]
    made = plan_for([want(f"m{i}") for i in range(4)], seats)
    assert set(placed(made)) == {"a00", "b00", "a10", "b10"}


# ---- who leaves ----


def test_what_a_leaving_worker_has_is_loaded_elsewhere_and_not_unloaded() -> None:
    leaving = seat("a", m="ready", old="ready")._replace(leaving=True)
    assert orders(plan([spec()], [leaving, seat("b")])) == [("b", "load", "m")]
    assert orders(plan([spec()], [leaving, seat("b", m="loading")])) == []
    assert plan([spec()], [leaving]).short == {M: "every worker is leaving"}


def test_a_leaving_worker_holds_its_memory() -> None:
    leaving = gpu("a", "h", "0", (10, 10), m="ready")._replace(leaving=True)
    assert plan_for([want("m", need=6)], [leaving, gpu("b", "h", "0", (10, 10))]).orders == []


# ---- words ----


@pytest.mark.parametrize(
    ("wanted", "seats", "why"),
    [
        (want("m", need=9 * GIB), [gpu("a", "h", "0", (10 * GIB, 0), x="ready")],
         "needs 9.0 GiB, the most that any suited worker has free is 6.2 GiB"),
        (want("m", need=90 * GIB), [gpu("a", "h", "0", (0, 40 * GIB)), seat("b")],
         "needs 90.0 GiB, the largest suited worker has 40.0 GiB"),
        (want("m", 4), [seat("a"), seat("b", m="ready")],
         "4 copies wanted, 2 workers suited (one copy each)"),
        (want("m", 3), [seat("a", m="failed"), seat("b", m="failed")],
         "3 copies wanted, 2 workers suited, 2 failed to load it"),
    ],
)  # fmt: skip
def test_it_says_why_there_are_too_few(wanted: Want, seats: list[Seat], why: str) -> None:
    if "GiB" in why:
        wanted = wanted._replace(spec=spec("m", device="cuda"))
    made = plan_for([wanted, want("x", need=int(3.8 * GIB))], seats)
    assert made.short[M] == why


def test_another_worker_would_help_what_is_short_of_seats_but_not_what_failed() -> None:
    assert plan([spec(copies=3)], [seat("a")]).lacking == {M: 2}
    assert plan([spec(copies=3)], [seat("a", m="failed")]).lacking == {}
    assert plan([spec(device="cuda")], []).lacking == {M: 1}


def test_what_is_wanted_no_more_is_forgotten_where_it_failed() -> None:
    assert orders(plan([spec(copies=0)], [seat("a", m="failed")])) == [("a", "unload", "m")]
    assert orders(plan([spec(copies=0)], [seat("a", m="unloading")])) == []


# ---- properties ----

SPECS = st.lists(
    st.builds(
        spec,
        st.sampled_from("abcd"),
        copies=st.integers(0, 3),
        device=st.sampled_from(("auto", "cpu", "cuda", "cuda:1")),
    ),
    unique_by=lambda s: s.name,
)
COPIES = st.dictionaries(st.sampled_from("abcde"), st.sampled_from(("loading", "ready", "failed")))
SEATS = st.lists(st.tuples(st.sampled_from(("cpu", "cuda:0", "cuda:1")), COPIES), max_size=5)


@given(SPECS, SEATS)
def test_obeying_a_plan_leads_to_where_there_is_nothing_to_do(specs: list, rows: list) -> None:
    seats = [seat(f"w{i}", device, **copies) for i, (device, copies) in enumerate(rows)]
    made = plan(specs, seats)
    after = {s.worker: dict(s.copies) for s in seats}
    for order in made.orders:
        if order.spec is None:
            del after[order.worker][order.key]
        else:
            assert order.key not in after[order.worker], "one copy of a version in a worker"
            after[order.worker][order.key] = "ready"
    assert not plan(specs, [s._replace(copies=after[s.worker]) for s in seats]).orders
    for one in specs:
        live = sum(copies.get(one.key) in ("loading", "ready") for copies in after.values())
        assert live == one.copies or (live < one.copies and one.key in made.short)


STATES = st.sampled_from(("loading", "ready", "failed", "unloading"))
WANTS = st.lists(
    st.builds(want, st.sampled_from("abcdef"), st.integers(0, 3), st.integers(0, 9)),
    unique_by=lambda w: w.spec.name,
)
GPUS = st.lists(
    st.builds(
        lambda host, id, room, copies, leaving: (host, id, room, copies, leaving),
        st.sampled_from("gh"),
        st.sampled_from("01"),
        st.integers(0, 20),
        st.dictionaries(st.sampled_from("abcdefg"), STATES, max_size=3),
        st.sampled_from((False, False, False, True)),
    ),
    max_size=8,
)


def crowd(rows: list, device_memory: int) -> list[Seat]:
    return [
        gpu(f"w{i}", host, id, (room, device_memory), **copies)._replace(leaving=leaving)
        for i, (host, id, room, copies, leaving) in enumerate(rows)
    ]


def held_by(copies: Mapping[Any, str], needs: Mapping[Any, int]) -> int:
    return sum(needs.get(key, 0) for key, state in copies.items() if state != "failed")


@settings(max_examples=300)
@given(WANTS, GPUS, st.integers(0, 30))
def test_no_plan_brings_a_worker_or_a_device_over_its_memory(wants: list, rows: list, memory: int) -> None:
    seats = crowd(rows, memory)
    needs = {w.spec.key: w.need_bytes for w in wants} | {("g", "1"): 7}
    devices: dict[tuple[str, str], list[tuple[int, int]]] = {}
    made = plan_for(wants, seats, {("g", "1"): 7})
    for one in seats:
        copies, before = dict(one.copies), held_by(one.copies, needs)
        peak = before
        for order in (o for o in made.orders if o.worker == one.worker):
            assert not one.leaving, "one that leaves is left alone"
            if order.spec is None:
                assert copies.pop(order.key) != "unloading"
            else:
                assert order.key not in copies, "one copy of a version in a worker"
                copies[order.key] = "loading"
                peak = max(peak, held_by(copies, needs))
                assert not one.memory_bytes or held_by(copies, needs) <= one.memory_bytes
        devices.setdefault((one.host, one.device_id), []).append((before, peak))
    for where, workers in devices.items():
        before, peak = (sum(column) for column in zip(*workers, strict=True))
        assert not memory or peak <= max(memory, before), f"{where}: workers load and unload in any order"


@settings(max_examples=300)
@given(WANTS, GPUS, st.integers(0, 30))
def test_plans_come_to_rest(wants: list, rows: list, memory: int) -> None:
    """Where memory was freed the next plan may use it; what was loaded stays."""
    seats = [one for one in crowd(rows, memory) if not one.leaving]
    for turn in range(3):
        made = plan_for(wants, seats)
        assert not turn or all(order.spec for order in made.orders), "no second thoughts"
        after = {one.worker: {k: s for k, s in one.copies.items() if s != "unloading"} for one in seats}
        for order in made.orders:
            if order.spec is None:
                del after[order.worker][order.key]
            else:
                after[order.worker][order.key] = "ready"
        seats = [one._replace(copies=after[one.worker]) for one in seats]
    made = plan_for(wants, seats)
    assert not made.orders
    for one in wants:
        ready = sum(seat.copies.get(one.spec.key) in ("loading", "ready") for seat in seats)
        assert ready == one.copies or (ready < one.copies and made.short[one.spec.key])


@given(WANTS, GPUS, st.integers(0, 30))
def test_a_copy_that_serves_is_unloaded_only_when_enough_others_serve(
    wants: list, rows: list, memory: int
) -> None:
    seats = crowd(rows, memory)
    copies = {w.spec.key: w.copies for w in wants}
    made = plan_for(wants, seats)
    gone = {(o.worker, o.key) for o in made.orders if o.spec is None}
    for key, count in copies.items():
        ready = {(s.worker, key) for s in seats if not s.leaving and s.copies.get(key) == "ready"}
        assert not ready & gone or len(ready - gone) >= count


# ---- so many copies in a worker ----


def small(name: str, **copies: str) -> Seat:
    """A worker that takes one copy."""
    return seat(name, **copies)._replace(copies_max=1)


def test_a_full_worker_is_no_place_and_a_free_one_is() -> None:
    made = plan([spec("x"), spec("y"), spec("z")], [small("a", x="ready"), small("b")])
    assert orders(made) == [("b", "load", "y")]
    assert made.short == {("z", "1"): "full (copies_max): every suited worker"}
    assert made.lacking == {("z", "1"): 1}


def test_a_worker_takes_as_many_copies_as_it_says_wherever_there_is_room() -> None:
    seats = [seat("a", x="ready")._replace(copies_max=2), seat("b")._replace(copies_max=1)]
    made = plan([spec(name) for name in "xyz"], seats)
    assert orders(made) == [("b", "load", "y"), ("a", "load", "z")] and made.short == {}
    short = "3 copies wanted, 2 workers suited (one copy each), full (copies_max): 1 suited worker"
    assert plan([spec("x", copies=3)], seats).short == {("x", "1"): short}


def test_a_copy_that_failed_or_goes_does_not_fill_its_worker() -> None:
    assert orders(plan([spec("x"), spec("y")], [small("a", x="failed")])) == [("a", "load", "y")]
    assert orders(plan([spec("y")], [small("a", x="unloading")])) == [("a", "load", "y")]
    assert orders(plan([spec("y")], [small("a", x="ready")])) == [("a", "unload", "x"), ("a", "load", "y")]


def test_a_worker_that_has_more_copies_than_it_takes_keeps_them() -> None:
    made = plan([spec("x"), spec("y"), spec("z")], [small("a", x="ready", y="ready")])
    assert made.orders == [] and made.lacking == {("z", "1"): 1}


def test_a_full_worker_is_told_apart_from_one_without_memory() -> None:
    seats = [small("a")._replace(memory_bytes=4 * GIB), small("b", x="ready")._replace(memory_bytes=8 * GIB)]
    made = plan_for([Want(spec("x"), 1, GIB), Want(spec("y"), 1, 6 * GIB)], seats)
    assert made.orders == [] and made.lacking == {("y", "1"): 1}
    assert "the most that any suited worker has free is 4.0 GiB" in made.short["y", "1"]
    assert "full (copies_max): 1 suited worker" in made.short["y", "1"]
    made = plan_for([Want(spec("x"), 1, GIB), Want(spec("y"), 2, GIB), Want(spec("z"), 1, GIB)], seats)
    assert orders(made) == [("a", "load", "y")]
    assert made.short["z", "1"] == "full (copies_max): every suited worker"


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), min_size=1, max_size=6),
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 2)), max_size=5),
)
@settings(max_examples=200, deadline=None)
def test_no_worker_gets_more_copies_than_it_takes(
    workers: list[tuple[int, int]], models: list[tuple[int, int]]
) -> None:
    seats = [
        seat(f"w{i}")._replace(copies_max=most, memory_bytes=memory * GIB)
        for i, (most, memory) in enumerate(workers)
    ]
    wants = [Want(spec(f"m{i}", copies=n), n, need * GIB // 2) for i, (n, need) in enumerate(models)]
    made = plan_for(wants, seats)
    for each in seats:
        got = sum(order.worker == each.worker for order in made.orders)
        assert not each.copies_max or got <= each.copies_max
    short = made.lacking
    assert sum(want.copies for want in wants) == len(made.orders) + sum(short.values())
    for want in wants if not any(memory for _, memory in workers) else ():
        for each in seats if want.spec.key in short else ():
            mine = [order.key for order in made.orders if order.worker == each.worker]
            assert want.spec.key in mine or (each.copies_max and len(mine) == each.copies_max), "room is left"
