"""Where a version's files are on this host, and what its `model.toml` says.

Knows: the layout of a store, the order to load. Must not know: models, what is done with the files.

Workers on the broker's host read the folder that the broker names. One on another host has a store of its
own, with the same files (`model_store`), and finds NAME/VERSION there.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from headway.errors import SettingsError
from headway.messages import Load
from headway.models import NAME, ModelSpec, is_version
from headway.store import read_version


def folder_of(order: Load, store: Path | None) -> Path:
    """The version's folder; `store` None: as the broker says. Raises: SettingsError where it is not there."""
    if store is None:
        return Path(order.folder)
    if not NAME.fullmatch(order.model) or not is_version(order.version):
        raise SettingsError(f"{order.model!r} version {order.version!r} cannot be in a store")
    folder = store / order.model / order.version
    if not folder.is_dir():
        raise SettingsError(f"model_store: there is no {folder} on this host; the broker has {order.folder}")
    return folder


def spec_of(order: Load, folder: Path) -> ModelSpec:
    """The version's spec, under the broker's names: its folder may be a link to one of another name.

    Raises: SettingsError naming the file and the key.
    """
    return replace(read_version(folder), name=order.model, version=order.version)
