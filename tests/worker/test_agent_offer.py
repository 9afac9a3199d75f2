"""What a host offers, and which orders do not fit."""

from __future__ import annotations

import pytest

from headway.messages import StartWorker
from headway_worker.agent.offer import Device, Offer
from headway_worker.agent.session import Worker

GPU = Device("cuda:0", "GPU-1", "Some GPU", 1 << 30, 3)
CPU = Device("cpu", "cpu", "x", 0, 2)
OFFER = Offer((GPU, CPU), 4, 2)


def order(name: str = "new", device: str = "cuda:0", share: int = 0) -> StartWorker:
    return StartWorker(name, device, share, "why")


def there(count: int, device: str = "cuda:0", share: int = 0) -> list[Worker]:
    return [Worker(f"{device}-{i}", device, share) for i in range(count)]


def test_what_fits_is_not_refused() -> None:
    assert OFFER.refusal(order(), there(2)) == ""
    assert OFFER.refusal(order(share=40), there(2, share=30)) == ""
    assert OFFER.refusal(order(share=100), there(2, "cpu", share=50)) == ""


@pytest.mark.parametrize(
    ("asked", "placed", "why"),
    [
        (order(device="cuda:7"), [], "device 'cuda:7' is not offered by this host, which has cuda:0, cpu"),
        (order("cpu-0"), there(1, "cpu"), "a worker called cpu-0 is there already"),
        (order(), there(3), "cuda:0 has 3 workers and places for 3"),
        (order(), there(3) + there(1, "cpu"), "this host has 4 workers and may have 4"),
        (order(share=101), [], "a share of 101 % is over 100 %"),
        (order(share=41), there(2, share=30), "a share of 41 % does not fit: 60 % of cuda:0 are taken"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_reason(
    asked: StartWorker, placed: list[Worker], why: str
) -> None:
    assert OFFER.refusal(asked, placed) == why


@pytest.mark.parametrize("name", ["", "a/b", "../x", "-rf", ".hidden", "a b", "a\n", "ä", "x" * 101, "a@b"])
def test_a_name_that_means_something_to_a_file_system_is_refused(name: str) -> None:
    assert "is no worker's name" in OFFER.refusal(order(name), [])


def test_a_worker_without_a_share_of_its_own_gets_the_hosts_share() -> None:
    offer = Offer((GPU,), 3, 1, share=40)
    assert (offer.share_of(order()), offer.share_of(order(share=10))) == (40, 10)
    assert "80 % of cuda:0 are taken" in offer.refusal(order(), there(2, share=40))


def test_how_many_copies_a_worker_takes_is_a_fact_where_there_is_a_limit() -> None:
    assert Offer((CPU,), 1, 0, copies_max=1).facts()["copies_max"] == 1
    assert "copies_max" not in OFFER.facts()


def test_the_facts_are_those_of_the_protocol() -> None:
    assert OFFER.facts() == {
        "workers_max": 4,
        "workers_wanted": 2,
        "devices": [
            {
                "device": "cuda:0",
                "device_id": "GPU-1",
                "device_name": "Some GPU",
                "memory_bytes": 1 << 30,
                "places": 3,
            },
            {"device": "cpu", "device_id": "cpu", "device_name": "x", "places": 2},
        ],
    }


def test_an_agent_that_closes_offers_nothing() -> None:
    facts = OFFER.facts(is_closing=True)
    assert (facts["workers_max"], facts["workers_wanted"]) == (0, 0)
    assert [device["places"] for device in facts["devices"]] == [0, 0]
