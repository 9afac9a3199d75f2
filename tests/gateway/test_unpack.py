"""headway_gateway.unpack: archives as nobody should make them."""

from __future__ import annotations

import gzip
import io
import stat
import struct
import tarfile
import threading
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from headway.errors import Cancelled, DeadlineExceeded, InvalidInput, TooLarge
from headway_gateway import unpack as module
from headway_gateway.unpack import Effort, unpack

LIMIT = 100_000
Entries = list[tuple[str, bytes]]


def tar_of(entries: Entries, path: Path, change: Callable[[tarfile.TarInfo], None] = lambda _: None) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, data in entries:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            change(info)
            tar.addfile(info, io.BytesIO(data) if info.isreg() else None)
    return path


def zip_of(entries: Entries, path: Path, mode: int = 0) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, data in entries:
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            packed.writestr(info, data)
    return path


def run(archive: Path, bytes_max: int = LIMIT, timeout_s: float = 60, stop: Any = None) -> dict[str, bytes]:
    folder = archive.parent / f"out-{archive.name}"
    stop = stop or threading.Event()
    unpack(archive, folder, archive.suffix == ".zip", Effort(bytes_max, timeout_s, stop))
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


MAKERS = [(tar_of, "a.tgz"), (zip_of, "a.zip")]
both = pytest.mark.parametrize(("make", "name"), MAKERS, ids=["tar", "zip"])


@both
def test_files_and_folders_come_out_as_they_were(make, name, tmp_path):
    entries = [("m/model.toml", b"x = 1\n"), ("m/sub/w.bin", bytes(range(256)) * 40), ("./n", b"")]
    out = run(make(entries, tmp_path / name))
    assert out == {"m/model.toml": b"x = 1\n", "m/sub/w.bin": bytes(range(256)) * 40, "n": b""}


@both
@pytest.mark.parametrize(
    "evil",
    ["/etc/passwd", "../up", "a/../../up", "a/..", "a\\..\\up", "a\nb", "n" * 256, "x/" * 60 + "y"],
)
def test_a_name_that_leads_out_or_is_none_is_refused(make, name, evil, tmp_path):
    archive = make([("good", b"1"), (evil, b"2")], tmp_path / name)
    with pytest.raises(InvalidInput, match="name"):
        run(archive)
    assert {p.name for p in tmp_path.iterdir()} <= {name, f"out-{name}"}


@both
def test_a_file_that_is_there_twice_is_refused(make, name, tmp_path):
    with pytest.raises(InvalidInput, match="twice"):
        run(make([("a", b"1"), ("./a", b"2")], tmp_path / name))
    with pytest.raises(InvalidInput, match="twice"):
        run(make([("b", b"1"), ("b/c", b"2")], tmp_path / f"2{name}"))


KINDS = [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE]


@pytest.mark.parametrize("kind", KINDS)
def test_links_and_devices_in_a_tar_are_refused(kind, tmp_path):
    def change(info: tarfile.TarInfo) -> None:
        if info.name == "link":
            info.type, info.linkname, info.size = kind, "/etc/passwd", 0

    with pytest.raises(InvalidInput, match="link or device"):
        run(tar_of([("a", b"1"), ("link", b"")], tmp_path / "a.tgz", change))


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO, stat.S_IFSOCK])
def test_links_and_devices_in_a_zip_are_refused(kind, tmp_path):
    with pytest.raises(InvalidInput, match="link or device"):
        run(zip_of([("link", b"/etc/passwd")], tmp_path / "a.zip", kind | 0o777))


def test_nothing_comes_out_executable_or_for_others_to_write(tmp_path):
    def change(info: tarfile.TarInfo) -> None:
        info.mode = 0o6777

    run(tar_of([("a", b"1")], tmp_path / "a.tgz", change))
    assert (tmp_path / "out-a.tgz" / "a").stat().st_mode & 0o6111 == 0


@both
def test_unpacked_bytes_are_counted_over_all_files(make, name, tmp_path):
    entries = [("a", bytes(LIMIT // 2)), ("b", bytes(LIMIT // 2))]
    assert len(run(make(entries, tmp_path / name))) == 2
    with pytest.raises(TooLarge, match=str(LIMIT)):
        run(make([*entries, ("c", b"1")], tmp_path / f"2{name}"))


@both
def test_files_and_folders_are_counted(make, name, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "FILES_MAX", 3)
    assert len(run(make([(f"{i}", b"") for i in range(3)], tmp_path / name))) == 3
    with pytest.raises(TooLarge, match="files"):
        run(make([(f"{i}", b"") for i in range(4)], tmp_path / f"2{name}"))


def test_a_zip_that_says_less_than_it_holds_is_broken(tmp_path):
    archive = zip_of([("a", bytes(5000))], tmp_path / "a.zip")
    data = archive.read_bytes().replace(struct.pack("<I", 5000), struct.pack("<I", 10))
    archive.write_bytes(data)
    with pytest.raises(InvalidInput, match="archive"):
        run(archive)


def test_a_tar_header_that_unpacks_to_very_much_is_not_read_into_memory(tmp_path):
    size = 200 << 20
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, size
    archive = tmp_path / "a.tgz"
    with gzip.open(archive, "wb", compresslevel=1) as file:
        file.write(info.tobuf(tarfile.GNU_FORMAT))
        for _ in range(20):
            file.write(bytes(size // 20))
    tracemalloc.start()
    with pytest.raises(InvalidInput):
        run(archive, bytes_max=1 << 40)
    assert tracemalloc.get_traced_memory()[1] < 50 << 20
    tracemalloc.stop()


def test_a_gzip_that_unpacks_to_very_much_between_files_is_given_up(tmp_path):
    info = tarfile.TarInfo("x")
    info.type, info.size = b"V", 1 << 40  # what no reader knows is skipped
    archive = tmp_path / "a.tgz"
    with gzip.open(archive, "wb", compresslevel=1) as file:
        file.write(info.tobuf(tarfile.GNU_FORMAT) + bytes(1 << 20))
    with pytest.raises((InvalidInput, TooLarge)):
        run(archive)


@pytest.mark.parametrize("name", ["a.tgz", "a.zip"])
@pytest.mark.parametrize("damage", [b"", b"nonsense", "half", "flipped"])
def test_a_broken_archive_is_refused(name, damage, tmp_path):
    make = tar_of if name == "a.tgz" else zip_of
    archive = make([("a", bytes(range(256)) * 100)], tmp_path / name)
    data = archive.read_bytes()
    middle = len(data) // 2
    flipped = data[:middle] + bytes([data[middle] ^ 255]) + data[middle + 1 :]
    archive.write_bytes({"half": data[:middle], "flipped": flipped}.get(damage, damage))  # type: ignore
    with pytest.raises(InvalidInput, match="archive"):
        run(archive)


def test_an_encrypted_zip_is_refused(tmp_path):
    archive = zip_of([("a", b"1")], tmp_path / "a.zip")
    data = bytearray(archive.read_bytes())
    for mark in (b"PK\x03\x04", b"PK\x01\x02"):
        data[data.index(mark) + (6 if mark[2] == 3 else 8)] |= 1
    archive.write_bytes(data)
    with pytest.raises(InvalidInput, match="unpacked"):
        run(archive)


def test_an_effort_ends_in_time_and_when_nobody_waits(tmp_path):
    archive = tar_of([("a", b"1")], tmp_path / "a.tgz")
    with pytest.raises(DeadlineExceeded, match="0 s"):
        run(archive, timeout_s=0)
    stop = threading.Event()
    stop.set()
    with pytest.raises(Cancelled):
        run(archive.rename(tmp_path / "b.tgz"), stop=stop)
