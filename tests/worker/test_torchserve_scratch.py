"""Temporary folders that end with their owner."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from headway_worker.torchserve.scratch import PREFIX, Scratch, sweep


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_a_folder_is_private_and_goes_when_it_is_closed() -> None:
    scratch = Scratch()
    assert scratch.path.stat().st_mode & 0o777 == 0o700
    (scratch.path / "a").mkdir()
    scratch.close()
    scratch.close()
    assert not scratch.path.exists()


def test_a_sweep_takes_what_nobody_holds_and_nothing_else(here: Path) -> None:
    held, abandoned, others = Scratch(), here / f"{PREFIX}x", here / "something"
    for folder in (abandoned, others):
        folder.mkdir()
        (folder / "file").write_text("x")
    (here / f"{PREFIX}link").symlink_to(others)
    (here / f"{PREFIX}file").write_text("x")
    sweep()
    assert held.path.is_dir()
    assert not abandoned.exists()
    assert (others / "file").is_file()
    held.close()


def run(code: str, here: Path) -> subprocess.CompletedProcess[str]:
    code = f"import os, signal\nfrom headway_worker.torchserve.scratch import Scratch\ns = Scratch()\n{code}"
    return subprocess.run(
        [sys.executable, "-c", code],
        env={"TMPDIR": str(here), "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_process_that_ends_takes_its_folder_along(here: Path) -> None:
    assert run("raise SystemExit(3)", here).returncode == 3
    assert list(here.iterdir()) == []


def test_of_a_process_that_is_killed_the_next_one_removes_it(here: Path) -> None:
    assert run("os.kill(os.getpid(), signal.SIGKILL)", here).returncode == -9
    [left] = here.iterdir()
    run("", here)
    assert not left.exists()


def test_a_forked_child_leaves_its_parents_folder_alone(here: Path) -> None:
    code = "if os.fork() == 0:\n    raise SystemExit\nos.wait()\nprint(s.path.is_dir())"
    assert run(code, here).stdout == "True\n"
    assert list(here.iterdir()) == []
