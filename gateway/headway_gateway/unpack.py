"""An archive that nobody vouches for, unpacked into a folder: files and folders, nothing else.

No links, no devices, no names that lead out of the folder. Files and bytes are counted while they are
written, not read from what the archive says of itself; nor is a header read into memory that is longer than
any.

Knows: tar and zip files. Must not know: where they come from, what a model is.
"""

from __future__ import annotations

import gzip
import os
import stat
import tarfile
import threading
import time
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any

from headway.errors import Cancelled, DeadlineExceeded, InvalidInput, TooLarge

FILES_MAX = 10_000
CHUNK_BYTES = 1 << 20


class Effort:
    """What a fetch may still take: time, bytes, and a client that waits for it."""

    def __init__(self, bytes_max: int, timeout_s: float, stop: threading.Event) -> None:
        self.bytes_max = bytes_max
        self._timeout_s = timeout_s
        self._stop = stop
        self._until = time.monotonic() + timeout_s

    def look(self) -> None:
        if self._stop.is_set():
            raise Cancelled("the client left")
        if time.monotonic() > self._until:
            raise DeadlineExceeded(f"not fetched within {self._timeout_s:g} s")

    def copy(self, source: Any, target: IO[bytes], size: int, what: str) -> int:
        """All of `source`; returns how much there is now, `size` being what was there before."""
        while True:
            self.look()
            chunk = source.read1(CHUNK_BYTES)  # what is there: a slow sender must not hold us up
            if not chunk:
                return size
            size += len(chunk)
            if size > self.bytes_max:
                raise TooLarge(f"{what} has more than {self.bytes_max} bytes (register_bytes_max)")
            target.write(chunk)


def unpack(archive: Path, folder: Path, is_zip: bool, effort: Effort) -> None:
    """Unpack into a new folder. Raises: InvalidInput, TooLarge, DeadlineExceeded, Cancelled, OSError."""
    folder.mkdir()
    out = _Out(folder, effort)
    try:
        (_unzip if is_zip else _untar)(archive, out)
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, gzip.BadGzipFile) as error:
        raise InvalidInput(f"the archive is broken: {error}") from None
    except (RuntimeError, NotImplementedError, ValueError, UnicodeError) as error:  # zipfile's ways to refuse
        raise InvalidInput(f"the archive cannot be unpacked: {error}") from None


class _Out:
    """Where it is unpacked to. Counts what is really written."""

    def __init__(self, folder: Path, effort: Effort) -> None:
        self._folder = folder
        self.effort = effort
        self._files = 0
        self._bytes = 0

    def folder(self, name: str) -> None:
        self._place(name).mkdir(parents=True, exist_ok=True)

    def file(self, name: str, source: Any) -> None:
        path = self._place(name)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("xb") as target:
                self._bytes = self.effort.copy(source, target, self._bytes, "the archive, unpacked,")
                target.flush()
                os.fsync(target.fileno())  # the rename must not survive a power cut that this does not
        except (FileExistsError, NotADirectoryError, IsADirectoryError):
            raise InvalidInput(f"the archive has {name!r:.100} twice") from None

    def _place(self, name: str) -> Path:
        self._files += 1
        if self._files > FILES_MAX:
            raise TooLarge(f"the archive has more than {FILES_MAX} files and folders")
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if name.startswith("/") or ".." in parts or "\\" in name or not name.isprintable():
            raise InvalidInput(f"the archive has a name that leads out of it, or is none: {name!r:.100}")
        if len(name) > 1000 or any(len(os.fsencode(part)) > 255 for part in parts) or len(parts) > 50:
            raise InvalidInput(f"the archive has a name that is too long: {name!r:.100}")
        return self._folder.joinpath(*parts)


class _Plain:
    """The unpacked bytes of a gzip file, as tarfile reads them, and no more of them than is allowed."""

    READ_MAX = 1 << 24  # tarfile reads some headers whole, however long they say they are

    def __init__(self, file: gzip.GzipFile, bytes_max: int) -> None:
        self._file = file
        self._bytes_max = bytes_max
        self.tell = file.tell

    def read(self, size: int) -> bytes:
        if size > self.READ_MAX:
            raise InvalidInput("the archive has a header that is too long")
        self._check(self._file.tell() + size)
        return self._file.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        self._check(offset)
        return self._file.seek(offset, whence)

    def _check(self, end: int) -> None:
        if end > self._bytes_max:
            raise TooLarge("the archive, unpacked, is over register_bytes_max")


def _untar(archive: Path, out: _Out) -> None:
    framing = FILES_MAX * 4096 + _Plain.READ_MAX  # headers and padding
    with gzip.open(archive) as file:
        plain: Any = _Plain(file, out.effort.bytes_max + framing)
        with tarfile.open(fileobj=plain, mode="r:") as tar:
            while (member := tar.next()) is not None:
                if member.isdir():
                    out.folder(member.name)
                elif member.isreg():
                    source = tar.extractfile(member)
                    assert source is not None
                    out.file(member.name, source)
                else:
                    raise InvalidInput(f"the archive has a link or device: {member.name!r:.100}")
        while plain.read(CHUNK_BYTES):  # to gzip's checksum, which is at the very end
            out.effort.look()


def _unzip(archive: Path, out: _Out) -> None:
    with zipfile.ZipFile(archive) as packed:
        for member in packed.infolist():
            kind = stat.S_IFMT(member.external_attr >> 16)
            if member.is_dir():
                out.folder(member.filename)
            elif kind in (0, stat.S_IFREG):
                with packed.open(member) as source:
                    out.file(member.filename, source)
            else:
                raise InvalidInput(f"the archive has a link or device: {member.filename!r:.100}")
