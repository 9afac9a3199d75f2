"""What a request costs the broker: that the cases are what they say. Their figures are for quiet machines."""

from __future__ import annotations

import pytest

from benchmarks import broker_cost
from benchmarks.broker_cost import BATCH, SIZES, Load, Size, rows, run

SMALL = [Size(1, 1), Size(50, 1), Size(1, 25), Size(50, 25), Size(50, 25, mixed=True)]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker_cost, "OPEN", 150)


@pytest.mark.parametrize("size", SMALL)
@pytest.mark.parametrize("kind", ["idle", "busy"])
def test_a_round_is_one_full_batch_in_every_case(size: Size, kind: str) -> None:
    load = Load(size, kind == "busy")
    stats = load.scheduler.stats.values()
    for _ in range(60):
        before = sum(s.outcomes["ok"] for s in stats)
        load.round(kind == "busy")
        assert sum(s.outcomes["ok"] for s in stats) == before + BATCH
    assert all(set(s.outcomes) <= {"ok"} for s in stats)
    batches, riders = sum(sum(s.batch_rows.counts) for s in stats), sum(s.batch_rows.sum for s in stats)
    assert riders == batches * BATCH
    load.scheduler.check()
    if kind == "busy":
        assert len(list(load.scheduler.ledger)) == 150 * BATCH


def test_every_worker_hosts_as_many_models_and_mixed_ones_are_all_different() -> None:
    for size in SIZES:
        hosted = size.hosted()
        assert len({len(set(names)) for names in hosted}) == 1
        assert {name for names in hosted for name in names} == {f"m{m}" for m in range(size.models)}
        if size.mixed:
            assert len(set(map(frozenset, hosted))) == size.workers


def test_each_case_is_compared_with_the_smallest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker_cost, "SIZES", tuple(SMALL[:2]))
    found = list(rows(run(1, requests=800)))
    assert [row[:2] for row in found][0::2] == [["idle", "1 worker, 1 model"], ["busy", "1 worker, 1 model"]]
    assert found[0][3] == found[0][5] == "1.00"
    assert all(float(row[2]) > 0 for row in found)
