"""The run directory of a server that speaks TorchServe: made anew at each start, and gone after it.

Knows: files and their rights. Must not know: processes.
"""

from __future__ import annotations

import dataclasses
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from os import geteuid, path
from pathlib import Path

from headway import locks
from headway.cli.rundir import check_run_dir
from headway.errors import SettingsError
from headway.settings import Shared, default_run_dir
from headway.torchserve.registration import remove_all

STORE, STATE = "store", "state"
MADE = ".torchserve-made"  # a server made the folder: if that is killed, a later one takes it away
_INNER = (STORE, STATE)
_LOCKS = ("broker.lock", "agent.lock")


def shared_for(shared: Shared, port: int) -> Shared:
    """The settings with a run directory of this server's own, unless one was named; what it was ordered is
    forgotten at its end, so that is in there too."""
    run_dir = shared.run_dir
    if run_dir == default_run_dir():
        run_dir = run_dir.with_name(f"{run_dir.name}-torchserve-{port}")
    run_dir = Path.cwd() / run_dir
    return dataclasses.replace(shared, run_dir=run_dir, state_dir=run_dir / STATE)


def has_owner(shared: Shared) -> bool:
    """Whether broker or agent of a server still run in its run directory."""
    return any(locks.is_held(shared.run_dir / name) for name in _LOCKS)


@contextmanager
def fresh(shared: Shared) -> Iterator[Path]:
    """Makes the run directory, or what is ours in it, anew; gives the store's folder. Raises: SettingsError
    for one that is in use, or not ours alone."""
    check_run_dir(shared)
    folder = shared.run_dir
    made = not path.lexists(folder) or path.lexists(folder / MADE)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check(folder)
        if made:
            (folder / MADE).touch()
        _clear(folder)
        for name in _INNER:
            (folder / name).mkdir(mode=0o700)
    except OSError as error:
        raise SettingsError(f"run_dir: cannot make {folder}: {error.strerror}") from None
    try:
        yield folder / STORE
    finally:
        if made or folder.name.startswith(f"{default_run_dir().name}-torchserve-"):
            shutil.rmtree(folder, ignore_errors=True)
        else:
            _clear(folder)


def _check(folder: Path) -> None:
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != geteuid() or found.st_mode & 0o022:
        raise SettingsError(f"run_dir: {folder} is not a folder that only you can write to; remove it")
    if locks.is_held(folder / "broker.lock"):
        raise SettingsError(f"run_dir: a broker runs in {folder}; name another one in HEADWAY_RUN_DIR")


def _clear(folder: Path) -> None:
    with suppress(OSError, SettingsError):  # what a server that was killed had made elsewhere, too
        remove_all(folder / STORE)
    for name in _INNER:
        if path.lexists(folder / name):
            shutil.rmtree(folder / name)
