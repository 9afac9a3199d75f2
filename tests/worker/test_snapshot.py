"""Loading from a folder that changes: real files, changed at the right moment by the load itself."""

from __future__ import annotations

import gc
import os
import shutil
import threading
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest

from headway.errors import SettingsError
from headway_worker import snapshot
from headway_worker.snapshot import is_same, look, steady
from tests.worker.bench import DOUBLE, Bench, floats, request

OWN = os.geteuid()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "m" / "1"
    (made / "inner").mkdir(parents=True)
    for name in ("model.toml", "weights", "inner/more"):
        (made / name).write_text("text")
    return made


def replaced(path: Path, text: str) -> None:
    fresh = path.with_name(".fresh")
    fresh.write_text(text)
    fresh.rename(path)


CHANGES: dict[str, Callable[[Path], object]] = {
    "grows": lambda folder: (folder / "weights").open("a").write("more"),
    "is another of the same size and time": lambda folder: (
        replaced(folder / "weights", "othr"),
        os.utime(folder / "weights", ns=(1, 1)),
    ),
    "is written in place": lambda folder: os.utime(folder / "weights", ns=(2, 2)),
    "deep inside changes": lambda folder: (folder / "inner" / "more").write_text("text!"),
    "goes": lambda folder: (folder / "weights").unlink(),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_file_that_changes_is_noticed(folder: Path, change: str) -> None:
    os.utime(folder / "weights", ns=(1, 1))
    before = look(folder)
    assert is_same(before, look(folder), OWN)
    CHANGES[change](folder)
    assert not is_same(before, look(folder), OWN)


def test_what_loading_itself_may_write_is_no_change(folder: Path) -> None:
    (folder / "empty").touch()
    before = look(folder)
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "model.cpython-311.pyc").write_text("x")
    (folder / ".hidden").write_text("x")
    (folder / "cache").write_text("x")
    os.utime(folder / "empty", ns=(1, 1))
    after = look(folder)
    assert is_same(before, after, OWN)
    assert not is_same(before, after, OWN + 1), "it came from somebody else"


def test_what_a_link_leads_to_counts(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "blob").write_text("1")
    (folder / "linked").symlink_to(tmp_path / "blob")
    (folder / "dangling").symlink_to(tmp_path / "nothing")
    before = look(folder)
    assert "linked" in before
    (tmp_path / "blob").write_text("22")
    assert not is_same(before, look(folder), OWN)


def test_a_link_to_a_folder_above_does_not_go_on_for_ever(folder: Path) -> None:
    (folder / "up").symlink_to(folder)
    assert len(look(folder)) < 1000


def test_a_folder_with_too_many_files_is_looked_at_so_far(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot, "FILES_MAX", 2)
    assert list(look(folder)) == ["inner/more", "model.toml"]


@pytest.mark.parametrize(("remove", "said"), [("folder", "no folder"), ("model.toml", "no model.toml in")])
def test_what_is_not_there_at_first_is_named(folder: Path, remove: str, said: str) -> None:
    shutil.rmtree(folder) if remove == "folder" else (folder / remove).unlink()
    with pytest.raises(SettingsError, match=said):
        steady(folder, lambda: 1, lambda: None)


class Loads:
    """A load that does something to the folder at each try, and what became of it."""

    def __init__(self, *steps: Callable[[], object]) -> None:
        self.steps = list(steps)
        self.tries = 0
        self.drops = 0

    def load(self) -> str:
        self.tries += 1
        if self.steps:
            self.steps.pop(0)()
        return f"try {self.tries}"

    def drop(self) -> None:
        self.drops += 1


def test_a_folder_that_stays_as_it_is_is_loaded_once(folder: Path) -> None:
    loads = Loads()
    assert steady(folder, loads.load, loads.drop) == "try 1"
    assert (loads.tries, loads.drops) == (1, 0)


def test_a_folder_that_changed_once_is_loaded_again_from_the_beginning(folder: Path) -> None:
    loads = Loads(lambda: (folder / "weights").write_text("complete"))
    assert steady(folder, loads.load, loads.drop) == "try 2"
    assert (loads.tries, loads.drops) == (2, 1)


def test_a_load_that_failed_because_the_folder_changed_is_tried_again(folder: Path) -> None:
    def half() -> None:
        (folder / "weights").write_text("complete")
        raise ValueError("half a file")

    loads = Loads(half)
    assert steady(folder, loads.load, loads.drop) == "try 2"


def test_a_load_that_fails_by_itself_is_not_tried_again(folder: Path) -> None:
    def fails() -> None:
        raise KeyboardInterrupt("of the model's")

    loads = Loads(fails)
    with pytest.raises(KeyboardInterrupt, match="of the model's"):
        steady(folder, loads.load, loads.drop)
    assert (loads.tries, loads.drops) == (1, 0)


def test_a_folder_that_changes_at_every_try_is_refused(folder: Path) -> None:
    loads = Loads(*[lambda: (folder / "weights").open("a").write("more")] * 5)
    with pytest.raises(SettingsError, match="changed while it was loaded"):
        steady(folder, loads.load, loads.drop)
    assert (loads.tries, loads.drops) == (2, 2)


@pytest.mark.parametrize("name", ["", "model.toml"])
def test_a_folder_that_disappears_is_refused_at_once(folder: Path, name: str) -> None:
    def remove() -> None:
        (folder / name).unlink() if name else shutil.rmtree(folder)

    loads = Loads(remove)
    with pytest.raises(SettingsError, match="disappeared while it was loaded"):
        steady(folder, loads.load, loads.drop)
    assert (loads.tries, loads.drops) == (1, 1)


def test_neither_what_was_dropped_nor_what_failed_is_kept_alive(folder: Path) -> None:
    class Model:
        pass

    seen: list[weakref.ref[Model]] = []
    alive_at_drop: list[bool] = []

    def load() -> Model:
        model = Model()
        seen.append(weakref.ref(model))
        (folder / "weights").open("a").write("more")
        if len(seen) == 2:
            raise ValueError(str(model))
        return model

    gc.disable()
    try:
        with pytest.raises(SettingsError, match="changed"):
            steady(folder, load, lambda: alive_at_drop.append(seen[-1]() is not None))
    finally:
        gc.enable()
    assert alive_at_drop == [False, False]


# ---- through the runner ----

REWRITES = """
from pathlib import Path
class Model:
    def __init__(self):
        weights = Path(__file__).with_name("weights")
        self.factor = len(weights.read_text())
        if self.factor < {complete}:
            with weights.open("a") as file: file.write("x")
    def infer(self, x):
        return x * self.factor
"""


def test_a_version_that_is_completed_while_it_loads_is_loaded_complete(bench: Bench) -> None:
    folder = bench.write(model=REWRITES.format(complete=2))
    (folder / "weights").write_text("x")
    assert bench.load().state == "ready"
    [outputs] = bench.outputs(request(x=floats(1, 2)))
    assert outputs["y"].tolist() == [2, 4]
    assert (folder / "weights").read_text() == "xx"


def test_a_version_that_changes_all_the_time_fails_with_the_reason_and_is_not_there(bench: Bench) -> None:
    folder = bench.write(model=REWRITES.format(complete=1000))
    (folder / "weights").write_text("x")
    copy = bench.load()
    assert copy.state == "failed"
    assert "changed while it was loaded" in copy.detail
    assert "SettingsError" in copy.detail
    assert not bench.runner._loaded


VANISHES = """
import shutil
from pathlib import Path
class Model:
    def __init__(self):
        shutil.rmtree(Path(__file__).parent)
    def infer(self, x):
        return x
"""


def test_a_version_whose_folder_disappears_while_it_loads_fails_with_the_reason(bench: Bench) -> None:
    bench.write(model=VANISHES)
    copy = bench.load()
    assert copy.state == "failed"
    assert "disappeared while it was loaded" in copy.detail
    assert not bench.runner._loaded
    bench.write(model=DOUBLE)
    assert bench.load().state == "ready", "and when it is there again it loads"


def test_a_version_that_another_replaces_while_it_loads_is_loaded_as_one_of_the_two(bench: Bench) -> None:
    """A writer in another thread replaces the files, one after the other, while the model reads them
    slowly."""
    slow = """
import time
from pathlib import Path
class Model:
    def __init__(self):
        here = Path(__file__).parent
        a = (here / "a").read_text(); time.sleep(0.2); b = (here / "b").read_text()
        assert a == b, f"half of {a} and half of {b}"
    def infer(self, x):
        return x
"""
    folder = bench.write(model=slow)
    for name in "ab":
        (folder / name).write_text("old")

    def write() -> None:
        for name in "ab":
            replaced(folder / name, "new")

    writer = threading.Timer(0.1, write)
    writer.start()
    assert bench.load(folder=folder).state == "ready"
    writer.join()
