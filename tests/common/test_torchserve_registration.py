"""A registered archive as a version in the store: the keys of its `model.toml`, whole or not there."""

import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from headway.errors import SettingsError
from headway.store import read_version
from headway.torchserve.properties import Properties
from headway.torchserve.registration import (
    Registration,
    model_keys,
    read_registration,
    remove_all,
    remove_version,
    write_version,
)

ONE = Registration("m", "1.0", "m.mar", "/store/m.mar", batch_size=4, batch_delay_ms=250, workers_min=2)


@pytest.fixture
def registration(tmp_path: Path) -> Registration:
    archive = tmp_path / "m.mar"
    archive.write_bytes(b"")
    return replace(ONE, archive=str(archive))


@pytest.fixture
def store(tmp_path: Path) -> Path:
    folder = tmp_path / "store"
    folder.mkdir()
    return folder


def test_what_is_written_is_read_again_by_both_readers(registration: Registration, store: Path) -> None:
    folder = write_version(store, registration, Properties())
    assert read_registration(folder) == registration
    spec = read_version(folder)
    assert (spec.batch_size_max, spec.batch_delay_ms, spec.batch_clock) == (4, 250.0, "worker")
    assert tomllib.loads((folder / "model.toml").read_text())["file"] == "m.mar"
    assert (folder / "m.mar").resolve() == Path(registration.archive)


def test_a_version_that_is_there_is_not_written_over(registration: Registration, store: Path) -> None:
    write_version(store, registration, Properties())
    with pytest.raises(SettingsError, match="already"):
        write_version(store, replace(registration, batch_size=8), Properties())
    assert read_registration(store / "m" / "1.0").batch_size == 4


def test_only_an_archive_that_was_downloaded_goes_with_its_version(
    registration: Registration, store: Path
) -> None:
    for downloaded in (False, True):
        write_version(store, replace(registration, downloaded=downloaded), Properties())
        remove_version(store, "m", "1.0")
        assert Path(registration.archive).exists() != downloaded
        assert not (store / "m").exists()


def test_archives_stay_when_the_server_ends_as_the_next_start_may_name_them(
    registration: Registration, store: Path
) -> None:
    write_version(store, replace(registration, downloaded=True), Properties())
    remove_all(store)
    assert Path(registration.archive).exists() and not (store / "m").exists()


@pytest.mark.parametrize(
    ("model", "version"), [("../m", "1"), ("m", "../1"), ("a/b", "1"), ("", "1"), ("m", "")]
)
def test_names_that_lead_elsewhere_are_refused(
    registration: Registration, store: Path, model: str, version: str
) -> None:
    with pytest.raises(SettingsError, match="is no"):
        write_version(store, replace(registration, model=model, version=version), Properties())
    assert list(store.iterdir()) == []


def test_a_delay_that_is_not_wanted_is_none() -> None:
    assert model_keys(ONE, Properties(headway_batch_delay=False))["batch_delay_ms"] == 0.0


@pytest.mark.parametrize(("said", "device"), [("", "auto"), ("cpu", "cpu"), ("gpu", "auto")])
def test_a_model_for_gpus_runs_on_the_cpu_where_there_are_none(said: str, device: str) -> None:
    assert model_keys(replace(ONE, device_type=said), Properties())["device"] == device


def test_a_model_with_job_tickets_keeps_no_queue() -> None:
    assert model_keys(replace(ONE, job_ticket=True), Properties())["queue_size_max"] == 0


def test_only_a_model_whose_batches_run_beside_one_another_says_so() -> None:
    assert not {"continuous", "in_flight_max"} & model_keys(ONE, Properties()).keys()
    for keys in ({"continuous": True}, {"in_flight_max": 9}):
        made = replace(ONE, **keys)  # type: ignore[arg-type]
        assert keys.items() <= model_keys(made, Properties()).items()


def test_sequences_are_in_model_toml_where_there_are_any() -> None:
    said = replace(ONE, stateful=True, sequence_idle_ms=10, sequences_max=4, sequence_queue_size=2)
    found = {key: value for key, value in model_keys(said, Properties()).items() if "sequence" in key}
    assert found == {
        "sequences_max": 4,
        "sequence_queue_max": 2,
        "sequence_idle_ms": 10.0,
        "sequence_timeout_ms": 0.0,
        "sequence_opens": "any",
    }
    assert not any("sequence" in key for key in model_keys(replace(said, stateful=False), Properties()))
