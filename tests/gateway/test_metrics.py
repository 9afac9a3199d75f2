"""headway_gateway.metrics: the exposition of our own and the broker's numbers."""

from __future__ import annotations

import asyncio
import time

import pytest
from prometheus_client.parser import text_string_to_metric_families

from headway.errors import BrokerUnreachable
from headway.histogram import Histogram
from headway.stub import AsyncStubClient
from headway_gateway import models
from headway_gateway.metrics import broker_families, state_families


def histogram(bounds: tuple[float, ...], *values: float) -> dict:
    made = Histogram(bounds)
    for value in values:
        made.observe(value)
    return made.facts()


STATS = {
    "refused_messages": {"callers": 2, "workers": 1},
    "refused_requests": {"UnknownModel": 5},
    "callers": 3,
    "workers": [
        {"name": "w1", "host": "h", "pid": 1, "device": "cpu", "state": "busy", "batches": 2},
        {"name": "w2", "host": "h", "pid": 2, "device": "cpu", "state": "idle", "batches": 0},
        {"name": "w3", "host": "h", "pid": 3, "device": "cpu", "state": "leaving", "batches": 0},
    ],
    "models": [
        {
            "name": "m",
            "version": "1",
            "queue": 4,
            "queue_bytes": 400,
            "ready": 2,
            "outcomes": {"ok": 10, "QueueFull": 3},
            "queue_s": histogram((0.1, 1.0), 0.05, 0.5, 5.0),
            "compute_s": histogram((0.1, 1.0), 0.05),
            "total_s": histogram((0.1, 1.0)),
            "batch_rows": histogram((1.0, 8.0), 1, 3, 9),
        }
    ],
}


class CountingStub(AsyncStubClient):
    async def stats(self):
        return STATS


def samples(text: str) -> dict[tuple, float]:
    found = {}
    for family in text_string_to_metric_families(text):
        for s in family.samples:
            key = (s.name, *sorted(s.labels.items()))
            assert key not in found
            found[key] = s.value
    return found


@pytest.fixture
def shown(over):
    answer = over(CountingStub({})).metrics()
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return samples(answer.text)


M, V = ("model", "m"), ("version", "1")


def test_the_brokers_gauges_and_counters_are_shown(shown):
    assert shown[("headway_broker_up",)] == 1
    assert shown[("headway_callers",)] == 3
    assert shown[("headway_queue_requests", M, V)] == 4
    assert shown[("headway_queue_bytes", M, V)] == 400
    assert shown[("headway_copies_ready", M, V)] == 2
    assert shown[("headway_workers", ("state", "idle"))] == 1
    assert shown[("headway_workers", ("state", "leaving"))] == 1
    assert shown[("headway_requests_total", M, ("outcome", "ok"), V)] == 10
    assert shown[("headway_requests_total", M, ("outcome", "QueueFull"), V)] == 3
    assert shown[("headway_refused_messages_total", ("side", "callers"))] == 2


def test_requests_for_models_that_are_not_there_are_counted_without_their_names(shown):
    nobody = ("headway_requests_total", ("model", ""), ("outcome", "UnknownModel"), ("version", ""))
    assert shown[nobody] == 5


def test_the_brokers_histograms_become_cumulative(shown):
    name, stage = "headway_request_seconds", ("stage", "queue")
    buckets = [shown[(f"{name}_bucket", ("le", le), M, stage, V)] for le in ("0.1", "1.0", "+Inf")]
    assert buckets == [1, 2, 3]
    assert shown[(f"{name}_count", M, stage, V)] == 3
    assert shown[(f"{name}_sum", M, stage, V)] == pytest.approx(5.55)
    assert shown[("headway_request_seconds_count", M, ("stage", "compute"), V)] == 1
    assert shown[("headway_request_seconds_count", M, ("stage", "total"), V)] == 0
    assert shown[("headway_batch_rows_bucket", ("le", "8.0"), M, V)] == 2
    assert shown[("headway_batch_rows_sum", M, V)] == 13


def test_http_requests_are_counted_by_dialect_and_status(over):
    site = over(CountingStub({"echo": lambda body: body}))
    for _ in range(2):
        site.post("/predictions/echo", content=b"x")
    site.get("/v2/nothing")
    shown = samples(site.metrics().text)
    counted = {k[1:]: v for k, v in shown.items() if k[0] == "headway_http_requests_total"}
    assert counted == {
        (("dialect", "predictions"), ("status", "200")): 2,
        (("dialect", "oip"), ("status", "404")): 1,
    }
    assert shown[("headway_http_request_seconds_count", ("dialect", "predictions"))] == 2


def test_without_a_broker_our_own_numbers_are_still_shown(over):
    class Alone(AsyncStubClient):
        async def stats(self):
            raise BrokerUnreachable("nobody there")

    site = over(Alone({}))
    site.get("/v2")
    shown = samples(site.metrics().text)
    assert shown[("headway_broker_up",)] == 0
    assert shown[("headway_http_requests_total", ("dialect", "oip"), ("status", "200"))] == 1
    assert not any(key[0].startswith("headway_queue") for key in shown)


def test_a_broker_that_says_less_is_shown_with_what_it_says():
    names = {family.name for family in broker_families({"models": []})}
    assert {"headway_broker_up", "headway_requests"} <= names


STATE = {
    "models": [
        {"name": "m", "version": "1", "wanted": 2, "traffic": 0.9},
        {"name": "m", "version": "2", "wanted": 0, "traffic": 0.0},
    ],
    "workers": [
        {"name": "w1", "host": "a", "cuda_mps": "client", "busy": 0.5},
        {"name": "w1", "host": "b", "cuda_mps": "", "busy": 0.0},
        {"name": "w1", "host": "b"},
    ],
}


def test_what_was_ordered_is_shown_from_the_state(over):
    class Stating(CountingStub):
        async def state(self):
            return STATE

    shown = samples(over(Stating({})).metrics().text)
    assert shown[("headway_copies_wanted", M, V)] == 2
    assert shown[("headway_model_traffic", M, V)] == 0.9
    assert shown[("headway_model_traffic", M, ("version", "2"))] == 0.0
    assert shown[("headway_worker_cuda_mps", ("host", "a"), ("worker", "w1"))] == 1
    assert shown[("headway_worker_cuda_mps", ("host", "b"), ("worker", "w1"))] == 0
    assert shown[("headway_worker_busy", ("host", "a"), ("worker", "w1"))] == 0.5


@pytest.mark.parametrize("state", [{}, {"error": "'state' is not a question"}, {"models": [], "workers": []}])
def test_a_broker_that_says_nothing_of_its_state_shows_no_family_of_it(state):
    assert state_families(state) == []


def test_a_scrape_waits_once_for_a_broker_that_is_silent(over, monkeypatch):
    monkeypatch.setattr(models, "ANSWER_S", 0.6)

    class Silent(AsyncStubClient):
        async def stats(self):
            await asyncio.Event().wait()

        state = stats

    began = time.monotonic()
    assert samples(over(Silent({})).metrics().text)[("headway_broker_up",)] == 0
    assert time.monotonic() - began < 2 * models.ANSWER_S
