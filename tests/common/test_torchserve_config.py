"""`model-config.yaml`: what its keys mean here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from headway.errors import SettingsError
from headway.messages import TIMEOUT_MS_MAX
from headway.models import ModelSpec
from headway.torchserve.config import IN_FLIGHT_MAX, parse_config, read_config

SPEC = ModelSpec("m", "1", "/m/1", "torchserve", batch_size_max=4, batch_delay_ms=50.0, copies=2)


def test_what_the_broker_needs_is_said_in_the_words_of_model_toml() -> None:
    config = parse_config(
        {
            "batchSize": 4,
            "maxBatchDelay": 50,
            "responseTimeout": 30,
            "jobQueueSize": 7,
            "minWorkers": 1,
            "maxWorkers": 3,
            "deviceType": "gpu",
        }
    )
    assert config.model_keys == {
        "batch_size_max": 4,
        "batch_delay_ms": 50,
        "response_timeout_s": 30,
        "queue_size_max": 7,
        "copies_min": 1,
        "copies_max": 3,
        "device": "cuda",
    }


def test_sequences_are_said_in_the_words_of_model_toml_where_there_are_any() -> None:
    found = {"sequenceBatching": True, "sequenceMaxIdleMSec": 60_000, "maxNumSequence": 4}
    assert parse_config(
        {**found, "maxSequenceJobQueueSize": 10, "sequenceTimeoutMSec": 1 << 30}
    ).model_keys == {
        "sequences_max": 4,
        "sequence_queue_max": 10,
        "sequence_idle_ms": 60_000.0,
        "sequence_timeout_ms": float(TIMEOUT_MS_MAX),
        "sequence_opens": "any",
    }
    assert parse_config({**found, "sequenceMaxIdleMSec": 0}).model_keys == {}
    assert parse_config({**found, "sequenceBatching": False}).model_keys == {}


def test_handlers_see_all_of_it() -> None:
    found = {"mine": {"a": 1}, "handler": {"profile": True}, 3: "x"}
    assert parse_config(found).content == {"mine": {"a": 1}, "handler": {"profile": True}, "3": "x"}


def test_what_agrees_with_model_toml_is_not_said() -> None:
    found = {"batchSize": 4, "maxBatchDelay": 50, "minWorkers": 2, "maxWorkers": 2, "deviceType": "cpu"}
    assert parse_config({**found, "mine": 1}).notes(SPEC) == ""


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ({"parallelType": "pp", "startupTimeout": 9}, "no meaning here: startupTimeout, parallelType"),
        (
            {"sequenceBatching": True, "sequenceMaxIdleMSec": 9, "continuousBatching": True},
            "no meaning here: continuousBatching (with sequenceBatching)",
        ),
        ({"sequenceBatching": True}, "no meaning here: sequenceBatching (without sequenceMaxIdleMSec)"),
        ({"maxNumSequence": 0}, "maxNumSequence (0 is not a whole number above 0)"),
        ({"batchSize": "8"}, "batchSize ('8' is not a whole number above 0)"),
        ({"batchSize": True}, "batchSize (True is not a whole number above 0)"),
        ({"batchSize": 0}, "batchSize (0 is not a whole number above 0)"),
        ({"batchSize": 1 << 31}, "batchSize (a number that large is not a whole number above 0)"),
        ({"responseTimeout": 1 << 20_000}, "responseTimeout (a number that large is not a whole number"),
        ({"minWorkers": [1]}, "minWorkers (a list is not a whole number, 0 or more)"),
        ({"deviceType": "tpu"}, "deviceType ('tpu' is not cpu or gpu)"),
        ({"responseTimeout": 5}, "response_timeout_s 60.0 (the file: 5)"),
        ({"maxWorkers": 9}, "copies_max 2 (the file: 9)"),
    ],
)
def test_what_does_nothing_is_said(found: Any, said: str) -> None:
    assert said in parse_config(found).notes(SPEC)


def test_an_archive_without_the_file_has_no_config(tmp_path: Path) -> None:
    assert read_config(tmp_path, "").content == {}
    with pytest.raises(SettingsError, match=r"configFile: c\.yaml: No such file"):
        read_config(tmp_path, "c.yaml")


def test_an_empty_file_says_nothing(tmp_path: Path) -> None:
    pytest.importorskip("yaml")
    (tmp_path / "c.yaml").write_text("# nothing\n")
    assert read_config(tmp_path, "c.yaml").notes(SPEC) == ""


def test_yaml_that_would_run_code_or_fill_the_memory_does_neither(tmp_path: Path) -> None:
    pytest.importorskip("yaml")
    path = tmp_path / "c.yaml"
    path.write_text("a: !!python/object/apply:os.mkdir [/nowhere]\n")
    with pytest.raises(SettingsError, match=r"c\.yaml is not YAML"):
        read_config(tmp_path, "c.yaml")
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    path.write_text("\n".join([*lines, "batchSize: *a11"]))
    assert "batchSize (a list is not" in read_config(tmp_path, "c.yaml").notes(SPEC)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(SettingsError, match=r"c\.yaml is not UTF-8"):
        read_config(tmp_path, "c.yaml")


def test_a_running_batch_counts_before_asynchronous_workers_and_is_said_where_model_toml_has_none() -> None:
    config = parse_config({"continuousBatching": True, "asyncCommunication": True})
    assert (config.model_keys, config.unused) == ({"continuous": True}, ())
    assert "continuous False (the file: True)" in config.notes(SPEC)
    config = parse_config({"continuousBatching": False, "asyncCommunication": True})
    assert config.model_keys == {"in_flight_max": IN_FLIGHT_MAX}
    assert "of a wrong type: asyncCommunication" in parse_config({"asyncCommunication": "yes"}).warning
