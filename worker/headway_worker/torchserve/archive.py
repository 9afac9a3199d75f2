"""An archive of TorchServe's as a folder: `.mar`, `.tar.gz`, or a folder already.

Knows: the formats, by their first bytes. Must not know: what handlers are, models.

What is packed is unpacked into a private temporary folder, which `close` removes. A folder is used where it
is, and never written to by Headway.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from headway.errors import SettingsError
from headway.torchserve.manifest import Manifest, read_manifest
from headway_worker.torchserve.extract import limits_for, untar, unzip
from headway_worker.torchserve.scratch import Scratch

_ZIP = (b"PK\x03\x04", b"PK\x05\x06")  # the second: one without members
_GZIP = b"\x1f\x8b"


@dataclass
class Archive:
    """`folder` is absolute and without links in its own path; `kind` is zip, tar.gz or folder."""

    folder: Path
    kind: str
    manifest: Manifest
    _scratch: Scratch | None = None

    def close(self) -> None:
        """Remove what was unpacked."""
        if self._scratch:
            self._scratch.close()


def open_archive(path: Path, bytes_max: int = 0) -> Archive:
    """Raises: SettingsError naming the file, the member or the key that is wrong."""
    name = _stem(path.name)
    if path.is_dir():
        folder = path.resolve()
        return Archive(folder, "folder", read_manifest(folder, name))
    kind, scratch = _kind(path), Scratch()
    try:
        unpack = unzip if kind == "zip" else untar
        unpack(path, scratch.path, limits_for(path, scratch.path, bytes_max))
        return Archive(scratch.path, kind, read_manifest(scratch.path, name), scratch)
    except BaseException:
        scratch.close()
        raise


def _kind(path: Path) -> str:
    try:
        with path.open("rb") as file:
            start = file.read(4)
    except OSError as error:
        raise SettingsError(f"file: {path.name}: {os.strerror(error.errno or 0)}") from None
    if start in _ZIP:
        return "zip"
    if start.startswith(_GZIP):
        return "tar.gz"
    raise SettingsError(f"file: {path.name} is no TorchServe archive: not a zip file, a tar.gz or a folder")


def _stem(name: str) -> str:
    for ending in (".tar.gz", ".tgz", ".mar", ".zip"):
        if name.lower().endswith(ending):
            return name[: -len(ending)]
    return name
