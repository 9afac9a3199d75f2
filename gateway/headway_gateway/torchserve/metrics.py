"""`GET /metrics` of the TorchServe door: TorchServe's metrics, then Headway's own.

Knows: the route, its filter. Must not know: where the numbers come from, how they are written.

No token is asked for. `name[]` names samples, of either kind; without it all are shown. A scraper that cannot
bear more than TorchServe shows gets that with the property `headway_metrics`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any

import falcon.asgi
from prometheus_client import Metric

from headway.torchserve.properties import Properties
from headway_gateway.metrics import HttpMetrics, ask_quietly, broker_families, shown, state_families
from headway_gateway.request import Request
from headway_gateway.torchserve.collector import load_times
from headway_gateway.torchserve.door_metrics import DoorMetrics
from headway_gateway.torchserve.exposition import CONTENT_TYPE, Family, Sample, exposition

NAMES = "name[]"
LOADED = "WorkerLoadTime"


class MetricsRoutes:
    """The route. Any method is answered, as TorchServe does."""

    def __init__(
        self, client: Any, http: HttpMetrics, ts_metrics: DoorMetrics, properties: Properties
    ) -> None:
        self._client = client
        self._http = http
        self._metrics = ts_metrics
        self._properties = properties

    def add_routes(self, app: falcon.asgi.App[Any, Any]) -> None:
        app.add_route("/metrics", self)

    async def on_get(self, req: Request, resp: falcon.asgi.Response) -> None:
        names = frozenset(req.get_param_as_list(NAMES) or ())
        stats, state = await self._ask()
        self._metrics.flush()
        families = self._metrics.book.families()
        self._add_loads(families, state or {})
        text = exposition(families.values(), names).encode()
        resp.content_type = CONTENT_TYPE
        resp.data = text + self._own(names, stats, state or {})

    on_post = on_put = on_delete = on_patch = on_get

    async def _ask(self) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
        """The broker's stats and state, as far as they are shown; None while it is away."""
        if self._properties.headway_metrics:
            return await asyncio.gather(ask_quietly(self._client.stats), ask_quietly(self._client.state))
        if self._metrics.book.server_family(LOADED) is not None:
            return None, await ask_quietly(self._client.state)
        return None, None

    def _add_loads(self, families: dict[str, Family], state: dict[str, Any]) -> None:
        """What runs now, so not what some process saw once."""
        book = self._metrics.book
        if (declared := book.server_family(LOADED)) is None:
            return
        times = load_times(state, self._properties.initial_worker_port)
        samples = [
            Sample(LOADED, book.labels(declared, {"WorkerName": worker}), load_ms)
            for worker, load_ms in times.items()
        ]
        families[LOADED] = families[LOADED]._replace(samples=samples)

    def _own(self, names: Collection[str], stats: dict[str, Any] | None, state: dict[str, Any]) -> bytes:
        if not self._properties.headway_metrics:
            return b""
        return shown(_named([*self._http.collect(), *broker_families(stats), *state_families(state)], names))


def _named(families: list[Metric], names: Collection[str]) -> list[Metric]:
    """Those with samples that are called so, and of them nothing else."""
    if not names:
        return families
    for family in families:
        family.samples = [sample for sample in family.samples if sample.name in names]
    return [family for family in families if family.samples]
