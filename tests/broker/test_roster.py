"""The roster: credit, leases, and who can take a batch."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from headway.messages import Join
from headway_broker.catalog import Key
from headway_broker.roster import Roster
from headway_broker.workers import CREDIT, Flight, Worker
from tests.broker.bench import copy, open_request

KEY = ("m", "1")


def roster_of(*names: str) -> tuple[Roster, list[Worker]]:
    """Workers with a ready copy of m."""
    roster = Roster()
    workers = [Worker(name.encode(), Join(name, "host", 1, "cpu", []), 0.0) for name in names]
    for worker in workers:
        roster.add(worker)
        roster.set_copies(worker, [copy()], 0.0)
    return roster, workers


def flight(id: int = 1, alone: bool = False, lease_s: float = 10.0) -> Flight:
    return Flight(id, KEY, [open_request()], lease_s, 10.0, alone)


def spare(roster: Roster, key: Key = KEY) -> Worker | None:
    return next((crew.first_spare for crew in roster.crews(key)), None)


def test_an_idle_worker_becomes_spare_and_then_busy_as_it_is_sent_batches() -> None:
    roster, [worker] = roster_of("w")
    assert (worker.state, roster.idle(KEY), spare(roster)) == ("idle", worker, None)
    roster.start(worker, flight(1), 0.0)
    assert (worker.state, roster.idle(KEY), spare(roster)) == ("spare", None, worker)
    roster.start(worker, flight(2), 0.0)
    assert (worker.state, roster.idle(KEY), spare(roster)) == ("busy", None, None)
    roster.finish(worker, 1, 1.0)
    assert (worker.state, spare(roster)) == ("spare", worker)
    roster.finish(worker, 2, 1.0)
    assert (worker.state, roster.idle(KEY)) == ("idle", worker)


def test_a_worker_with_a_lone_batch_takes_no_other() -> None:
    roster, [worker] = roster_of("w")
    roster.start(worker, flight(alone=True), 0.0)
    assert (worker.state, roster.idle(KEY), spare(roster)) == ("busy", None, None)


def test_a_worker_that_loads_takes_nothing_even_for_what_it_has_ready() -> None:
    roster, [worker] = roster_of("w")
    roster.set_copies(worker, [copy("other", "loading")], 1.0)
    assert (worker.state, roster.idle(KEY)) == ("loading", None)
    roster.set_copies(worker, [copy("other", "failed")], 2.0)
    assert (worker.state, roster.idle(KEY)) == ("idle", worker)


def test_a_worker_that_leaves_takes_nothing() -> None:
    roster, [worker] = roster_of("w")
    roster.leave(worker)
    assert (worker.state, roster.idle(KEY)) == ("leaving", None)


def test_only_a_ready_copy_makes_a_worker_fit_for_a_model() -> None:
    roster, [worker] = roster_of("w")
    roster.set_copies(worker, [copy("other", "failed")], 1.0)
    assert roster.idle(("other", "1")) is None
    assert roster.idle(("never heard of", "1")) is None
    roster.set_copies(worker, [copy(state="gone")], 1.0)
    assert roster.idle(KEY) is None
    assert KEY not in worker.copies


def test_workers_that_host_the_same_are_one_crew_and_others_are_not() -> None:
    roster, [first, second, third] = roster_of("a", "b", "c")
    roster.set_copies(third, [copy("other")], 1.0)
    assert roster.crew_of(first) is roster.crew_of(second) is not roster.crew_of(third)
    assert len(list(roster.crews(KEY))) == 2
    assert list(roster.crews(("other", "1"))) == [roster.crew_of(third)]
    roster.remove(third)
    assert list(roster.crews(("other", "1"))) == [], "a crew without workers is none"


def test_the_worker_that_has_been_idle_longest_is_next() -> None:
    roster, [first, second] = roster_of("a", "b")
    roster.start(first, flight(1), 0.0)
    assert roster.idle(KEY) is second
    roster.finish(first, 1, 1.0)
    assert roster.idle(KEY) is second, "it was idle before the first came back"


def test_a_removed_worker_is_on_no_list() -> None:
    roster, [worker, other] = roster_of("a", "b")
    roster.remove(worker)
    assert (roster.idle(KEY), len(roster), roster.get(b"a")) == (other, 1, None)
    assert roster.hosts(KEY) == [(other, other.copies[KEY])]


def test_a_batchs_lease_begins_when_it_is_the_first_of_its_worker() -> None:
    roster, [worker] = roster_of("w")
    roster.start(worker, flight(1, lease_s=10.0), 100.0)
    roster.start(worker, flight(2, lease_s=5.0), 101.0)
    assert [f.lease_until for f in worker.batches.values()] == [110.0, math.inf]
    roster.finish(worker, 1, 108.0)
    assert worker.first and worker.first.lease_until == 113.0
    roster.start(worker, flight(3), 109.0)
    assert worker.first.lease_until == 113.0, "a later batch does not prolong the first one's lease"


def test_finishing_a_batch_that_the_worker_never_had_changes_nothing() -> None:
    roster, [worker] = roster_of("w")
    roster.start(worker, flight(1), 0.0)
    assert roster.finish(worker, 99, 1.0) is None
    assert worker.state == "spare"


STEPS = st.tuples(
    st.sampled_from(("start", "lone", "finish", "copy", "leave", "remove")),
    st.integers(0, 2),
    st.sampled_from(("loading", "ready", "failed", "gone")),
    st.sampled_from(("m", "other")),
)


@given(st.lists(STEPS, max_size=30))
def test_the_lists_hold_exactly_those_who_belong_there(steps: list[tuple[str, int, str, str]]) -> None:
    roster, workers = roster_of("a", "b", "c")
    for number, (step, who, state, model) in enumerate(steps):
        worker = workers[who]
        if worker.identity not in roster.workers:
            continue
        if step in ("start", "lone") and worker.state == ("spare" if step == "start" else "idle"):
            roster.start(worker, flight(number, alone=step == "lone"), 0.0)
        elif step == "finish" and worker.first:
            roster.finish(worker, worker.first.id, 0.0)
        elif step == "copy":
            roster.set_copies(worker, [copy(model, state)], 0.0)
        elif step == "leave":
            roster.leave(worker)
        elif step == "remove":
            roster.remove(worker)
        for one in workers:
            assert len(one.batches) <= CREDIT
            for key in (KEY, ("other", "1")):
                here = one.identity in roster.workers and key in one.copies
                ready = here and one.copies[key].state == "ready"
                crews = list(roster.crews(key))
                assert any(one.identity in crew.idle for crew in crews) == (ready and one.state == "idle")
                assert any(one.identity in crew.spare for crew in crews) == (ready and one.state == "spare")
        for crew in {crew for key in (KEY, ("other", "1")) for crew in roster.crews(key)}:
            assert crew.size == sum(roster.crew_of(one) is crew for one in workers) > 0
