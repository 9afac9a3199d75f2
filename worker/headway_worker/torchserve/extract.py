"""Unpacks zip files and gzipped tars into a folder, and nothing anywhere else.

Knows: both formats, names that lead out of a folder, limits. Must not know: what the files are for.

Nothing is believed: bytes are counted as they are written, not as the file declares them. Only plain files
and folders are made, with the rights that new files get. Links are refused and not followed; so are names
that are absolute, have `..` in them, or mean two files at once.
"""

from __future__ import annotations

import os
import shutil
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from headway.errors import SettingsError
from headway.torchserve.members import FILES_MAX, Refused, check_zipped, parts_of, unpacked_bytes_max
from headway.torchserve.peek import BROKEN, inner_name

CHUNK_BYTES = 1 << 20
RESERVE_BYTES = 64 << 20  # left free on the disk


@dataclass(frozen=True)
class Limits:
    """How much may be written."""

    total_bytes: int
    files: int = FILES_MAX


def limits_for(archive: Path, target: Path, bytes_max: int = 0) -> Limits:
    """As many bytes as the operator says, else in proportion to the archive; never more than the disk has."""
    most = bytes_max or unpacked_bytes_max(archive)
    return Limits(min(most, max(0, shutil.disk_usage(target).free - RESERVE_BYTES)))


def unzip(archive: Path, target: Path, limits: Limits) -> None:
    """Raises: SettingsError naming the member that is refused, or what is wrong with the file."""
    writer = _Writer(archive, target, limits)
    try:
        with zipfile.ZipFile(archive) as packed:
            for member in packed.infolist():
                _add_zipped(packed, member, writer)
    except BROKEN as error:
        raise SettingsError(f"{archive.name} is a broken zip file: {error}") from None


def untar(archive: Path, target: Path, limits: Limits) -> None:
    """A gzipped tar; the first part of each name, before a slash, is dropped. Raises: SettingsError."""
    writer = _Writer(archive, target, limits)
    try:
        with tarfile.open(archive, "r|gz") as packed:
            for member in packed:
                _add_tarred(packed, member, writer)
    except BROKEN as error:
        raise SettingsError(f"{archive.name} is a broken tar.gz file: {error}") from None


def _add_zipped(packed: zipfile.ZipFile, member: zipfile.ZipInfo, writer: _Writer) -> None:
    try:
        check_zipped(member)
    except Refused as error:
        raise writer.refusal(member.filename, str(error)) from None
    if member.is_dir():
        return writer.folder(member.filename)
    with packed.open(member) as data:
        return writer.file(member.filename, data)


def _add_tarred(packed: tarfile.TarFile, member: tarfile.TarInfo, writer: _Writer) -> None:
    name = inner_name(member.name)
    if member.isdir():
        return writer.folder(name) if "/" in member.name and name else None
    if not member.isreg() or member.issparse():
        raise writer.refusal(member.name, "it is a link, a device or a file with holes")
    if name.startswith("/") or member.name.startswith("/"):
        raise writer.refusal(member.name, "it leads out of the archive's folder")
    data = packed.extractfile(member)
    assert data is not None, "a plain file has data"
    return writer.file(name, data)


class _Writer:
    """Makes files and folders below `target`, and counts."""

    def __init__(self, archive: Path, target: Path, limits: Limits) -> None:
        self._archive = archive
        self._target = target
        self._limits = limits
        self._bytes = 0
        self._members = 0

    def refusal(self, name: str, why: str) -> SettingsError:
        return SettingsError(f"{self._archive.name}: {name!r} is refused: {why}")

    def folder(self, name: str) -> None:
        path = self._path(name)
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self.refusal(name, str(error.strerror)) from None

    def file(self, name: str, data: IO[bytes]) -> None:
        path = self._path(name)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            out = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        except FileExistsError:
            raise self.refusal(name, "there are two files of this name") from None
        except OSError as error:
            raise self.refusal(name, str(error.strerror)) from None
        with os.fdopen(out, "wb") as file:
            for chunk in self._counted(name, data):
                file.write(chunk)

    def _counted(self, name: str, data: IO[bytes]) -> Iterator[bytes]:
        while chunk := data.read(CHUNK_BYTES):
            self._bytes += len(chunk)
            if self._bytes > self._limits.total_bytes:
                most = self._limits.total_bytes
                raise self.refusal(name, f"the archive unpacks to more than {most} bytes")
            yield chunk

    def _path(self, name: str) -> Path:
        """Where a member goes, which is below the target."""
        self._members += 1
        if self._members > self._limits.files:
            raise self.refusal(name, f"the archive has more than {self._limits.files} members")
        try:
            return self._target.joinpath(*parts_of(name))
        except Refused as error:
            raise self.refusal(name, str(error)) from None
