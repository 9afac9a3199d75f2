"""What an archive's code finds while it runs, and what everybody else finds."""

from __future__ import annotations

import importlib
import json
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from headway_worker.torchserve.modules import Modules


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    found = (tmp_path / "archive").resolve()
    found.mkdir()
    before = list(sys.path), list(sys.meta_path), list(sys.modules), Path.cwd()
    yield found
    assert (sys.path, sys.meta_path, Path.cwd()) == (before[0], before[1], before[3])
    assert not {name for name in set(sys.modules) - set(before[2]) if not name.startswith("headway_worker")}


def write(folder: Path, **files: str) -> Modules:
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    return Modules(folder)


def test_modules_are_there_inside_and_gone_outside(folder: Path) -> None:
    modules = write(folder, mine="X = 1\n")
    with modules.entered():
        mine = importlib.import_module("mine")
        assert sys.modules["mine"] is mine
    assert "mine" not in sys.modules
    with modules.entered():
        assert importlib.import_module("mine") is mine
    modules.forget()
    with modules.entered():
        assert importlib.import_module("mine") is not mine


def test_an_exception_leaves_everything_as_it_was(folder: Path) -> None:
    modules = write(folder, mine="raise ValueError('mine')\n")
    with pytest.raises(ValueError, match="mine"), modules.entered():
        importlib.import_module("mine")


def test_what_is_outside_is_put_aside_with_its_parts(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs, part = ModuleType("shared"), ModuleType("shared.part")
    monkeypatch.setitem(sys.modules, "shared", theirs)
    monkeypatch.setitem(sys.modules, "shared.part", part)
    (folder / "shared").mkdir()
    (folder / "shared" / "__init__.py").write_text("")
    modules = Modules(folder)
    with modules.entered():
        assert importlib.import_module("shared").__file__ == str(folder / "shared" / "__init__.py")
        with pytest.raises(ModuleNotFoundError):
            importlib.import_module("shared.part")
    assert (sys.modules["shared"], sys.modules["shared.part"]) == (theirs, part)


def test_a_folder_of_data_does_not_hide_a_package_of_its_name(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = ModuleType("tokens")
    monkeypatch.setitem(sys.modules, "tokens", theirs)
    (folder / "tokens").mkdir()
    with Modules(folder).entered():
        assert importlib.import_module("tokens") is theirs


def test_a_folder_of_modules_needs_no_init(folder: Path) -> None:
    (folder / "parts").mkdir()
    (folder / "parts" / "one.py").write_text("X = 1\n")
    modules = Modules(folder)
    with modules.entered():
        assert importlib.import_module("parts.one").X == 1
    assert not {"parts", "parts.one"} & set(sys.modules)


def test_the_standard_library_is_not_replaced(folder: Path) -> None:
    with write(folder, json="X = 1\n").entered():
        assert importlib.import_module("json") is json
    assert sys.modules["json"] is json


def test_paths_that_a_handler_adds_for_its_own_folders_stay_its_own(folder: Path) -> None:
    (folder / "inner").mkdir()
    (folder / "inner" / "deep.py").write_text("X = 2\n")
    modules = write(folder, mine=f"import sys\nsys.path.append({str(folder / 'inner')!r})\n")
    with modules.entered():
        importlib.import_module("mine")
    assert str(folder / "inner") not in sys.path
    with modules.entered():
        assert importlib.import_module("deep").X == 2
    assert "deep" not in sys.modules


def test_a_thread_that_runs_meanwhile_imports_too_and_others_keep_their_working_folder(folder: Path) -> None:
    modules, seen = write(folder, mine="X = 1\n"), list[object]()
    ready, go = threading.Event(), threading.Event()
    before = Path.cwd()

    def other() -> None:
        ready.set()
        go.wait(5)
        seen.append(str(Path.cwd()))

    stranger = threading.Thread(target=other)
    stranger.start()
    ready.wait(5)

    def runner() -> None:
        with modules.entered():
            assert Path.cwd() == folder
            mine = threading.Thread(target=lambda: seen.append(importlib.import_module("mine").X))
            mine.start()
            mine.join()
            go.set()
            stranger.join()
        assert Path.cwd() == before

    thread = threading.Thread(target=runner)
    thread.start()
    thread.join(10)
    assert seen == [1, str(before)]


def test_ts_is_headways_own_module_once(folder: Path) -> None:
    from headway_worker.torchserve.ts.utils import util

    modules = Modules(folder)
    with modules.entered():
        assert importlib.import_module("ts.utils.util") is util
        assert importlib.import_module("ts").__version__ == "0.12.0"
        for missing in ("ts.nothing", "ts.torch_handler.nothing", "ts.nothing.more"):
            with pytest.raises(ModuleNotFoundError) as refused:
                importlib.import_module(missing)
            assert str(refused.value.name).startswith("ts.")
    assert util.__name__ == "headway_worker.torchserve.ts.utils.util"
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("ts")


def test_another_package_called_ts_is_not_seen_by_archives_and_not_harmed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = ModuleType("ts")
    monkeypatch.setitem(sys.modules, "ts", theirs)
    with Modules(folder).entered():
        assert importlib.import_module("ts") is not theirs
    assert sys.modules["ts"] is theirs


def test_packages_of_its_own_are_the_archives_alone(folder: Path, tmp_path: Path) -> None:
    packages = (tmp_path / "packages").resolve()
    (packages / "required").mkdir(parents=True)
    (packages / "required" / "__init__.py").write_text("FROM = 'packages'\n")
    (packages / "both.py").write_text("FROM = 'packages'\n")
    (folder / "both.py").write_text("FROM = 'archive'\n")
    modules = Modules(folder, [packages])
    with modules.entered():
        required = importlib.import_module("required")
        assert (required.FROM, importlib.import_module("both").FROM) == ("packages", "archive")
        assert sys.path[:2] == [str(folder), str(packages)]
    assert not {"required", "both"} & sys.modules.keys()
    with modules.entered():
        assert importlib.import_module("required") is required
