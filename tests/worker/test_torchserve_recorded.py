"""headway_worker.torchserve.recorded: what waits for a reply stays within bounds."""

from __future__ import annotations

import logging

import pytest

from headway.torchserve.metrics import Record, packed
from headway_worker.torchserve.recorded import RECORDS_MAX, REPLY_BYTES_MAX, Recorded, together


def record(type: str = "gauge", name: str = "n", value: float = 1.0, *more: str, request: str = "") -> Record:
    return Record(type, name, "ms", value, more, request)


def test_what_was_noted_is_taken_once_and_in_order() -> None:
    recorded = Recorded("m")
    noted = [record(value=i, request="r") for i in range(5)]
    for one in noted:
        recorded.note(one)
    assert recorded.take() == noted
    assert recorded.take() == []


def test_counters_are_summed_gauges_keep_the_last_and_a_histogram_keeps_all() -> None:
    found = together(
        [
            record("counter", "c", 1, request="a"),
            record("gauge", "g", 1, request="a"),
            record("histogram", "h", 1),
            record("counter", "c", 2, request="b"),
            record("gauge", "g", 2, request="b"),
            record("histogram", "h", 2),
            record("counter", "c", 5, "other", "series"),
        ]
    )
    assert found == [
        record("counter", "c", 3),
        record("gauge", "g", 2, request="b"),
        record("histogram", "h", 1),
        record("histogram", "h", 2),
        record("counter", "c", 5, "other", "series"),
    ]


def test_no_count_is_lost_while_nobody_takes_them() -> None:
    recorded = Recorded("m")
    for i in range(10 * RECORDS_MAX):
        recorded.note(record("counter", "c", 1))
        recorded.note(record("gauge", "g", i))
    taken = recorded.take()
    assert len(taken) <= RECORDS_MAX
    assert sum(one.value for one in taken if one.name == "c") == 10 * RECORDS_MAX
    assert [one.value for one in taken if one.name == "g"][-1] == 10 * RECORDS_MAX - 1


def test_what_is_too_much_is_lost_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    recorded = Recorded("m")
    with caplog.at_level(logging.WARNING):
        for i in range(3 * RECORDS_MAX):
            recorded.note(record("histogram", "h", i))
    assert [r.args[0] for r in caplog.records] == ["m"]
    values = [one.value for one in recorded.take()]
    assert len(values) <= RECORDS_MAX
    assert values == sorted(values), "the newest are kept, in order"
    assert values[-1] == 3 * RECORDS_MAX - 1


def test_a_reply_carries_so_many_bytes_and_the_next_one_the_rest() -> None:
    recorded = Recorded("m")
    noted = [record("gauge", f"{i}" * 200, i, "d", "v" * 9000, request="r" * 9000) for i in range(100)]
    for one in noted:
        recorded.note(one)
    first = recorded.take()
    rest = [one for _ in range(100) for one in recorded.take()]
    assert REPLY_BYTES_MAX / 2 < len(str(packed(first))) < 1.5 * REPLY_BYTES_MAX
    assert [one.value for one in first + rest] == list(range(100))
    assert max(len(text) for one in first for text in (one.name, *one.dimensions)) <= 256
