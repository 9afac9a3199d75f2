"""Prometheus: what this gateway counts, what the broker counts, and `GET /metrics` that shows both, on an
address of its own.

The gateway's own numbers are summed over its processes through files in a folder that
`PROMETHEUS_MULTIPROC_DIR` names (see `server`); without it they are this process's own. The broker's
numbers are asked for at each scrape, so they exist once however many gateways show them.

Knows: prometheus_client, the fields of the broker's `stats` and `state`. Must not know: dialects, requests.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterable, Iterator
from itertools import accumulate
from time import perf_counter
from typing import Any

import falcon.asgi
from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client import Histogram as PrometheusHistogram
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.utils import floatToGoString

from headway.errors import HeadwayError
from headway.histogram import SECONDS, Histogram
from headway_gateway.errors import dialect_of
from headway_gateway.models import ask_broker
from headway_gateway.request import Request

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
MODEL = ("model", "version")
STAGES = ("queue", "compute", "total")
OWN = "headway_"


class HttpMetrics:
    """Counts every request of the app: Falcon middleware, and `count` for those that do not come there.

    PERF: a counter that is shared through files takes 5 us to raise, and a histogram 8. So they are raised
    once for all that was counted in `late_s`, without one in a turn of the event loop: under load a tenth of
    that each.
    """

    def __init__(self, late_s: float = 0.0) -> None:
        self._late_s = late_s
        self._own = CollectorRegistry()
        self._requests = Counter(
            "headway_http_requests", "HTTP requests", ["dialect", "status"], registry=self._own
        )
        self._seconds = PrometheusHistogram(
            "headway_http_request_seconds",
            "Time from an HTTP request's headers to its answer",
            ["dialect"],
            buckets=SECONDS,
            registry=self._own,
        )
        self._children: dict[tuple[str, int], tuple[Any, Any]] = {}  # `labels()` costs more than the count
        self._counted: dict[tuple[str, int], Histogram] = {}  # since the last turn

    async def process_response(
        self, req: Request, resp: falcon.asgi.Response, resource: object, req_succeeded: bool
    ) -> None:
        self.count(dialect_of(req.path), resp.status_code, perf_counter() - req.started)

    async def process_shutdown(self, scope: dict[str, Any], event: dict[str, Any]) -> None:
        self._raise()

    def count(self, dialect: str, status: int, seconds: float) -> None:
        """One request was answered."""
        if not self._counted:
            asyncio.get_running_loop().call_later(self._late_s, self._raise)
        key = (dialect, status)
        if (counted := self._counted.get(key)) is None:
            counted = self._counted[key] = Histogram(SECONDS)
        counted.observe(seconds)

    def collect(self) -> Iterable[Metric]:
        """The families of all processes of this gateway. (The files may hold others' numbers, too.)"""
        self._raise()
        if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
            return self._own.collect()
        found = MultiProcessCollector(CollectorRegistry()).collect()
        return [metric for metric in found if metric.name.startswith(OWN)]

    def _raise(self) -> None:
        counted, self._counted = self._counted, {}
        for key, histogram in counted.items():
            requests, seconds = self._children.get(key) or self._label(key)
            requests.inc(sum(histogram.counts))
            _merge(histogram, seconds)

    def _label(self, key: tuple[str, int]) -> tuple[Any, Any]:
        dialect, status = key
        children = self._requests.labels(dialect, str(status)), self._seconds.labels(dialect)
        self._children[key] = children
        return children


class Counting:
    """Falcon middleware: counts every request of another app under one dialect."""

    def __init__(self, http: HttpMetrics, dialect: str) -> None:
        self._http = http
        self._dialect = dialect

    async def process_response(
        self, req: Request, resp: falcon.asgi.Response, resource: object, req_succeeded: bool
    ) -> None:
        self._http.count(self._dialect, resp.status_code, perf_counter() - req.started)


def _merge(histogram: Histogram, into: Any) -> None:
    """Add all of it at once, for which prometheus_client has no public way."""
    for bucket, times in zip(into._buckets, histogram.counts, strict=True):
        if times:
            bucket.inc(times)
    into._sum.inc(histogram.sum)


class Metrics:
    """The route."""

    def __init__(self, client: Any, http: HttpMetrics) -> None:
        self._client = client
        self._http = http

    def add_routes(self, app: falcon.asgi.App[Any, Any]) -> None:
        app.add_route("/metrics", self)

    async def on_get(self, req: Request, resp: falcon.asgi.Response) -> None:
        stats, state = await asyncio.gather(ask_quietly(self._client.stats), ask_quietly(self._client.state))
        families = [*self._http.collect(), *broker_families(stats), *state_families(state or {})]
        resp.content_type = CONTENT_TYPE
        resp.data = shown(families)


async def ask_quietly(question: Callable[[], Awaitable[dict[str, Any]]]) -> dict[str, Any] | None:
    """What the broker says; None while it is away."""
    try:
        return await ask_broker(question())
    except HeadwayError:
        return None


def shown(families: list[Metric]) -> bytes:
    """As text for Prometheus."""
    return generate_latest(_Scrape(families))


class _Scrape(CollectorRegistry):
    """Families that are there already, as the registry that the exposition wants."""

    def __init__(self, families: list[Metric]) -> None:
        super().__init__()
        self._families = families

    def collect(self) -> Iterator[Metric]:
        yield from self._families


def broker_families(stats: dict[str, Any] | None) -> list[Metric]:
    """The broker's numbers; None stands for a broker that is away."""
    up = GaugeMetricFamily("headway_broker_up", "1 while the broker answers", value=float(stats is not None))
    if stats is None:
        return [up]
    models = stats.get("models", [])
    counts = [_requests(models, stats.get("refused_requests", {})), *_gauges(models)]
    return [up, *_broker(stats), *_workers(stats.get("workers", [])), *counts, *_histograms(models)]


def _broker(stats: dict[str, Any]) -> list[Metric]:
    refused = CounterMetricFamily(
        "headway_refused_messages", "Messages that break the protocol", labels=["side"]
    )
    for side, count in stats.get("refused_messages", {}).items():
        refused.add_metric([side], count)
    callers = stats.get("callers", 0)
    return [GaugeMetricFamily("headway_callers", "Callers with open requests", value=callers), refused]


def _workers(workers: list[dict[str, Any]]) -> list[Metric]:
    count = GaugeMetricFamily("headway_workers", "Workers by state", labels=["state"])
    states = [str(worker["state"]) for worker in workers]
    for state in sorted(set(states)):
        count.add_metric([state], states.count(state))
    return [count]


def _requests(models: list[dict[str, Any]], refused: dict[str, int]) -> Metric:
    """`refused` are those for models that are not there: without labels, as callers could invent many."""
    requests = CounterMetricFamily(
        "headway_requests", "Requests that have their outcome", labels=[*MODEL, "outcome"]
    )
    for model in models:
        for outcome, count in model["outcomes"].items():
            requests.add_metric([model["name"], model["version"], outcome], count)
    for outcome, count in refused.items():
        requests.add_metric(["", "", outcome], count)
    return requests


def _gauges(models: list[dict[str, Any]]) -> list[Metric]:
    depth = GaugeMetricFamily("headway_queue_requests", "Requests that wait", labels=MODEL)
    size = GaugeMetricFamily("headway_queue_bytes", "Bytes of requests that wait", labels=MODEL)
    ready = GaugeMetricFamily("headway_copies_ready", "Copies that take requests", labels=MODEL)
    for model in models:
        labels = [model["name"], model["version"]]
        depth.add_metric(labels, model["queue"])
        size.add_metric(labels, model["queue_bytes"])
        ready.add_metric(labels, model["ready"])
    return [depth, size, ready]


def state_families(state: dict[str, Any]) -> list[Metric]:
    """What was ordered and where it runs, from the broker's `state`; what that does not say is left out."""
    wanted = GaugeMetricFamily("headway_copies_wanted", "Copies that there should be", labels=MODEL)
    traffic = GaugeMetricFamily(
        "headway_model_traffic", "Share of the requests without a version that goes there", labels=MODEL
    )
    for model in state.get("models", []):
        labels = [model["name"], model["version"]]
        wanted.add_metric(labels, model.get("wanted", 0))
        if (share := model.get("traffic")) is not None:
            traffic.add_metric(labels, share)
    return [family for family in (wanted, traffic, *_clients(state.get("workers", []))) if family.samples]


def _clients(workers: list[dict[str, Any]]) -> list[Metric]:
    is_client = GaugeMetricFamily(
        "headway_worker_cuda_mps", "1 if the worker is a client of CUDA MPS", labels=["worker", "host"]
    )
    busy = GaugeMetricFamily(
        "headway_worker_busy", "Part of the last seconds that it computed", labels=["worker", "host"]
    )
    for worker in {(w["name"], w["host"]): w for w in workers}.values():
        labels = [worker["name"], worker["host"]]
        is_client.add_metric(labels, float(worker.get("cuda_mps") == "client"))
        if (part := worker.get("busy")) is not None:
            busy.add_metric(labels, part)
    return [is_client, busy]


def _histograms(models: list[dict[str, Any]]) -> list[Metric]:
    seconds = HistogramMetricFamily(
        "headway_request_seconds", "Time of a request in a stage", labels=[*MODEL, "stage"]
    )
    rows = HistogramMetricFamily("headway_batch_rows", "Rows of a batch", labels=MODEL)
    for model in models:
        labels = [model["name"], model["version"]]
        for stage in STAGES:
            _add(seconds, [*labels, stage], model[f"{stage}_s"])
        _add(rows, labels, model["batch_rows"])
    return [seconds, rows]


def _add(family: HistogramMetricFamily, labels: list[str], histogram: dict[str, Any]) -> None:
    bounds = [*map(floatToGoString, histogram["bounds"]), "+Inf"]
    buckets = list(zip(bounds, accumulate(histogram["counts"]), strict=True))
    family.add_metric(labels, buckets, histogram["sum"])
