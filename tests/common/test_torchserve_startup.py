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
from headway.torchserve.startup import Fetched, Startup, startup_of

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


SIGNED = "https://host/a.mar?X-Signature=secret"


def fetched(store: Path, said: str, **fate: Any) -> Startup:
    properties = Properties(model_store=str(store), load_models=said)
    assert startup_of(properties, 1).urls == [SIGNED]
    return startup_of(properties, 1, {SIGNED: Fetched(**fate)})


def test_urls_are_to_be_fetched_before_it_is_known_what_they_are(store: Path) -> None:
    startup = started(store, load_models=f"x={SIGNED},b.model,{SIGNED}")
    assert keys(startup) == [("b", "1.0")]
    assert startup.urls == [SIGNED, SIGNED] and not startup.failed


@pytest.mark.parametrize(("name", "called"), [("x=", "x"), ("", "a")])
def test_what_was_fetched_is_served_in_its_place_and_as_what_it_is_called(
    store: Path, name: str, called: str
) -> None:
    startup = fetched(store, f"{name}{SIGNED},x=a2.mar", path=str(store / "a.mar"), downloaded=True)
    assert keys(startup) == [(called, "1.0"), ("x", "2.0")]
    one = startup.registrations[0]
    assert (one.url, one.archive, one.downloaded) == (SIGNED, str(store / "a.mar"), True)
    assert startup.defaults["x"] == ("1.0" if name else "2.0")


def test_what_the_store_had_already_is_served_and_said(store: Path) -> None:
    startup = fetched(store, SIGNED, path=str(store / "a.mar"))
    assert keys(startup) == [("a", "1.0")] and not startup.registrations[0].downloaded
    assert startup.warnings == ["https://host/a.mar: not fetched: a.mar is in the model store, and is served"]


def test_what_could_not_be_fetched_is_warned_about_without_its_signature(store: Path) -> None:
    startup = fetched(store, f"{SIGNED},a.mar", refused=f"Failed to download archive from: {SIGNED}")
    reason = "Failed to download archive from: https://host/a.mar"
    assert keys(startup) == [("a", "1.0")]
    assert startup.warnings == [f"Failed to load model: https://host/a.mar: {reason}"]
    assert startup.failed == {"a": reason}


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
