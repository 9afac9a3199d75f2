"""Looks at the host now and then, in one of the gateway's processes.

Knows: how often, who is the one. Must not know: what the readings are, where they go.

The one is who holds a lock; the others try for it at their turn, so that a process that ended is replaced.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

from headway import locks
from headway.errors import HeadwayError
from headway.torchserve.properties import Properties
from headway_gateway.models import ask_broker
from headway_gateway.torchserve.book import PROMETHEUS
from headway_gateway.torchserve.door_metrics import DoorMetrics
from headway_gateway.torchserve.host import gpu_readings, host_readings

LOCK = "torchserve-metrics.lock"
FIRST_CPU_S = 0.1


class Collector:
    """Falcon middleware for its life: it is opened with the server, and closed with it."""

    def __init__(self, client: Any, metrics: DoorMetrics, properties: Properties, run_dir: Path) -> None:
        self._client = client
        self._metrics = metrics
        self._properties = properties
        self._path = run_dir / LOCK
        self._lock = -1
        self._cpu_s: float | None = FIRST_CPU_S
        self._seen: set[tuple[str, str]] = set()
        self._task: asyncio.Task[None] | None = None

    async def process_startup(self, scope: dict[str, Any], event: dict[str, Any]) -> None:
        self._metrics.open()
        self._task = asyncio.create_task(self._run())

    async def process_shutdown(self, scope: dict[str, Any], event: dict[str, Any]) -> None:
        if self._task:
            self._task.cancel()
        if self._lock >= 0:
            os.close(self._lock)
        self._metrics.close()

    async def _run(self) -> None:
        while True:
            if self._lock >= 0 or await asyncio.to_thread(self._takes_lock):
                await self.look()
            await asyncio.sleep(max(self._properties.metric_time_interval, 1))

    def _takes_lock(self) -> bool:
        try:
            self._lock = locks.take(self._path)
        except (locks.LockHeld, OSError):
            return False
        return True

    async def look(self) -> None:
        """Once."""
        if not self._properties.disable_system_metrics:
            cpu_s, self._cpu_s = self._cpu_s, None
            self._metrics.read(await asyncio.to_thread(host_readings, cpu_s))
            if self._properties.number_of_gpu:
                self._metrics.read(self._wanted(await asyncio.to_thread(gpu_readings)))
        if self._metrics.book.mode != PROMETHEUS:  # there it is asked for at each scrape
            await self._loads()

    def _wanted(self, readings: list[Any]) -> list[Any]:
        most = self._properties.number_of_gpu
        return [reading for reading in readings if most < 0 or int(reading.device) < most]

    async def _loads(self) -> None:
        """Tell of each load once."""
        try:
            state = await ask_broker(self._client.state())
        except HeadwayError:
            return
        times = load_times(state, self._properties.initial_worker_port)
        for worker, load_ms in times.items():
            if (worker, str(load_ms)) not in self._seen:
                self._metrics.loaded(worker, load_ms)
        self._seen = {(worker, str(load_ms)) for worker, load_ms in times.items()}


def load_times(state: dict[str, Any], first_port: int) -> dict[str, float]:
    """How long each copy took to load, in milliseconds, by what TorchServe would call its worker:
    W-PORT-MODEL_VERSION."""
    found: dict[str, float] = {}
    port = first_port
    for model in state.get("models", []):
        for copy in model.get("copies", []):
            load_ms = copy.get("facts", {}).get("load_ms")
            if isinstance(load_ms, int | float):
                found[f"W-{port}-{model['name']}_{model['version']}"] = float(load_ms)
            port += 1
    return found
