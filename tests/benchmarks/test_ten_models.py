"""Ten models' figures as one, and the tables made from them."""

from __future__ import annotations

import pytest

from benchmarks.tally import MS, Closed, Open, Tally
from benchmarks.ten_models import (
    ARRANGEMENTS,
    EXAMPLES,
    LOAD_KEYS,
    SERVER_KEYS,
    TEN,
    WAYS,
    Found,
    merged,
    show,
)


def test_the_models_differ_in_what_they_answer() -> None:
    assert len({example.outputs for example in EXAMPLES}) == len(EXAMPLES) == 10
    assert len({example.model for example in EXAMPLES}) == 10


def test_what_is_merged_is_added_up_and_the_slowest_is_named() -> None:
    tallies: list[Tally] = [Closed(0, 10.0), Closed(0, 10.0)]
    for tally, took in zip(tallies, (1, 100), strict=True):
        for second in range(2, 10):
            tally.add(second * 1000 * MS, second * 1000 * MS - took * MS, ok=second > 2)
    facts = merged(tallies)
    assert (facts["answers"], facts["errors"]) == (16, 2)
    assert facts["rate"] == pytest.approx(2 * 8 / 9)
    assert facts["p50_ms"] == pytest.approx(1, rel=0.01)
    assert facts["slowest_p99_ms"] == pytest.approx(100, rel=0.01)


def test_what_was_never_answered_is_an_error() -> None:
    tally = Open(0, 10.0)
    tally.add(3000 * MS, 2000 * MS, ok=True)
    tally.give_up(9000 * MS, [5000 * MS])
    assert merged([tally])["errors"] == 1


def test_the_tables_say_what_failed_and_what_ten_cost() -> None:
    load = dict.fromkeys(LOAD_KEYS, 2.0) | {"errors": 0}
    server = dict.fromkeys(SERVER_KEYS, 4.0)
    found: Found = {
        each.title: [{**{way: dict(load) for way in WAYS}, "server": dict(server)}] for each in ARRANGEMENTS
    }
    found[TEN.title][0]["closed"] |= {"errors": 3, "rate": 1.0}
    shown = show(found)
    assert "| closed: ten workers | 1.00 (3 failed) |" in shown
    assert "| closed | 0.50 | 1.00 |" in shown
