"""Orders and token on the disk."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from headway.errors import SettingsError
from headway_broker.desired import Desired
from headway_broker.statefile import StateFile, make_state_dir, token_in

STORE = Path("models")


def orders(default: str) -> Desired:
    desired = Desired()
    desired.of("m").default = default
    return desired


@pytest.fixture
def state(tmp_path: Path) -> StateFile:
    return StateFile(tmp_path, STORE)


def test_the_first_start_finds_no_orders_and_nothing_wrong(state: StateFile) -> None:
    assert state.read() == (Desired(), "")


def test_what_was_written_last_is_read(state: StateFile) -> None:
    for default in ("1", "2"):
        state.write(orders(default).document())
    assert state.read() == (orders("2"), "")


@pytest.mark.parametrize("spoil", ["", "{", '{"orders": "{}", "sha256": "0"}', "[1]", "\0" * 100])
def test_a_corrupt_file_is_put_aside_and_the_last_good_one_counts(state: StateFile, spoil: str) -> None:
    state.write(orders("1").document())
    state.write(orders("2").document())
    state.path.write_text(spoil)
    found, problem = state.read()
    assert found == orders("1")
    assert str(state.path) in problem and ".last are used" in problem
    assert state.path.with_suffix(".json.corrupt").exists()
    state.write(orders("3").document())
    assert state.read() == (orders("3"), "")


def test_one_changed_character_is_noticed(state: StateFile) -> None:
    state.write(orders("1").document())
    state.path.write_text(state.path.read_text().replace("format", "fromat"))
    assert "checksum" in state.read()[1]


def test_without_any_good_file_the_broker_starts_with_defaults_and_says_so(state: StateFile) -> None:
    state.write(orders("1").document())
    state.path.write_text("x")
    found, problem = state.read()
    assert found == Desired() and "defaults are used" in problem


def test_a_crash_between_the_two_renames_loses_nothing(state: StateFile) -> None:
    state.write(orders("1").document())
    state.path.rename(state.path.with_suffix(".last"))
    assert state.read() == (orders("1"), "")


def test_each_store_has_its_own_orders(tmp_path: Path) -> None:
    StateFile(tmp_path, Path("a")).write(orders("1").document())
    assert StateFile(tmp_path, Path("b")).read() == (Desired(), "")


def test_the_file_says_which_store_it_is_for_and_is_not_for_everybody(state: StateFile) -> None:
    state.write(orders("1").document())
    assert json.loads(state.path.read_text())["model_store"] == str(STORE.absolute())
    assert not stat.S_IMODE(state.path.stat().st_mode) & 0o007


def test_the_token_is_made_once_and_kept(tmp_path: Path) -> None:
    token = token_in(tmp_path)
    assert len(token) > 30 and token_in(tmp_path) == token
    assert not stat.S_IMODE((tmp_path / "token").stat().st_mode) & 0o007


def test_a_token_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("short\n")
    with pytest.raises(SettingsError, match="16 to 128"):
        token_in(tmp_path)


def test_a_state_dir_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="state_dir"):
        make_state_dir(tmp_path / "file" / "state")
    make_state_dir(tmp_path / "new" / "state")
    assert os.access(tmp_path / "new" / "state", os.W_OK)


KILLED = """
import os, sys
from pathlib import Path
from headway_broker.statefile import StateFile, token_in
folder, left, what = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
state = StateFile(folder, Path("models"))
document = {"format": 1, "hosts": {}, "models": {"m": {"default": "2", "weights": {}, "copies": {},
            "unregistered": [], "serving": {}}}}

def step(event, arguments):
    global left
    if event in ("open", "os.rename", "os.link", "os.remove") and str(folder) in str(arguments[0]):
        left -= 1
        if left < 0:
            os._exit(9)

sys.addaudithook(step)
state.write(document) if what == "orders" else token_in(folder)
"""


def killed_at(folder: Path, step: int, what: str) -> bool:
    """Another process does it and is killed before that step. False: there are no more steps."""
    command = [sys.executable, "-c", KILLED, str(folder), str(step), what]
    return subprocess.run(command, cwd=Path.cwd(), check=False, timeout=60).returncode == 9


def test_a_process_that_is_killed_at_any_step_leaves_the_old_orders_or_the_new_ones(tmp_path: Path) -> None:
    seen = []
    for step in range(20):
        folder = tmp_path / str(step)
        folder.mkdir()
        StateFile(folder, STORE).write(orders("1").document())
        going_on = killed_at(folder, step, "orders")
        found, problem = StateFile(folder, STORE).read()
        assert problem == ""
        seen.append(found.models["m"].default)
        StateFile(folder, STORE).write(orders("3").document())
        assert StateFile(folder, STORE).read() == (orders("3"), "")
        if not going_on:
            break
    assert len(seen) >= 4 and seen[0] == "1" and seen[-1] == "2" and seen == sorted(seen)


def test_a_process_that_is_killed_while_it_makes_the_token_leaves_a_whole_one_or_none(tmp_path: Path) -> None:
    for step in range(20):
        folder = tmp_path / str(step)
        folder.mkdir()
        going_on = killed_at(folder, step, "token")
        assert len(token_in(folder)) > 30
        if not going_on:
            break
    assert step >= 3


def test_a_full_disk_is_an_error_and_leaves_the_last_orders(state: StateFile) -> None:
    state.write(orders("1").document())
    new = state.path.with_suffix(".new")
    new.symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        state.write(orders("2").document())
    assert state.read() == (orders("1"), "")
    new.unlink()
    state.write(orders("2").document())
    assert state.read() == (orders("2"), "")


def test_a_state_dir_that_went_away_is_an_error(tmp_path: Path) -> None:
    state = StateFile(tmp_path / "gone", STORE)
    with pytest.raises(OSError):
        state.write(orders("1").document())
    with pytest.raises(SettingsError, match="cannot be read or made"):
        token_in(tmp_path / "gone")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_state_dir_that_may_only_be_read_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(SettingsError, match="cannot write"):
        make_state_dir(tmp_path)
    tmp_path.chmod(0o700)


def test_a_token_of_bytes_that_are_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "token").write_bytes(bytes([255]) * 32)
    with pytest.raises(SettingsError, match="token"):
        token_in(tmp_path)
