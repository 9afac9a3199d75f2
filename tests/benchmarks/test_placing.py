"""How long a plan takes: that the worlds are what they say. Their figures are for quiet machines."""

from __future__ import annotations

import pytest

from benchmarks import placing
from benchmarks.placing import known, obeyed, rows, unknown
from headway_broker.placement import plan


def test_in_every_world_all_is_placed_that_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    small = {
        "unknown": lambda: unknown(20, 10, 4),
        "known": lambda: known(4, 20, 24),
        "too small": lambda: known(1, 60, 2),
    }
    monkeypatch.setattr(placing, "WORLDS", small)
    found = {row[0]: row for row in rows()}
    assert found["unknown"][-2:] == ["40", "0"]
    assert found["known"][-1] == "0" and int(found["too small"][-1]) > 0
    assert all(float(ms) > 0 for row in found.values() for ms in row[1:5])


def test_after_a_plan_is_obeyed_there_is_nothing_to_do() -> None:
    wants, seats = known(4, 20, 24)
    assert plan(wants, obeyed(plan(wants, seats), seats)).orders == []
