"""headway_gateway.torchserve.collector: one process looks at the host."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from headway.errors import BrokerUnreachable
from headway.torchserve.properties import Properties
from headway_gateway.torchserve import collector as module
from headway_gateway.torchserve.collector import Collector, load_times
from headway_gateway.torchserve.door_metrics import DoorMetrics
from headway_gateway.torchserve.host import Reading


def copy(load_ms: float | None) -> dict[str, Any]:
    return {"worker": "w", "state": "ready", "facts": {} if load_ms is None else {"load_ms": load_ms}}


STATE = {
    "models": [
        {"name": "a", "version": "1.0", "copies": [copy(1638.5), copy(None)]},
        {"name": "b", "version": "2", "copies": [copy(20)]},
        {"name": "c", "version": "2", "copies": []},
    ]
}


class Broker:
    """What it says of its state."""

    def __init__(self, state: dict[str, Any] | None = None) -> None:
        self.document = STATE if state is None else state
        self.away = False

    async def state(self) -> dict[str, Any]:
        if self.away:
            raise BrokerUnreachable("away")
        return self.document


@pytest.fixture
def properties(tmp_path: Path) -> Properties:
    return Properties(log_location=str(tmp_path), metric_time_interval=1)


def watched(properties: Properties, tmp_path: Path, broker: Broker | None = None) -> Collector:
    return Collector(broker or Broker(), DoorMetrics(properties, "vm"), properties, tmp_path)


def text(tmp_path: Path) -> str:
    return (tmp_path / "ts_metrics.log").read_text()


async def soon(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():
            await asyncio.sleep(0.01)


def test_load_times_are_named_as_torchserve_names_workers() -> None:
    assert load_times(STATE, 9000) == {"W-9000-a_1.0": 1638.5, "W-9002-b_2": 20.0}


def test_only_one_of_two_looks_and_the_other_does_when_it_has_gone(
    properties: Properties, tmp_path: Path
) -> None:
    async def run() -> None:
        one, other = (watched(properties, tmp_path) for _ in range(2))
        await one.process_startup({}, {})
        await soon(lambda: one._lock >= 0)
        await other.process_startup({}, {})
        await asyncio.sleep(0.3)
        assert other._lock < 0
        await one.process_shutdown({}, {})
        await soon(lambda: other._lock >= 0)
        await other.process_shutdown({}, {})

    asyncio.run(run())
    assert text(tmp_path).count("MemoryUsed.Megabytes:") >= 1


def test_a_load_is_told_once_and_an_absent_broker_is_no_matter(
    properties: Properties, tmp_path: Path
) -> None:
    async def run() -> None:
        broker = Broker()
        collector = watched(replace(properties, disable_system_metrics=True), tmp_path, broker)
        collector._metrics.open()
        await collector.look()
        await collector.look()
        broker.away = True
        await collector.look()
        broker.away = False
        broker.document = {"models": STATE["models"][:1]}
        await collector.look()
        broker.document = STATE
        await collector.look()  # loaded again
        collector._metrics.close()

    asyncio.run(run())
    told = [line.split(" - ")[1].partition(",timestamp")[0] for line in text(tmp_path).splitlines()]
    first = "WorkerLoadTime.Milliseconds:1638.5|#WorkerName:W-9000-a_1.0,Level:Host|#hostname:vm"
    second = "WorkerLoadTime.Milliseconds:20.0|#WorkerName:W-9002-b_2,Level:Host|#hostname:vm"
    assert told == [first, second, second]


@pytest.mark.parametrize(("gpus", "devices"), [(-1, "01"), (1, "0"), (0, "")])
def test_as_many_gpus_are_told_of_as_the_server_may_use(
    properties: Properties, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gpus: int, devices: str
) -> None:
    readings = [Reading("GPUUtilization", 5.0, device) for device in "01"]
    monkeypatch.setattr(module, "gpu_readings", lambda: readings)

    async def run() -> None:
        collector = watched(replace(properties, number_of_gpu=gpus), tmp_path, Broker({}))
        collector._metrics.open()
        await collector.look()
        collector._metrics.close()

    asyncio.run(run())
    assert [device for device in "01" if f"DeviceId:{device}" in text(tmp_path)] == list(devices)
