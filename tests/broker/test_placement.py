"""Placement: from what is to what should be."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway_broker.placement import Plan, Seat, fits, plan
from tests.broker.bench import spec

M = ("m", "1")


def seat(name: str, device: str = "cpu", **copies: str) -> Seat:
    return Seat(name.encode(), device, {(model, "1"): state for model, state in copies.items()})


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
