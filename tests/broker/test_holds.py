"""headway_broker.holds: a caller gets its slots back when no worker may touch them, and not before."""

from __future__ import annotations

import pytest

from headway_broker.holds import Holds
from headway_broker.queues import OpenRequest
from headway_broker.workers import Flight


def asked(id: int, slots: bool = True, holders: int = 1) -> OpenRequest:
    key = ("m", "1")
    return OpenRequest(b"c", id, key, 0.0, 9.0, 1, 0, {}, b"", slots=slots, holders=holders)


def closed(holds: Holds, request: OpenRequest) -> OpenRequest:
    request.open = False
    holds.keep(request)
    return request


def flight(id: int, *requests: OpenRequest) -> Flight:
    return Flight(id, ("m", "1"), list(requests), 1.0, 9.0, False)


@pytest.fixture
def holds() -> Holds:
    return Holds()


def test_the_last_holder_that_lets_go_releases_what_has_its_outcome(holds: Holds) -> None:
    request = closed(holds, asked(1, holders=2))
    holds.let_go([request])
    assert holds.released == {}
    holds.let_go([request])
    assert holds.take_released() == {b"c": [1]}
    assert list(holds) == [] and holds.released == {}


def test_an_open_request_is_not_released(holds: Holds) -> None:
    holds.let_go([asked(1)])
    assert holds.released == {}


def test_a_request_without_slots_is_nobodys(holds: Holds) -> None:
    request = asked(1, slots=False, holders=0)
    holds.let_go([request])
    holds.lose(b"w", [flight(5, request)])
    assert holds.limbo == {} and request.holders == 0


@pytest.mark.parametrize("end", ["it is through", "its process is gone"])
def test_a_worker_that_was_given_up_holds_its_batches_until(holds: Holds, end: str) -> None:
    request = closed(holds, asked(1))
    holds.lose(b"w", [flight(5, request)])
    holds.finish(b"w", 4)
    holds.bury(b"another")
    assert holds.released == {} and list(holds) == [request]
    holds.finish(b"w", 5) if end == "it is through" else holds.bury(b"w")
    assert holds.take_released() == {b"c": [1]}
    assert holds.limbo == {}


def test_what_is_reclaimed_is_released_at_once_unless_a_worker_holds_it(holds: Holds) -> None:
    request = closed(holds, asked(1))
    holds.reclaim(b"c", [1, 2])
    holds.reclaim(b"other", [1])
    assert holds.take_released() == {b"c": [2], b"other": [1]}
    holds.let_go([request])
    assert holds.take_released() == {b"c": [1]}
