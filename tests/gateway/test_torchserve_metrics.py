"""headway_gateway.torchserve.metrics: `GET /metrics`, and what passes Falcon."""

from __future__ import annotations

import asyncio
import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import falcon.asgi
import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from headway.errors import BrokerUnreachable
from headway.stub import AsyncStubClient
from headway.torchserve.properties import Properties
from headway_gateway import models
from headway_gateway.metrics import HttpMetrics
from headway_gateway.request import Request
from headway_gateway.torchserve.access import Accesses
from headway_gateway.torchserve.door_metrics import DoorMetrics
from headway_gateway.torchserve.metrics import MetricsRoutes

PROMETHEUS = "prometheus"


class Broker(AsyncStubClient):
    def __init__(self) -> None:
        super().__init__({})

    async def state(self) -> dict[str, Any]:
        copies = [{"worker": "w", "facts": {"load_ms": 1638.0}}]
        return {"models": [{"name": "met", "version": "1.0", "wanted": 1, "copies": copies}]}


class Away(Broker):
    async def state(self) -> dict[str, Any]:
        raise BrokerUnreachable("away")

    stats = state


@pytest.fixture
def properties(tmp_path: Path) -> Properties:
    return Properties(log_location=str(tmp_path), metrics_mode=PROMETHEUS)


def ask(
    properties: Properties, *paths: str, client: Any = None, method: str = "GET", then: float = 0.0
) -> list[httpx.Response]:
    """One after the other, of a server that has answered a prediction."""

    async def run() -> list[httpx.Response]:
        metrics = DoorMetrics(properties, "vm")
        metrics.open()
        app = falcon.asgi.App(request_type=Request, middleware=[Accesses(metrics.access)])
        MetricsRoutes(client or Broker(), HttpMetrics(), metrics, properties).add_routes(app)
        metrics.count(200, "met", "", 0.01, {"queue_us": 432, "worker_us": 9, "compute_us": 3})
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://t") as http:
            answers = [await http.request(method, path) for path in paths]
        metrics.close()
        return answers

    return asyncio.run(run())


def families(text: str) -> set[str]:
    return {family.name for family in text_string_to_metric_families(text)}


def test_prometheus_mode_shows_torchserves_metrics_and_then_headways(properties: Properties) -> None:
    _, answer = ask(properties, "/metrics", "/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    text = answer.text
    assert 'Requests2XX{Level="Host",Hostname="vm",} 1.0\n' in text, "the scrape before"
    assert (
        "# HELP ts_queue_latency_microseconds Torchserve prometheus counter metric with unit: Microseconds\n"
        "# TYPE ts_queue_latency_microseconds counter\n"
        'ts_queue_latency_microseconds{model_name="met",model_version="default",hostname="vm",} 432.0\n'
    ) in text
    assert 'WorkerLoadTime{WorkerName="W-9000-met_1.0",Level="Host",Hostname="vm",} 1638.0\n' in text
    assert {"headway_broker_up", "headway_copies_wanted"} <= families(text)
    last = max(text.index(f"# HELP {name} ") for name in ("WorkerThreadTime", "PredictionTime"))
    assert last < text.index("# HELP headway_")


def test_log_mode_shows_headways_alone_and_nothing_without_them(properties: Properties) -> None:
    log = replace(properties, metrics_mode="log")
    (answer,) = ask(log, "/metrics")
    assert all(name.startswith("headway_") for name in families(answer.text))
    (answer,) = ask(replace(log, headway_metrics=False), "/metrics")
    assert (answer.status_code, answer.text) == (200, "")


def test_headways_own_can_be_left_out(properties: Properties) -> None:
    (answer,) = ask(replace(properties, headway_metrics=False), "/metrics")
    assert "headway_" not in answer.text
    # What TorchServe's own test of its /metrics looks for: a comma after the last label, a point in a value.
    samples = [line for line in answer.text.splitlines() if not line.startswith("#")]
    assert samples
    assert all(re.fullmatch(r'\w+\{(\w+="[^"]*",)+\} \d+\.\d+', line) for line in samples)


def test_names_choose_among_all(properties: Properties) -> None:
    path = "/metrics?name[]=ts_inference_requests_total&name[]=headway_broker_up"
    one, other, none = ask(properties, path, path.replace("[]", "%5B%5D"), "/metrics?name[]=Nope")
    assert one.text == other.text
    assert families(one.text) == {"ts_inference_requests", "headway_broker_up"}
    assert (none.status_code, none.text) == (200, "")


def test_a_broker_that_is_away_takes_nothing_else_with_it(properties: Properties) -> None:
    (answer,) = ask(properties, "/metrics", client=Away())
    assert "headway_broker_up 0.0" in answer.text
    assert 'model_version="default"' in answer.text


def test_a_scrape_waits_once_for_a_broker_that_is_silent(
    properties: Properties, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "ANSWER_S", 0.6)

    class Silent(Broker):
        async def state(self) -> dict[str, Any]:
            await asyncio.Event().wait()
            return {}

        stats = state

    began = time.monotonic()
    (answer,) = ask(properties, "/metrics", client=Silent())
    assert "headway_broker_up 0.0" in answer.text
    assert time.monotonic() - began < 2 * models.ANSWER_S


def test_other_methods_are_answered_too(properties: Properties) -> None:
    (answer,) = ask(properties, "/metrics", method="POST")
    assert answer.status_code == 200
    assert "ts_inference_requests_total{" in answer.text


def test_requests_that_pass_falcon_are_in_the_access_log(properties: Properties, tmp_path: Path) -> None:
    ask(properties, "/metrics?name[]=a%20b", "/nowhere")
    lines = (tmp_path / "access_log.log").read_text().splitlines()
    shown = [re.sub(r"^\S+ - ", "", re.sub(r"\d+$", "MS", line)) for line in lines]
    assert shown == [
        '/127.0.0.1:123 "GET /metrics?name[]=a%20b HTTP/1.1" 200 MS',
        '/127.0.0.1:123 "GET /nowhere HTTP/1.1" 404 MS',
    ]
