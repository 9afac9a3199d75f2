"""What an operator does, under constant load over HTTP and through the direct client: no request fails.

`python -m benchmarks.operated` does the same for as long as one likes. `-s` shows the counts.
"""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.operated import Operator, management_of, started
from benchmarks.steady import CODE, KEYS, MODEL, TOML, Load, Phase, table
from headway import Client
from tests.system.stack import Up, add_model, until

pytestmark = [pytest.mark.system, pytest.mark.timeout(240)]

MOST, WORKERS = 3, 2  # how many there are at most, and how many are killed and restarted in the end
RATE = 40.0  # a second by each of three doors
ORDERED = {"min": 2, "max": 2, "traffic": 1.0, "wanted_traffic": 1.0, "ready": 2}


def leftovers(up: Up) -> list[str]:
    """What a server that has ended should not have left. Shared memory is in its run directory."""
    return [str(pid) for pid in up.pids()] + [str(up.run_dir)] * up.run_dir.exists()


def test_an_operator_at_work_costs_no_request(tmp_path: Path) -> None:
    add_model(tmp_path / "models", MODEL, TOML, CODE % 1)
    up = started(tmp_path, MOST)
    try:
        operator, load = under_load(up)
        assert load.failures == []
        check_split(operator.split)
        assert ordered(up) == ORDERED
        assert up.end(signal.SIGINT) == 0
        assert leftovers(up) == []
    finally:
        up.close()
    up = started(tmp_path, MOST)
    try:
        check_orders_after_a_restart(up)
        assert up.end(signal.SIGINT) == 0
        assert leftovers(up) == []
    finally:
        up.close()


def under_load(up: Up) -> tuple[Operator, Load]:
    with Load(up.http, up.direct, RATE) as load:
        operator = Operator(up, up.folder / "state", load, hold_s=0.5, split_s=3.0)
        try:
            operator.round(MOST, WORKERS)
        finally:
            print("\n" + table(load.phases, time.monotonic()))
    return operator, load


def check_split(phases: list[Phase]) -> None:
    """A tenth went to version 2, and a key had the same version all the time, by every door."""
    versions = [phase.free for phase in phases]
    asked, new = sum(each.total() for each in versions), sum(each["2"] for each in versions)
    assert asked > 100
    assert 0.07 < new / asked < 0.13
    keys = {key: set().union(*(phase.sticky[key] for phase in phases)) for key in phases[0].sticky}
    assert keys and len(keys) <= KEYS
    assert all(len(found) == 1 for found in keys.values()), keys
    assert {"2"} in keys.values()


def ordered(up: Up) -> dict[str, Any]:
    """What is so of version 1, the only one."""
    [model] = management_of(up, up.folder / "state").describe(MODEL)
    assert model["version"] == "1"
    return {key: model[key] for key in ORDERED}


def check_orders_after_a_restart(up: Up) -> None:
    until(lambda: ordered(up) == ORDERED, 60.0)
    state = management_of(up, up.folder / "state").state()
    assert state["broker"]["restored"] == ""
    assert [agent["wanted"] for agent in state["agents"]] == [WORKERS]
    with Client(up.direct, timeout_s=20) as client:
        assert client.infer(MODEL, {"x": np.float32([3])})["y"].tolist() == [7.0]
