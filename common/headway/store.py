"""The model store: folders `NAME/VERSION/` with a `model.toml` in each.

Knows: the layout on disk.
Must not know: what a backend does with the files, which versions are loaded where.

A version is complete when its `model.toml` is there: write that file last. Names that are hidden, or that a
copy still being made has (TEMPORARY), are not looked at. What disappears during a scan was not there.
"""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

from headway.errors import SettingsError
from headway.models import TEMPORARY, ModelSpec, is_version, parse_model

MODEL_FILE = "model.toml"


@dataclass
class Found:
    """What a scan found: good versions, and the reason for each that is not.

    `broken` maps (name, version) to the reason, so that a caller who asks for it learns more than 404. A
    model whose folder cannot be read is there as version "0".
    """

    specs: list[ModelSpec] = field(default_factory=list)
    broken: dict[tuple[str, str], str] = field(default_factory=dict)


def scan(store: Path) -> Found:
    """Every version in the store. Raises: SettingsError when the store itself cannot be read."""
    found = Found()
    try:
        models = sorted(p for p in store.iterdir() if _may_be_a_model(p))
    except OSError as error:
        raise SettingsError(f"model store {store}: {error.strerror}") from None
    for model in models:
        try:
            versions = [folder for folder in sorted(model.iterdir()) if _is_version(folder)]
        except FileNotFoundError:
            continue
        except OSError as error:
            found.broken[(model.name, "0")] = f"{model}: {error.strerror}"
            continue
        for folder in versions:
            _read_into(found, folder)
    return found


def signature(store: Path) -> tuple[tuple[str, int, int, int], ...]:
    """What changes when a version comes, goes, or gets another `model.toml`; empty for a store that cannot be
    read."""
    seen: list[tuple[str, int, int, int]] = []
    for path in sorted(store.glob(f"[!.]*/[!.]*/{MODEL_FILE}")):
        if not is_version(path.parent.name):
            continue
        try:
            found = path.stat()
        except OSError:  # it went meanwhile
            continue
        seen.append((str(path), found.st_ino, found.st_size, found.st_mtime_ns))
    return tuple(seen)


def _read_into(found: Found, folder: Path) -> None:
    try:
        found.specs.append(read_version(folder))
    except SettingsError as error:
        if _is_version(folder):
            found.broken[(folder.parent.name, folder.name)] = str(error)


def read_version(folder: Path) -> ModelSpec:
    """The spec of one version's folder. Raises: SettingsError naming the file and the key."""
    path = folder / MODEL_FILE
    try:
        with path.open("rb") as file:
            table = tomllib.load(file)
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:  # not UTF-8, not TOML, 5,000 digits, 3,000 brackets
        raise SettingsError(f"{path}: not TOML: {error}") from None
    try:
        spec = parse_model(table, folder.parent.name, folder.name, str(folder.absolute()))
    except SettingsError as error:
        raise SettingsError(f"{path}: {error}") from None
    _check_files(spec, folder)
    return spec


def _check_files(spec: ModelSpec, folder: Path) -> None:
    for key in ("file", "processing"):
        name = getattr(spec, key)
        if name and not os.path.exists(folder / name):  # noqa: PTH110  a Path raises for a name too long
            raise SettingsError(f"{folder / MODEL_FILE}: {key}: there is no {name} in {folder}")


def _may_be_a_model(folder: Path) -> bool:
    return not folder.name.startswith(".") and not folder.name.endswith(TEMPORARY) and folder.is_dir()


def _is_version(folder: Path) -> bool:
    return is_version(folder.name) and (folder / MODEL_FILE).is_file()
