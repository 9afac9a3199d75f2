"""What a start serves."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from headway.errors import SettingsError
from headway.torchserve import snapshots
from headway.torchserve.properties import Properties
from headway.torchserve.startup import Startup, startup_of

pytest.importorskip("yaml")


def add(store: Path, file: str, name: str, version: str, yaml: str = "") -> None:
    model = {"modelName": name, "modelVersion": version, "handler": "h.py", "configFile": "c.yaml"}
    with zipfile.ZipFile(store / file, "w") as packed:
        packed.writestr("MAR-INF/MANIFEST.json", json.dumps({"model": model}))
        packed.writestr("c.yaml", yaml)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    add(tmp_path, "a.mar", "a", "1.0")
    add(tmp_path, "a2.mar", "a", "2.0", "minWorkers: 2\nmaxWorkers: 3\n")
    add(tmp_path, "b.model", "b", "1.0", "torchrun: {}\n")
    (tmp_path / "folder" / "MAR-INF").mkdir(parents=True)
    (tmp_path / ".hidden.mar").touch()
    (tmp_path / "notes.txt").touch()
    return tmp_path


def started(store: Path, workers: int = 5, **said: Any) -> Startup:
    return startup_of(Properties(model_store=str(store), **said), workers)


def keys(startup: Startup) -> list[tuple[str, str]]:
    return [one.key for one in startup.registrations]


def test_nothing_is_served_unless_it_is_said(store: Path) -> None:
    assert started(store) == Startup()


@pytest.mark.parametrize("said", ["all", "ALL"])
def test_all_is_every_archive_and_folder_of_the_store(store: Path, said: str) -> None:
    startup = started(store, load_models=said)
    assert keys(startup) == [("a", "1.0"), ("a", "2.0"), ("b", "1.0"), ("folder", "1.0")]
    assert startup.defaults == {"a": "1.0", "b": "1.0", "folder": "1.0"}
    assert startup.warnings == ["b.model: model-config.yaml: no meaning here: torchrun"]


def test_a_list_names_files_and_what_they_shall_be_called(store: Path) -> None:
    startup = started(store, load_models="mine=a.mar, a2.mar")
    assert keys(startup) == [("mine", "1.0"), ("a", "2.0")]
    one = startup.registrations[0]
    assert (one.url, one.archive, one.at_startup) == ("a.mar", str(store / "a.mar"), True)


def test_workers_are_the_archives_own_else_those_of_models_else_the_default(store: Path) -> None:
    models = {"a": {"1.0": {"minWorkers": 1, "maxWorkers": 4, "batchSize": 8, "defaultVersion": False}}}
    models["a"]["2.0"] = {"minWorkers": 7, "maxWorkers": 7, "batchSize": 9, "defaultVersion": True}
    startup = started(store, load_models="all", models=json.dumps(models))
    bounds = [(one.workers_min, one.workers_max, one.batch_size) for one in startup.registrations]
    assert bounds == [(1, 4, 8), (2, 3, 9), (5, 5, 1), (5, 5, 1)]
    assert startup.workers == 13
    assert startup.defaults["a"] == "2.0"


def test_one_that_is_broken_is_warned_about_and_the_others_are_served(store: Path) -> None:
    (store / "broken.mar").write_text("no zip")
    files = "broken.mar,nope.mar,../a.mar,a.mar,a.mar,bad name=b.model"
    startup = started(store, load_models=files)
    assert keys(startup) == [("a", "1.0")]
    assert [line.partition(": ")[2].partition(": file: ")[0] for line in startup.warnings] == [
        "broken.mar",
        "nope.mar: Model not found at: nope.mar",
        "../a.mar: Relative path is not allowed in url: ../a.mar",
        "a.mar: Model version 1.0 is already registered for model a",
        "b.model: bad name 1.0: no name and version of a model",
    ]


def test_nothing_is_fetched_at_a_start(store: Path) -> None:
    startup = started(store, load_models="x=https://host/x.mar,a.mar")
    assert keys(startup) == [("a", "1.0")]
    assert "Failed to load model: https://host/x.mar: a start fetches nothing" in startup.warnings[0]
    assert startup.failed["x"].startswith("a start fetches nothing")


def test_a_snapshot_is_restored_as_it_was(store: Path, tmp_path: Path) -> None:
    startup = started(store, load_models="all", default_response_timeout=9)
    path = snapshots.write("shutdown", Properties(), startup.registrations, tmp_path, {"a": "2.0"})
    document = path.read_text().partition("model_snapshot=")[2]
    text = document.replace("\\n", "\n").replace("\\:", ":")
    scaled = text.replace('"minWorkers": 2,', '"minWorkers": 1,')
    again = started(store, load_models="b.model", model_snapshot=scaled)
    assert keys(again) == keys(startup)
    assert again.defaults["a"] == "2.0"
    two = again.registrations[1]
    assert (two.workers_min, two.workers_max, two.response_timeout_s) == (1, 3, 9)


def test_a_snapshot_whose_archive_is_gone_ends_the_start(store: Path) -> None:
    text = '{"models": {"a": {"1.0": {"marName": "gone.mar", "minWorkers": 1}}}}'
    with pytest.raises(SettingsError, match=r"Model archive file for model :a, version :1\.0 not found"):
        started(store, model_snapshot=text)


def test_an_empty_snapshot_is_said(store: Path) -> None:
    startup = started(store, model_snapshot='{"models": {}}', load_models="all")
    assert startup.registrations == []
    assert startup.warnings == ["Model snapshot is empty. Starting without initial models."]
