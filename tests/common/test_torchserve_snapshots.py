"""Snapshots: written, found again, restored."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from headway.errors import SettingsError
from headway.torchserve import javaproperties, snapshots
from headway.torchserve.properties import Properties
from headway.torchserve.reading import Given, read_properties
from headway.torchserve.registration import Registration

ONE = Registration("noop", "1.0", "noop.mar", "/s/noop.mar", workers_min=1, workers_max=2, batch_size=4)
TWO = Registration("noop", "2.0", "https://h/x/n2.mar", "/s/n2.mar", runtime="python3", parallel_level=2)
NOW = 1_795_393_865.203


def test_a_snapshot_is_the_properties_and_the_models(tmp_path: Path) -> None:
    properties = Properties(said={"job_queue_size": "7", "model_snapshot": "old"})
    path = snapshots.write("startup", properties, [ONE, TWO], tmp_path / "config", {"noop": "2.0"}, NOW)
    assert path.name.endswith("203-startup.cfg")
    assert len(path.name) == len("20261123003105203-startup.cfg")
    values = javaproperties.parse(path.read_bytes())
    assert values["job_queue_size"] == "7"
    document = json.loads(values["model_snapshot"])
    assert (document["name"], document["modelCount"], document["created"]) == (path.name, 1, 1795393865203)
    assert document["models"]["noop"] == {
        "1.0": {
            "defaultVersion": False, "marName": "noop.mar", "minWorkers": 1, "maxWorkers": 2, "batchSize": 4,
            "maxBatchDelay": 100, "responseTimeout": 120, "startupTimeout": 120, "runtimeType": "python",
        },
        "2.0": {
            "defaultVersion": True, "marName": "n2.mar", "minWorkers": 0, "maxWorkers": 0, "batchSize": 1,
            "maxBatchDelay": 100, "responseTimeout": 120, "startupTimeout": 120, "runtimeType": "python3",
            "parallelLevel": 2,
        },
    }  # fmt: skip
    assert list(path.parent.iterdir()) == [path]


def test_a_snapshot_reads_back_as_properties_that_name_its_models(tmp_path: Path) -> None:
    path = snapshots.write("snapshot", Properties(), [ONE], tmp_path, clock_s=NOW)
    found = read_properties(Given(tmp_path, javaproperties.parse(path.read_bytes())))
    assert found.warnings == ()
    assert snapshots.models_of(found.properties)["noop"]["1.0"]["defaultVersion"] is True


def test_one_with_a_password_is_for_nobody_else_to_read(tmp_path: Path) -> None:
    path = snapshots.write("startup", Properties(said={"keystore_pass": "x"}), [], tmp_path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_latest_is_the_one_with_the_latest_name(tmp_path: Path) -> None:
    assert snapshots.latest(tmp_path / "nowhere") is None
    assert snapshots.latest(tmp_path) is None
    for name in ("20261123003105203-startup.cfg", "20261123003110600-shutdown.cfg", "zzz.cfg", ".x"):
        (tmp_path / name).touch()
    assert snapshots.latest(tmp_path) == tmp_path / "20261123003110600-shutdown.cfg"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "it is no snapshot"),
        ("[]", "it is no snapshot"),
        ('{"models": {"a": []}}', "it is no snapshot"),
        ('{"models": {"a": {"1": {}}}}', "a 1: there is no marName"),
        (
            '{"models": {"a": {"1": {"marName": "a.mar", "batchSize": "4"}}}}',
            "batchSize is not a whole number",
        ),
    ],
)
def test_what_is_no_snapshot_is_said(text: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        snapshots.models_of(Properties(model_snapshot=text))
