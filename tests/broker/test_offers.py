"""What agents offer: read from their facts, and what fits."""

from __future__ import annotations

import math
from typing import Any

import pytest

from headway.errors import RemoteProtocolError
from headway_broker.offers import Place, check_count, offer_of, suits, wanted
from tests.broker.bench import spec

GPU = {"device": "cuda:0", "device_id": "GPU-1", "device_name": "a GPU", "memory_bytes": 1000, "places": 3}
FACTS = {
    "workers_max": 4,
    "workers_wanted": 2,
    "devices": [GPU, {"device": "cpu", "device_id": "cpu", "places": 2}],
}


def test_an_offer_is_read_from_the_facts() -> None:
    offer = offer_of("h", FACTS, {}, 7.0)
    assert offer.places == (Place("cuda:0", "GPU-1", 1000, 3), Place("cpu", "cpu", 0, 2))
    assert (offer.workers_max, offer.workers_wanted, offer.room, offer.joined_at) == (4, 2, 4, 7.0)


def test_how_many_copies_a_worker_takes_may_be_missing() -> None:
    assert offer_of("h", FACTS, {}, 0.0).copies_max == 0
    assert offer_of("h", {**FACTS, "copies_max": 2}, {}, 0.0).copies_max == 2


def test_a_worker_may_use_its_share_of_a_devices_memory() -> None:
    offer = offer_of("h", {**FACTS, "devices": [{**GPU, "share": 30}]}, {}, 0.0)
    assert offer.memory_of("cuda:0") == 300
    assert offer_of("h", FACTS, {}, 0.0).memory_of("cuda:0") == 1000
    assert offer.memory_of("cpu") == offer_of("h", FACTS, {}, 0.0).memory_of("cpu") == math.inf


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"devices": None}, "must be a list"),
        ({"devices": ["cuda:0"]}, "must be maps"),
        ({"devices": [GPU, GPU]}, "twice"),
        ({"devices": [{**GPU, "device": "tpu"}]}, "unknown device 'tpu'"),
        ({"devices": [{**GPU, "device_id": 0}]}, "no device_id of cuda:0"),
        ({"devices": [{**GPU, "places": -1}]}, "places of the agent on h must be from 0 to 4096, not -1"),
        ({"devices": [{**GPU, "places": True}]}, "places"),
        ({"devices": [{**GPU, "share": 101}]}, "share of the agent on h must be from 0 to 100, not 101"),
        ({"devices": [{**GPU, "memory_bytes": "much"}]}, "memory_bytes"),
        ({"workers_max": 1.5}, "workers_max"),
        ({"copies_max": "1"}, "copies_max"),
        ({"workers_wanted": None}, "workers_wanted"),
    ],
)
def test_nonsense_is_refused_by_name(change: dict[str, Any], words: str) -> None:
    with pytest.raises(RemoteProtocolError, match=words):
        offer_of("h", {**FACTS, **change}, {}, 0.0)


def test_a_number_of_workers_that_does_not_fit_is_refused_with_the_reason() -> None:
    offer = offer_of("h", FACTS, {}, 0.0)
    assert [check_count(offer, count) for count in (0, 4)] == ["", ""]
    assert check_count(offer, 5) == "count: h may have 4 workers, not 5"
    assert check_count(offer, -1) == "count: -1 is below 0"
    wide = offer._replace(workers_max=9)
    assert check_count(wide, 6) == "count: the devices of h have places for 5 workers, not 6"


def test_what_is_wanted_is_what_was_ordered_or_what_the_agent_says_within_what_fits() -> None:
    offer = offer_of("h", FACTS, {}, 0.0)
    assert [wanted(offer, None), wanted(offer, 0), wanted(offer, 3), wanted(offer, 9)] == [2, 0, 3, 4]


def test_gpus_and_slices_that_go_by_their_uuid_are_gpus() -> None:
    assert suits(spec(device="cuda"), "MIG-1234") and suits(spec(device="cuda"), "GPU-1234")
    assert suits(spec(device="cuda:1"), "cuda:1") and not suits(spec(device="cuda:1"), "cuda:0")
    assert not suits(spec(device="cuda"), "cpu")
