"""The model store: good versions are found, bad ones are named with the reason."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest

from headway.errors import SettingsError
from headway.store import Found, read_version, scan, signature

GOOD = 'backend = "python"\n'


@pytest.fixture
def store(tmp_path):
    return tmp_path / "models"


@pytest.fixture
def add(store):
    """Adds a version with a `model.toml` (none if the text is None); returns its folder."""

    def add_version(name, version, toml=GOOD):
        folder = store / name / version
        folder.mkdir(parents=True)
        if isinstance(toml, str):
            (folder / "model.toml").write_text(toml)
        elif toml is not None:
            (folder / "model.toml").write_bytes(toml)
        return folder

    return add_version


def keys(found):
    return [spec.key for spec in found.specs]


def test_versions_are_found_in_the_order_of_their_names(store, add):
    for name, version in [("b", "1"), ("a", "2"), ("a", "1"), ("a", "1.5")]:
        add(name, version)
    assert keys(scan(store)) == [("a", "1"), ("a", "1.5"), ("a", "2"), ("b", "1")]


def test_a_spec_knows_its_folder(store, add):
    folder = add("tiny", "3")
    (spec,) = scan(store).specs
    assert (spec.name, spec.version, spec.folder) == ("tiny", "3", str(folder))


def test_a_relative_store_gives_absolute_folders(store, add, monkeypatch):
    folder = add("tiny", "1")
    monkeypatch.chdir(store.parent)
    (spec,) = scan(store.relative_to(store.parent)).specs
    assert spec.folder == str(folder)


def test_an_empty_store_holds_nothing(store):
    store.mkdir()
    found = scan(store)
    assert (found.specs, found.broken) == ([], {})


def test_a_store_that_is_not_there_is_refused_by_its_path(store):
    with pytest.raises(SettingsError, match=str(store)):
        scan(store)


def test_a_store_that_is_a_file_is_refused(store):
    store.write_text("")
    with pytest.raises(SettingsError, match="Not a directory"):
        scan(store)


def test_a_version_without_its_file_is_still_being_written(store, add):
    folder = add("tiny", "1", toml=None)
    (folder / "model.pt").write_bytes(b"half")
    (folder / "model.toml.tmp").write_text(GOOD)
    found = scan(store)
    assert (found.specs, found.broken) == ([], {})


def test_a_folder_or_a_dead_link_in_place_of_the_file_is_no_version(store, add):
    (add("tiny", "1", toml=None) / "model.toml").mkdir()
    (add("tiny", "2", toml=None) / "model.toml").symlink_to("nowhere")
    assert keys(scan(store)) == []


def test_what_is_not_named_like_a_version_is_passed_over(store, add):
    for version in [".1", "1~", "1 ", "-old", "v1.part", "__pycache__"]:
        add("tiny", version)
    add("tiny", "1")
    found = scan(store)
    assert (keys(found), found.broken) == ([("tiny", "1")], {})


def test_a_version_may_be_a_word(store, add):
    for version in ["1.0-rc1", "2.0+cu118", "v2"]:
        add("tiny", version)
    assert keys(scan(store)) == [("tiny", "1.0-rc1"), ("tiny", "2.0+cu118"), ("tiny", "v2")]


def test_a_version_that_is_a_word_changes_the_signature_and_a_copy_being_made_does_not(store, add):
    add("tiny", "1")
    before = signature(store)
    add("tiny", "v2.tmp")
    add("tiny", ".v2")
    assert signature(store) == before
    add("tiny", "v2")
    assert len(signature(store)) == len(before) + 1


def test_hidden_folders_and_files_in_the_store_are_passed_over(store, add):
    add(".trash", "1")
    (store / "README.md").write_text("")
    (store / "tiny").mkdir()
    (store / "tiny" / "1").write_text("a file named like a version")
    found = scan(store)
    assert (found.specs, found.broken) == ([], {})


@pytest.mark.parametrize(
    ("toml", "reason"),
    [
        ("backend = ", "not TOML"),
        (b'backend = "\xff"', "not TOML"),
        (GOOD + GOOD, "not TOML"),
        (GOOD + "copies = " + "1" * 5000, "not TOML"),
        (GOOD + "inputs = " + "[" * 5000, "not TOML"),
        ("", "backend is missing"),
        (GOOD + "batch_dealy_ms = 1", "batch_dealy_ms is not known"),
        (GOOD + "batch_delay_ms = " + "1" * 400, "batch_delay_ms"),
        (GOOD + "response_timeout_s = nan", "response_timeout_s"),
        (GOOD + 'file = "gone.pt"', "file: there is no gone.pt"),
        (GOOD + 'file = "' + "x" * 300 + '"', "file: there is no xxx"),
        (GOOD + 'file = "a\\u0000b"', "file: there is no a"),
        (GOOD + 'processing = "gone.py"', "processing: there is no gone.py"),
    ],
)
def test_a_broken_version_is_named_with_its_reason_and_hides_no_other(store, add, toml, reason):
    folder = add("tiny", "1", toml)
    add("tiny", "2")
    found = scan(store)
    assert keys(found) == [("tiny", "2")]
    assert reason in found.broken["tiny", "1"]
    assert str(folder / "model.toml") in found.broken["tiny", "1"]


@pytest.mark.parametrize("name", ["my model", "-x", "x" * 129, "\udcff"])
def test_a_model_whose_folder_has_no_good_name_is_broken(store, add, name):
    add(name, "1")
    assert "is no name for a model" in scan(store).broken[name, "1"]


def test_a_version_may_be_a_link_and_keeps_the_links_name(store, add, tmp_path):
    target = tmp_path / "elsewhere"
    target.mkdir()
    (target / "model.toml").write_text(GOOD + 'file = "weights.pt"')
    (target / "weights.pt").write_bytes(b"")
    (store / "tiny").mkdir(parents=True)
    (store / "tiny" / "7").symlink_to(target)
    (spec,) = scan(store).specs
    assert (spec.key, spec.folder) == (("tiny", "7"), str(store / "tiny" / "7"))


def test_a_model_may_be_a_link_and_a_dead_link_is_no_model(store, add, tmp_path):
    add("tiny", "1")
    (store / "alias").symlink_to(store / "tiny")
    (store / "dead").symlink_to(tmp_path / "nowhere")
    (store / "loop").symlink_to(store / "loop")
    assert keys(scan(store)) == [("alias", "1"), ("tiny", "1")]


def test_one_version_can_be_read_by_itself(add):
    assert read_version(add("tiny", "1")).key == ("tiny", "1")


def test_a_version_that_is_gone_is_refused_by_its_path(store):
    with pytest.raises(SettingsError, match=r"tiny/1/model\.toml: No such file"):
        read_version(store / "tiny" / "1")


def test_a_model_whose_folder_cannot_be_read_does_not_hide_the_others():
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        for name in ("closed", "good"):
            (Path(folder) / name / "1").mkdir(parents=True)
            (Path(folder) / name / "1" / "model.toml").write_text(GOOD)
        (Path(folder) / "closed").chmod(0)
        root = os.geteuid() == 0
        if root:  # who may read everything
            os.seteuid(65534)
        try:
            found = scan(Path(folder))
        finally:
            if root:
                os.seteuid(0)
            (Path(folder) / "closed").chmod(0o755)
    assert keys(found) == [("good", "1")]
    assert "Permission denied" in found.broken[("closed", "0")]


# ---- a store that changes ----


def test_hidden_and_temporary_names_are_no_models(store, add):
    for name in (".hidden", "m.tmp", "m.part", "m.partial", "m~", ".m.swp"):
        add(name, "1", "not = [toml")
    add("m", ".1")
    add("m", "1.tmp")
    assert scan(store) == Found()


def test_a_version_that_disappears_between_listing_and_reading_is_not_there(store, add, monkeypatch):
    """Removed by whoever reads next: at the very moment at which its `model.toml` is about to be opened."""
    going, stays = add("m", "1"), add("m", "2")
    real = Path.open

    def removing(path, *args, **kwargs):
        if path.parent == going and going.exists():
            shutil.rmtree(going)
        return real(path, *args, **kwargs)

    monkeypatch.setattr(Path, "open", removing)
    found = scan(store)
    assert (keys(found), found.broken) == ([("m", "2")], {})
    assert stays.exists()


def test_a_model_that_disappears_before_its_versions_are_listed_is_not_there(store, add, monkeypatch):
    add("going", "1")
    add("stays", "1")
    real = Path.iterdir

    def removing(path):
        if path.name == "going":
            shutil.rmtree(path, ignore_errors=True)
        return real(path)

    monkeypatch.setattr(Path, "iterdir", removing)
    found = scan(store)
    assert (keys(found), found.broken) == ([("stays", "1")], {})


def test_a_version_without_a_file_that_it_names_is_broken_as_long_as_it_is_there(store, add):
    add("m", "1", GOOD + 'file = "weights.pt"\n')
    assert "there is no weights.pt" in scan(store).broken[("m", "1")]
