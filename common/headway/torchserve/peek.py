"""What an archive says of itself, read without unpacking it.

Knows: zip files, gzipped tars and folders, where in them manifest and configuration are. Must not know: what
is done with them.

Only these two files are read, bounded by their own limits, and of a zip file what members it has. A gzipped
tar has no table: it is read through, but no further than to what is asked for, and no more than an archive of
its size may have unpacked.
"""

from __future__ import annotations

import gzip
import json
import os
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headway.errors import SettingsError
from headway.torchserve import config as configs
from headway.torchserve import manifest as manifests
from headway.torchserve.config import Config, parse_config
from headway.torchserve.manifest import Manifest, parse_manifest
from headway.torchserve.members import check_zip, unpacked_bytes_max
from headway.torchserve.yamltext import load_yaml

ZIP, TAR_GZ, FOLDER = "zip", "tar.gz", "folder"
_ZIP_STARTS = (b"PK\x03\x04", b"PK\x05\x06")  # the second: one without members
_GZIP_START = b"\x1f\x8b"
# What broken archives make the standard library raise.
BROKEN = (zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError, NotImplementedError)


@dataclass(frozen=True)
class Peeked:
    """`has_manifest`: it came with one (else name and version are defaults)."""

    manifest: Manifest
    config: Config = field(default_factory=Config)
    has_manifest: bool = True


def peek(path: Path) -> Peeked:
    """Raises: Refused for what is not to be unpacked; SettingsError naming what else is wrong: the file, its
    manifest, its configuration."""
    name = stem_of(path.name)
    if kind_of(path) == ZIP:
        with _named_if_broken(path, ZIP):
            check_zip(path)
    said = _limited(path, manifests.FILE, manifests.SIZE_BYTES_MAX)
    manifest = parse_manifest({} if said is None else _json(said), name)
    file = manifest.config_file
    if not file:
        return Peeked(manifest, has_manifest=said is not None)
    content = _limited(path, file, configs.SIZE_BYTES_MAX)
    if content is None:
        raise SettingsError(f"configFile: {file} is not in the archive")
    return Peeked(manifest, parse_config(load_yaml(content, file), file))


def member(path: Path, name: str, most: int) -> bytes | None:
    """The first `most` bytes of a file in the archive, None where it has none. Raises: SettingsError for an
    archive that is broken."""
    kind = kind_of(path)
    read = {ZIP: _in_zip, TAR_GZ: _in_tar, FOLDER: _in_folder}[kind]
    with _named_if_broken(path, kind):
        return read(path, name, most)


@contextmanager
def _named_if_broken(path: Path, kind: str) -> Iterator[None]:
    try:
        yield
    except (*BROKEN, RuntimeError) as error:  # the last: a member is encrypted
        raise SettingsError(f"{path.name} is a broken {kind} file: {error}") from None
    except OSError as error:
        raise SettingsError(f"{path.name}: {error.strerror or error}") from None


def kind_of(path: Path) -> str:
    """What it is, by its first bytes. Raises: SettingsError for what is no archive."""
    if path.is_dir():
        return FOLDER
    try:
        with path.open("rb") as file:
            start = file.read(4)
    except OSError as error:
        raise SettingsError(f"file: {path.name}: {os.strerror(error.errno or 0)}") from None
    if start in _ZIP_STARTS:
        return ZIP
    if start.startswith(_GZIP_START):
        return TAR_GZ
    raise SettingsError(f"file: {path.name} is no TorchServe archive: not a zip file, a tar.gz or a folder")


def stem_of(name: str) -> str:
    """An archive's name without what says its kind."""
    for ending in (".tar.gz", ".tgz", ".mar", ".zip"):
        if name.lower().endswith(ending):
            return name[: -len(ending)]
    return name


def inner_name(name: str) -> str:
    """Of a member of a tar: without the first part of its name, which is a folder around all of them."""
    name = name.removeprefix("./")
    return name.partition("/")[2] if "/" in name else name


def _in_zip(path: Path, name: str, most: int) -> bytes | None:
    with zipfile.ZipFile(path) as packed:
        if name not in packed.namelist():
            return None
        with packed.open(name) as file:
            return file.read(most)


def _in_folder(path: Path, name: str, most: int) -> bytes | None:
    if not (path / name).is_file():
        return None
    with (path / name).open("rb") as file:
        return file.read(most)


def _in_tar(path: Path, name: str, most: int) -> bytes | None:
    most_bytes = unpacked_bytes_max(path)
    with tarfile.open(path, "r|gz") as packed:
        for entry in packed:
            if entry.offset > most_bytes:
                raise SettingsError(f"{path.name} unpacks to more than {most_bytes} bytes")
            if entry.isreg() and inner_name(entry.name) == name:
                file = packed.extractfile(entry)
                assert file is not None, "a plain file has data"
                return file.read(most)
    return None


def _limited(path: Path, name: str, most: int) -> bytes | None:
    found = member(path, name, most + 1)
    if found is not None and len(found) > most:
        raise SettingsError(f"{name} has more than {most} bytes")
    return found


def _json(text: bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"{manifests.FILE} is not JSON: {error}") from None
