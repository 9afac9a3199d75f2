"""Loading from a folder that somebody may be writing to: what is loaded is one state of it, or nothing.

Knows: which files a version's folder has, by their size, time and inode. Must not know: what is in them,
models.

A look before and a look after tell whether the folder changed meanwhile, whatever it was that changed it. A
load that it changed under is done once more, from the beginning: the writer may just have finished.

What loading itself may write does not count: hidden files, `__pycache__`, the times of folders, and files
that come and are the worker's own user's, such as a model's cache or log. (A version is complete before its
`model.toml` is there, so what comes later is no part of it. What comes from somebody else tells that this
was not heeded.)
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from headway.errors import SettingsError
from headway.store import MODEL_FILE

TRIES = 2
FILES_MAX = 20_000  # a folder with more is looked at that far, in the order of names
DEPTH_MAX = 32
NOT_MODELS = "__pycache__"
T = TypeVar("T")

Facts = tuple[int, int, int, int]  # size, time in ns, inode, owner
Look = dict[str, Facts]  # by path


def steady(folder: Path, load: Callable[[], T], drop: Callable[[], None]) -> T:
    """What `load` makes of a folder that was one and the same all the while. `drop` lets go of what it
    made, or began to make, of one that was not.

    Raises: SettingsError when the folder disappears, or changes at every try; else what `load` raises.
    """
    for _ in range(TRIES):
        before = look(folder)
        made, error = _tried(load)
        after = look_or_none(folder)
        if after is not None and is_same(before, after, os.geteuid()):
            if made:
                return made[0]
            try:
                raise error or AssertionError("a load returns or raises")
            finally:
                del error  # whose frames hold the model, and this one
        del made, error
        drop()
        if after is None:
            raise SettingsError(f"the folder {folder} disappeared while it was loaded")
    raise SettingsError(
        f"the folder {folder} changed while it was loaded, {TRIES} times: load it when it is complete"
    )


def is_same(before: Look, after: Look, own: int) -> bool:
    """Whether nothing changed or went, and nothing came but files of the user `own`."""
    came = [facts for path, facts in after.items() if path not in before]
    kept = {path: facts for path, facts in after.items() if path in before}
    return kept == before and all(facts[-1] == own for facts in came)


def look(folder: Path) -> Look:
    """The folder's files as they are. Raises: SettingsError where it, or its `model.toml`, is not there."""
    try:
        names = os.listdir(folder)  # noqa: PTH208  (a Path's own raises only when it is iterated)
    except OSError as error:
        raise SettingsError(f"there is no folder {folder}: {error.strerror}") from None
    if MODEL_FILE not in names:
        raise SettingsError(f"there is no {MODEL_FILE} in {folder}: the version is not complete, or is going")
    found: Look = {}
    for path, facts in _files(str(folder), "", 0):
        found[path] = facts
        if len(found) >= FILES_MAX:
            break
    return found


def look_or_none(folder: Path) -> Look | None:
    """As `look`; None where it is not there any more."""
    try:
        return look(folder)
    except SettingsError:
        return None


def _tried(load: Callable[[], T]) -> tuple[list[T] | None, BaseException | None]:
    try:
        return [load()], None
    except BaseException as error:
        return None, error


def _files(folder: str, inner: str, depth: int) -> Iterator[tuple[str, Facts]]:
    """The files below, links followed. What disappears during the walk is not there."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        return
    for entry in entries:
        if entry.name.startswith(".") or entry.name == NOT_MODELS:
            continue
        try:
            facts = entry.stat()
        except OSError:  # gone, or a link to nothing
            continue
        if not stat.S_ISDIR(facts.st_mode):
            yield f"{inner}{entry.name}", _facts(facts)
        elif depth < DEPTH_MAX:
            yield from _files(entry.path, f"{inner}{entry.name}/", depth + 1)


def _facts(found: os.stat_result) -> Facts:
    if not found.st_size:  # always the same: somebody may touch it
        return 0, 0, 0, found.st_uid
    return found.st_size, found.st_mtime_ns, found.st_ino, found.st_uid
