"""An archive of TorchServe's as a folder: `.mar`, `.tar.gz`, or a folder already.

Knows: the formats, by their first bytes. Must not know: what handlers are, models.

What is packed is unpacked into a private temporary folder, which `close` removes. A folder is used where it
is, and never written to by Headway.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from headway.torchserve.manifest import Manifest, read_manifest
from headway.torchserve.peek import FOLDER, ZIP, kind_of, stem_of
from headway_worker.torchserve.extract import limits_for, untar, unzip
from headway_worker.torchserve.scratch import Scratch


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
    name, kind = stem_of(path.name), kind_of(path)
    if kind == FOLDER:
        folder = path.resolve()
        return Archive(folder, kind, read_manifest(folder, name))
    scratch = Scratch()
    try:
        unpack = unzip if kind == ZIP else untar
        unpack(path, scratch.path, limits_for(path, scratch.path, bytes_max))
        return Archive(scratch.path, kind, read_manifest(scratch.path, name), scratch)
    except BaseException:
        scratch.close()
        raise
