"""headway_broker.timing: how long a request waited and ran."""

from __future__ import annotations

import math

from headway.messages import Result
from headway_broker.queues import OpenRequest
from headway_broker.timing import timed
from headway_broker.workers import Flight


def flight(began: float) -> Flight:
    return Flight(1, ("m", "1"), [], 60.0, 99.0, False, began=began)


def request(arrived: float) -> OpenRequest:
    return OpenRequest(b"c", 1, ("m", "1"), arrived, 99.0, 1, 0, {}, b"")


def test_a_request_waits_until_its_batch_is_its_workers_first() -> None:
    found = timed({"version": "1"}, request(10.0), flight(10.25), Result(1, 200_000, []), 10.75)
    assert found == {"version": "1", "queue_us": 250_000, "worker_us": 500_000, "compute_us": 200_000}


def test_a_worker_is_never_faster_than_its_model() -> None:
    found = timed({}, request(10.0), flight(math.inf), Result(1, 200, []), 10.5)
    assert found == {"queue_us": 500_000, "worker_us": 200, "compute_us": 200}
