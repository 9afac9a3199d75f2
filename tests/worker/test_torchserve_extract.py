"""Archives that would write where they must not, or more than they may: refused by name, nothing left."""

from __future__ import annotations

import io
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from headway_worker.torchserve.extract import Limits, untar, unzip
from tests.worker.archives import place
from tests.worker.bench import Bench


@pytest.fixture(autouse=True)
def _nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    here = tmp_path / "unpacked"
    here.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(here))
    yield
    assert list(here.iterdir()) == []


def tarred(path: Path, *members: tarfile.TarInfo) -> None:
    with tarfile.open(path, "w:gz") as packed:
        for member in members:
            packed.addfile(member, io.BytesIO(b"x" * member.size) if member.size else None)


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", size: int = 0) -> tarfile.TarInfo:
    found = tarfile.TarInfo(name)
    found.type, found.linkname, found.size = kind, link, size
    return found


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (member("m/../../out.py", size=1), "leads out of the archive's folder"),
        (member("/etc/out.py", size=1), "leads out of the archive's folder"),
        (member("m//etc/out.py", size=1), "leads out of the archive's folder"),
        (member("m/link", tarfile.SYMTYPE, "/etc/passwd"), "it is a link, a device"),
        (member("m/link", tarfile.LNKTYPE, "m/handler.py"), "it is a link, a device"),
        (member("m/pipe", tarfile.FIFOTYPE), "it is a link, a device"),
        (member("m/a\\b.py", size=1), "its name is not one of a file"),
    ],
)
def test_a_tar_that_leads_anywhere_else_is_refused_by_name(
    bench: Bench, tmp_path: Path, bad: tarfile.TarInfo, reason: str
) -> None:
    path = bench.store / "m.tar.gz"
    tarred(path, member("m/handler.py", size=1), bad)
    place(bench, path)
    before = set(tmp_path.rglob("*"))
    detail = bench.load().detail
    assert reason in detail
    assert repr(bad.name) in detail or repr(bad.name.partition("/")[2]) in detail
    assert set(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (["../out.py"], "'../out.py' is refused: it leads out of the archive's folder"),
        (["/out.py"], "'/out.py' is refused: it leads out of the archive's folder"),
        (["a/../../out.py"], "leads out of the archive's folder"),
        (["a.py", "./a.py"], "there are two files of this name"),
        (["a", "a/b.py"], "'a/b.py' is refused"),
        (["a\\b.py"], "its name is not one of a file"),
        (["x" * 300 + ".py"], "File name too long"),
        (["/".join("a" * 70)], "more than 64 folders deep"),
    ],
)
def test_a_zip_that_leads_anywhere_else_is_refused_by_name(
    bench: Bench, tmp_path: Path, names: list[str], reason: str
) -> None:
    path = bench.store / "m.mar"
    with zipfile.ZipFile(path, "w") as packed:
        for name in names:
            packed.writestr(name, "x = 1\n")
    place(bench, path)
    before = set(tmp_path.rglob("*"))
    assert reason in bench.load().detail
    assert set(tmp_path.rglob("*")) == before


def test_a_link_in_a_zip_is_refused_by_name(bench: Bench) -> None:
    path = bench.store / "m.mar"
    with zipfile.ZipFile(path, "w") as packed:
        link = zipfile.ZipInfo("passwd")
        link.external_attr = (0o120777) << 16
        packed.writestr(link, "/etc/passwd")
    place(bench, path)
    assert "'passwd' is refused: it is a link or a device" in bench.load().detail


def test_a_bomb_is_stopped_by_what_it_unpacks_to(bench: Bench) -> None:
    path = bench.store / "m.mar"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("zeros.bin", bytes(3 << 20))
    place(bench, path, "[options]\nunpacked_bytes_max = 1000000\n")
    assert "'zeros.bin' is refused: the archive unpacks to more than 1000000 bytes" in bench.load().detail


def test_a_bomb_is_stopped_without_the_operators_help(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headway.torchserve.members.ALWAYS_BYTES", 1 << 20)
    path = bench.store / "m.mar"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("zeros.bin", bytes(4 << 20))
    assert path.stat().st_size < 20_000
    place(bench, path)
    assert "the archive unpacks to more than 1048576 bytes" in bench.load().detail


@pytest.mark.parametrize("name", ["m.mar", "m.tar.gz"])
@pytest.mark.parametrize("start", [b"PK\x03\x04", b"\x1f\x8b\x08\x00", b"hello", b""])
def test_a_file_that_is_no_archive_is_said_to_be_none(bench: Bench, name: str, start: bytes) -> None:
    path = bench.store / name
    path.write_bytes(start + b"\0\1\2" * (100 if start else 0))
    place(bench, path)
    detail = bench.load().detail
    assert "SettingsError" in detail.splitlines()[-1]
    assert name in detail.splitlines()[-1]


def test_an_archive_cut_short_is_broken(bench: Bench) -> None:
    path = bench.store / "m.tar.gz"
    tarred(path, member("m/handler.py", size=100_000))
    path.write_bytes(path.read_bytes()[:100])
    place(bench, path)
    assert "m.tar.gz is a broken tar.gz file" in bench.load().detail


def test_too_many_members_are_refused(tmp_path: Path) -> None:
    (tmp_path / "to").mkdir()
    with zipfile.ZipFile(tmp_path / "m.mar", "w") as packed:
        for i in range(4):
            packed.writestr(f"{i}.py", "")
    with pytest.raises(Exception, match="more than 3 members"):
        unzip(tmp_path / "m.mar", tmp_path / "to", Limits(100, 3))


def test_an_encrypted_member_is_refused_by_name(bench: Bench) -> None:
    path = bench.store / "m.mar"
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr("secret.py", "x = 1")
    raw = bytearray(path.read_bytes())
    raw[6] |= 1  # the flag in the member's own header, and in the directory
    raw[raw.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(raw)
    place(bench, path)
    assert "'secret.py' is refused: it is encrypted" in bench.load().detail


def test_rights_and_owners_in_an_archive_mean_nothing(tmp_path: Path) -> None:
    (tmp_path / "to").mkdir()
    found = member("m/run.sh", size=3)
    found.mode, found.uid = 0o6777, 12345
    tarred(tmp_path / "m.tar.gz", found)
    untar(tmp_path / "m.tar.gz", tmp_path / "to", Limits(100))
    assert (tmp_path / "to" / "run.sh").stat().st_mode & 0o7777 == 0o600


def test_folders_in_a_tar_lose_their_first_part(tmp_path: Path) -> None:
    (tmp_path / "to").mkdir()
    folder = member("./m/data", tarfile.DIRTYPE)
    tarred(tmp_path / "m.tar.gz", member("m", tarfile.DIRTYPE), folder, member("./m/data/a.txt", size=1))
    untar(tmp_path / "m.tar.gz", tmp_path / "to", Limits(100))
    assert [str(p.relative_to(tmp_path / "to")) for p in sorted((tmp_path / "to").rglob("*"))] == [
        "data",
        "data/a.txt",
    ]
