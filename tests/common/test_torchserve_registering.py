"""Which of the wish, the archive's file and the start-up's `models` counts."""

from __future__ import annotations

from typing import Any

import pytest

from headway.errors import SettingsError
from headway.torchserve.config import parse_config
from headway.torchserve.manifest import parse_manifest
from headway.torchserve.peek import Peeked
from headway.torchserve.properties import Properties
from headway.torchserve.registering import Origin, Wish, registration_of
from headway.torchserve.registration import Registration


def registered(yaml: dict[str, Any], below: dict[str, Any] | None = None, **wished: Any) -> Registration:
    peeked = Peeked(parse_manifest({"model": {"modelVersion": "3"}}, "net"), parse_config(yaml))
    properties = Properties(default_response_timeout=77, default_startup_timeout=78, job_queue_size=9)
    wish, origin = Wish("net.mar", **wished), Origin("/s/net.mar", below=below or {})
    return registration_of(peeked, wish, properties, origin)


def test_without_a_word_the_defaults_count() -> None:
    made = registered({})
    assert (made.model, made.version, made.url, made.archive) == ("net", "3", "net.mar", "/s/net.mar")
    assert (made.batch_size, made.batch_delay_ms, made.queue_size) == (1, 100, 9)
    assert (made.response_timeout_s, made.startup_timeout_s) == (77, 78)
    assert (made.workers_min, made.workers_max, made.runtime, made.handler) == (0, 0, "python", "")
    assert (made.client_timeout_ms, made.retry_timeout_s, made.job_ticket) == (0, 300, False)


BELOW = {"batchSize": 2, "maxBatchDelay": 20, "responseTimeout": 21, "startupTimeout": 22}
YAML = {"batchSize": 3, "maxBatchDelay": 30, "responseTimeout": 31, "startupTimeout": 32}
WISH = {"batch_size": 4, "max_batch_delay": 40, "response_timeout": 41, "startup_timeout": 42}


@pytest.mark.parametrize(
    ("below", "yaml", "wish", "batches", "timeouts"),
    [
        (BELOW, {}, {}, (2, 20), (21, 22)),
        (BELOW, YAML, {}, (3, 30), (31, 32)),
        (BELOW, {}, WISH, (4, 40), (41, 42)),
        (BELOW, YAML, WISH, (4, 40), (31, 32)),
        ({}, {}, WISH, (4, 40), (41, 42)),
    ],
)
def test_batches_are_as_wished_but_the_archive_knows_its_timeouts_best(
    below: dict[str, int],
    yaml: dict[str, int],
    wish: dict[str, int],
    batches: tuple[int, int],
    timeouts: tuple[int, int],
) -> None:
    made = registered(yaml, below, **wish)
    assert (made.batch_size, made.batch_delay_ms) == batches
    assert (made.response_timeout_s, made.startup_timeout_s) == timeouts


@pytest.mark.parametrize(
    ("yaml", "wished", "workers"),
    [
        ({}, 2, (2, 2)),
        ({}, None, (0, 0)),
        ({}, -3, (0, 0)),
        ({"minWorkers": 1, "maxWorkers": 4}, 2, (1, 4)),
        ({"minWorkers": 1, "maxWorkers": 4}, 0, (1, 4)),
        ({"minWorkers": 3, "maxWorkers": 2}, 2, (2, 2)),
        ({"minWorkers": 3}, 2, (2, 2)),
        ({"minWorkers": 0, "maxWorkers": 4}, 2, (2, 2)),
    ],
)
def test_workers_of_the_archives_file_count_if_they_make_sense(
    yaml: dict[str, int], wished: int | None, workers: tuple[int, int]
) -> None:
    made = registered(yaml, initial_workers=wished)
    assert (made.workers_min, made.workers_max) == workers


def test_a_snapshot_keeps_both_bounds() -> None:
    made = registered({}, initial_workers=1, workers_max=3)
    assert (made.workers_min, made.workers_max) == (1, 3)


def test_what_only_the_archives_file_can_say() -> None:
    made = registered(
        {
            "jobQueueSize": 5, "clientTimeoutInMills": 50, "maxRetryTimeoutInSec": 6, "useJobTicket": True,
            "deviceType": "gpu", "deviceIds": [1, 0], "parallelType": "tp", "parallelLevel": 2,
            "useVenv": True,
        }
    )  # fmt: skip
    assert (made.queue_size, made.client_timeout_ms, made.retry_timeout_s) == (5, 50, 6)
    assert (made.job_ticket, made.use_venv) == (True, True)
    assert (made.device_type, made.device_ids) == ("gpu", (1, 0))
    assert (made.parallel_type, made.parallel_level) == ("tp", 2)


def test_sequences_have_their_defaults_where_there_are_any() -> None:
    made = registered({"sequenceBatching": True, "sequenceMaxIdleMSec": 10, "maxNumSequence": 4})
    assert made.stateful and made.has_sequences
    assert (made.sequence_idle_ms, made.sequence_timeout_ms) == (10, 0)
    assert (made.sequences_max, made.sequence_queue_size) == (4, 1)
    made = registered({"sequenceBatching": True, "maxNumSequence": 4})
    assert made.stateful and not made.has_sequences and made.sequences_max == 0
    assert not registered({"sequenceMaxIdleMSec": 10}).has_sequences


def test_values_of_a_wrong_type_are_as_if_they_were_not_there() -> None:
    made = registered({"batchSize": "8", "useJobTicket": 1, "deviceIds": "0", "responseTimeout": 0})
    assert (made.batch_size, made.job_ticket, made.device_ids, made.response_timeout_s) == (1, False, (), 77)


def test_a_name_a_handler_and_a_runtime_can_be_wished() -> None:
    made = registered({}, model_name="other", handler="mine.py:go", runtime="python3")
    assert (made.model, made.handler, made.runtime) == ("other", "mine.py:go", "python3")
    with pytest.raises(SettingsError, match="Invalid RuntimeType value: LSPX"):
        registered({}, runtime="LSPX")


def test_a_running_batch_and_asynchronous_workers_are_what_the_archives_file_says() -> None:
    assert registered({"continuousBatching": True}).continuous
    assert registered({"asyncCommunication": True}).in_flight_max > 0
    assert (registered({}).continuous, registered({}).in_flight_max) == (False, 0)
