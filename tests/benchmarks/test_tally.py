"""From answers to rates and percentiles, in closed and open loops."""

from __future__ import annotations

import pytest

from benchmarks.arrivals import NS, Arrivals
from benchmarks.tally import Closed, Open

MS = NS // 1000


def test_a_closed_loop_counts_neither_its_warm_up_nor_what_is_late() -> None:
    tally = Closed(0, seconds=10)
    for now in range(NS // 2, 13 * NS, NS // 2):
        assert tally.add(now, now - NS, True) == (now <= 10 * NS)
    facts = tally.facts()
    assert (facts["requests"], facts["answers"]) == (18, 25)
    assert facts["rate"] == pytest.approx(2.0)


@pytest.mark.parametrize("phase_ms", range(0, 1000, 90))
def test_answers_in_batches_of_eight_have_the_same_rate_whenever_the_first_batch_came(phase_ms: int) -> None:
    tally = Closed(0, seconds=10)
    for batch in range(12):
        for _ in range(8):
            tally.add(phase_ms * MS + batch * NS, 0, True)
    assert tally.facts()["rate"] == pytest.approx(8.0)


def test_without_an_answer_in_the_warm_up_the_clock_runs_from_the_beginning() -> None:
    tally = Closed(0, seconds=10)
    for now in (4, 8):
        tally.add(now * NS, 0, True)
    assert tally.facts()["rate"] == pytest.approx(2 / 8)


def test_errors_are_counted_even_in_the_warm_up() -> None:
    tally = Closed(0, seconds=10)
    tally.add(1, 0, False)
    tally.add(5 * NS, 0, True)
    assert tally.facts()["errors"] == 1


def stalled_server(tally: Open, arrivals: Arrivals, stall: tuple[int, int]) -> None:
    """One connection, answers take 1 ms, but nothing is answered during the stall."""
    now = 0
    while (due := arrivals.next_due()) is not None:
        now = max(now, due)
        since = arrivals.take(now)
        assert since is not None
        now += MS
        if stall[0] <= now < stall[1]:
            now = stall[1]
        tally.add(now, since, True)


def test_a_stall_is_charged_with_the_waiting_of_all_who_would_have_asked_meanwhile() -> None:
    tally = Open(0, seconds=10)
    stalled_server(tally, Arrivals(range(0, 10 * NS, 10 * MS)), stall=(4 * NS, 5 * NS))
    facts = tally.facts()
    assert facts["p50_ms"] == pytest.approx(1, rel=0.01)
    assert facts["p90_ms"] > 50  # a tenth of the time stood still: a tenth of the requests shows it
    assert facts["p99_ms"] > 900
    assert facts["max_ms"] == pytest.approx(1000, rel=0.02)


def test_an_open_loop_counts_by_when_a_request_was_meant_to_be_sent() -> None:
    tally = Open(0, seconds=10)
    tally.add(5 * NS, NS // 2, True)  # meant for the warm-up, answered late
    tally.add(15 * NS, 9 * NS, True)  # meant for the end, answered after it
    facts = tally.facts()
    assert (facts["requests"], facts["max_ms"]) == (1, 6000)


def test_what_is_never_answered_counts_with_the_time_that_was_waited_for_it() -> None:
    tally = Open(0, seconds=10)
    tally.add(2 * NS, 2 * NS - MS, True)
    tally.give_up(30 * NS, [5 * NS, 8 * NS])
    facts = tally.facts()
    assert (facts["unanswered"], facts["max_ms"], facts["requests"]) == (2, 25_000, 3)
