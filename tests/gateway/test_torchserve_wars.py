"""Workflows' archives in the store: whole or not at all, and nothing outside."""

import json
import zipfile

import pytest

from headway.errors import InvalidInput, SettingsError
from headway_gateway.torchserve.workflows.archive import FOLDER, find, names, put, remove
from headway_gateway.torchserve.workflows.dag import InvalidDag

SPEC = "models:\n  cat:\n    url: cat.mar\ndag:\n  before: [cat]\n"
MANIFEST = {"workflow": {"workflowName": "wf", "specFile": "spec.yaml", "handler": "functions.py"}}


@pytest.fixture
def store(tmp_path):
    folder = tmp_path / "store"
    folder.mkdir()
    return folder


def war(tmp_path, manifest=MANIFEST, spec=SPEC, **files):
    path = tmp_path / "some.war"
    files = {"functions.py": "", "spec.yaml": spec, **files}
    if manifest is not None:
        files["WAR-INF/MANIFEST.json"] = manifest if isinstance(manifest, str) else json.dumps(manifest)
    with zipfile.ZipFile(path, "w") as packed:
        for name, content in files.items():
            packed.writestr(name, content)
    return path


def test_a_workflow_is_found_under_its_own_name_or_another(tmp_path, store):
    put(war(tmp_path), store, "some.war")
    put(war(tmp_path), store, "some.war", "other")
    assert names(store) == ["other", "wf"]
    found = find(store, "other")
    assert (found.url, found.handler, found.model("cat")) == ("some.war", "functions.py", "other__cat")
    assert (found.files / "functions.py").is_file()


def test_a_name_is_taken_once(tmp_path, store):
    put(war(tmp_path), store, "some.war")
    with pytest.raises(FileExistsError):
        put(war(tmp_path), store, "some.war")
    assert [path.name for path in (store / FOLDER).iterdir()] == ["wf"], "nothing is left of the second"


def test_what_is_removed_is_gone_whole(tmp_path, store):
    put(war(tmp_path), store, "some.war")
    remove(store, "wf")
    assert find(store, "wf") is None and list((store / FOLDER).iterdir()) == []


@pytest.mark.parametrize("name", ["../wf", "a/b", "", ".hidden"])
def test_no_name_leads_out_of_the_folder(tmp_path, store, name):
    assert find(store, name) is None
    manifest = {"workflow": {**MANIFEST["workflow"], "workflowName": name or "/"}}
    with pytest.raises(SettingsError):
        put(war(tmp_path, manifest), store, "some.war")
    assert list((store / FOLDER).iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"manifest": None}, SettingsError, "MANIFEST.json"),
        ({"manifest": "{"}, SettingsError, "not JSON"),
        ({"manifest": {}}, SettingsError, "Missing Workflow entry"),
        ({"manifest": {"workflow": {"specFile": "spec.yaml"}}}, SettingsError, "name is not defined"),
        ({"manifest": {"workflow": {"workflowName": ["a"]}}}, SettingsError, "workflowName"),
        ({"manifest": {"workflow": {"workflowName": "a", "specFile": "../s"}}}, SettingsError, "specFile"),
        ({"manifest": {"workflow": {"workflowName": "a", "specFile": "no.yaml"}}}, SettingsError, "no.yaml"),
        (
            {"manifest": {"workflow": {"workflowName": "a", "specFile": "spec.yaml"}}},
            SettingsError,
            "handler",
        ),
        ({"spec": "["}, SettingsError, "not YAML"),
        ({"spec": "models: {}\ndag: {a: [a]}"}, InvalidDag, "Self loop"),
        ({"../out": "x"}, InvalidInput, "leads out"),
    ],
)
def test_a_bad_archive_is_refused_and_leaves_nothing(tmp_path, store, arguments, error, text):
    with pytest.raises(error, match=text):
        put(war(tmp_path, **arguments), store, "some.war")
    assert list((store / FOLDER).iterdir()) == []
    assert not (tmp_path / "out").exists()


def test_what_is_no_zip_file_is_refused(tmp_path, store):
    (tmp_path / "some.war").write_bytes(b"no")
    with pytest.raises(InvalidInput):
        put(tmp_path / "some.war", store, "some.war")
