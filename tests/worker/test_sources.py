"""A model's Python files as modules of their own."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from headway.errors import SettingsError
from headway_worker.sources import forget, import_file, package_name


def test_files_of_one_folder_are_imported_once_and_forgotten_together(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("from . import b\n")
    (tmp_path / "b.py").write_text("LIST = []\n")
    before, path = set(sys.modules), list(sys.path)
    assert import_file(tmp_path, "a.py").b is import_file(tmp_path, "b.py")
    assert sys.path == path
    forget(tmp_path)
    assert set(sys.modules) == before


def test_folders_of_one_name_do_not_meet(tmp_path: Path) -> None:
    for parent in ("p", "q"):
        folder = tmp_path / parent / "m" / "1"
        folder.mkdir(parents=True)
        (folder / "a.py").write_text(f"P = {parent!r}\n")
    folders = [tmp_path / parent / "m" / "1" for parent in ("p", "q")]
    assert [import_file(folder, "a.py").P for folder in folders] == ["p", "q"]
    for folder in folders:
        forget(folder)


def test_a_package_has_a_readable_name() -> None:
    assert package_name(Path("/store/resnet-50/1.2")).startswith("headway_model_resnet_50_1_2_")


@pytest.mark.parametrize("file", ["model.pt", "my-model.py", "a.b.py", "../x.py", "a//b.py", ".py"])
def test_what_cannot_be_a_module_is_refused(tmp_path: Path, file: str) -> None:
    with pytest.raises(SettingsError, match="is not the path of a Python module"):
        import_file(tmp_path, file)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"there is no model\.py in"):
        import_file(tmp_path, "model.py")
