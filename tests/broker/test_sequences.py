"""Which sequences a model has: opened, ended, expired, lost."""

from __future__ import annotations

from typing import Any

import pytest

from headway.errors import NoSequence, QueueFull
from headway.steps import Step
from headway_broker.sequences import LOST_MAX, Sequence, Sequences
from tests.broker.bench import open_request, spec


def sequences(**keys: Any) -> Sequences:
    return Sequences(spec(**{"sequences_max": 4, "sequence_idle_ms": 1000.0, **keys}))


def opened(found: Sequences, name: str = "a", now: float = 0.0) -> Sequence:
    sequence, _ = found.of(Step(name, starts=True), now)
    return sequence


def test_a_sequence_is_opened_by_its_start_and_found_by_its_name() -> None:
    found = sequences()
    first = opened(found)
    assert found.of(Step("a"), 1.0)[0] is first


def test_a_sequence_that_was_not_started_is_refused() -> None:
    with pytest.raises(NoSequence, match="'a' of 'm': it was not started, has ended, or expired"):
        sequences().of(Step("a"), 0.0)


def test_any_request_opens_one_where_the_model_says_so() -> None:
    assert sequences(sequence_opens="any").of(Step("a"), 0.0)[0].name == "a"


def test_more_sequences_than_the_model_may_have_are_refused() -> None:
    found = sequences(sequences_max=2)
    opened(found, "a"), opened(found, "b")
    with pytest.raises(QueueFull, match="2 sequences of 'm' are open"):
        opened(found, "c")


def test_one_that_expired_makes_room_before_anybody_looked() -> None:
    found = sequences(sequences_max=1)
    first = opened(found, "a")
    found.rest(first, 0.0)
    sequence, closed = found.of(Step("b", starts=True), 1.0)
    assert (sequence.name, closed, list(found.open)) == ("b", [first], ["b"])


def test_more_requests_than_may_wait_are_refused_and_the_one_that_runs_does_not_count() -> None:
    found = sequences(sequence_queue_max=1)
    first = opened(found)
    first.running = open_request(1)
    found.of(Step("a"), 0.0)[0].waiting.append(open_request(2))
    with pytest.raises(QueueFull, match="'a' has its 1 waiting requests"):
        found.of(Step("a"), 0.0)


def test_nothing_follows_the_end_but_a_new_start() -> None:
    found = sequences(sequence_queue_max=9)
    first = opened(found)
    first.ending = open_request(1)
    with pytest.raises(NoSequence, match="it has been ended"):
        found.of(Step("a"), 0.0)
    assert found.of(Step("a", starts=True), 0.0)[0] is first
    found.of(Step("a"), 0.0)


def test_an_idle_sequence_expires_and_one_that_is_busy_does_not() -> None:
    found = sequences()
    idle, busy = opened(found, "idle"), opened(found, "busy")
    assert not found.rest(idle, 0.5) and not found.rest(busy, 0.0)
    busy.running = open_request(1)
    assert not found.due(1.4)
    assert found.due(1.5) == [idle]


def test_what_comes_puts_the_end_off() -> None:
    found = sequences()
    first = opened(found)
    found.rest(first, 0.0)
    found.rest(first, 0.9)
    assert not found.due(1.0)
    assert found.due(1.9) == [first]


def test_a_sequence_has_its_time_and_then_takes_nothing_however_busy_it_is() -> None:
    found = sequences(sequence_timeout_ms=3000.0)
    first = opened(found)
    first.running = open_request(1)
    found.of(Step("a"), 2.9)
    with pytest.raises(NoSequence, match="its time is over"):
        found.of(Step("a"), 3.0)
    assert found.rest(first, 3.1), "it is over when nothing of it is left"


def test_its_time_counts_anew_from_a_new_start() -> None:
    found = sequences(sequence_timeout_ms=3000.0)
    opened(found), opened(found, now=2.0)
    found.of(Step("a"), 4.9)


@pytest.mark.parametrize("opens", ["start", "any"])
def test_a_lost_sequence_takes_nothing_but_a_start_until_it_is_forgotten(opens: str) -> None:
    found = sequences(sequence_opens=opens)
    found.lose(opened(found), "its worker was lost", 5.0)
    with pytest.raises(NoSequence, match="'a' of 'm': its worker was lost"):
        found.of(Step("a"), 5.9)
    found.due(6.0)
    if opens == "any":
        found.of(Step("a"), 6.0)
    found.lose(opened(found, now=7.0), "again", 7.0)
    assert opened(found, now=7.1).name == "a"
    found.of(Step("a"), 7.2)


def test_the_names_of_the_lost_do_not_fill_the_memory() -> None:
    found = sequences(sequences_max=LOST_MAX + 10)
    for i in range(LOST_MAX + 10):
        found.lose(opened(found, f"s{i}"), "lost", 0.0)
    assert len(found._lost) == LOST_MAX and "s9" not in found._lost


def test_a_request_by_itself_is_not_remembered() -> None:
    found = sequences()
    own = Sequence("", 0.0, 1e9)
    assert found.rest(own, 0.0), "it is over with its one request"
    found.lose(own, "lost", 0.0)
    assert not found._lost


def test_a_broker_that_meets_an_older_copy_takes_only_starts_for_a_while() -> None:
    found = sequences(sequence_opens="any")
    found.orphan(10.0)
    with pytest.raises(NoSequence, match="the broker was started anew"):
        found.of(Step("a"), 10.9)
    opened(found, "b", 10.9)
    assert found.of(Step("a"), 11.0)[0].name == "a"


def test_one_that_was_opened_without_a_start_may_be_an_older_one() -> None:
    found = sequences(sequence_opens="any")
    assumed, _ = found.of(Step("a"), 9.0)
    opened(found, "b", 9.0)
    again, _ = found.of(Step("c"), 9.0)
    opened(found, "c", 9.5)
    assert found.orphan(10.0) == [assumed] and again.started


def test_a_start_that_was_not_run_lets_nothing_follow_but_another() -> None:
    found = sequences(sequence_opens="any")
    first = opened(found)
    first.unstarted = "its start was refused"
    with pytest.raises(NoSequence, match="its start was refused"):
        found.of(Step("a"), 1.0)
    opened(found)
    found.of(Step("a"), 1.0)
    found.remember("b", "its start was refused", 1.0)
    with pytest.raises(NoSequence, match="its start was refused"):
        found.of(Step("b"), 1.5)
