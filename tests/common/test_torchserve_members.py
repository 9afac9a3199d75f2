"""What members an archive may have, by its table."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from headway.torchserve import members
from headway.torchserve.members import Refused, check_zip, parts_of


def packed(folder: Path, *entries: tuple[str | zipfile.ZipInfo, str]) -> Path:
    with zipfile.ZipFile(folder / "net.mar", "w", zipfile.ZIP_DEFLATED) as file:
        for name, text in entries:
            file.writestr(name, text)
    return folder / "net.mar"


def link(name: str) -> zipfile.ZipInfo:
    found = zipfile.ZipInfo(name)
    found.create_system, found.external_attr = 3, 0o120777 << 16
    return found


def test_plain_files_and_folders_may_be_there(tmp_path: Path) -> None:
    check_zip(packed(tmp_path, ("MAR-INF/MANIFEST.json", "{}"), ("a/", ""), ("a/./b.py", "b")))


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc/x", "a\\b", "a\nb", ".", "a/" * 65 + "b"])
def test_a_name_that_leads_out_or_is_none_is_refused_and_said(tmp_path: Path, name: str) -> None:
    with pytest.raises(Refused):
        parts_of(name)
    with pytest.raises(Refused, match=r"net\.mar: .* is refused: it"):
        check_zip(packed(tmp_path, ("good", ""), (name, "")))


def test_a_link_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="'out' is refused: it is a link or a device"):
        check_zip(packed(tmp_path, (link("out"), "/tmp")))


def test_what_unpacks_to_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = packed(tmp_path, ("zeros", "0" * 1_000_000))
    check_zip(path)
    monkeypatch.setattr(members, "ALWAYS_BYTES", 0)
    with pytest.raises(Refused, match=r"net\.mar unpacks to more than \d+ bytes"):
        check_zip(path)


def test_what_has_too_many_members_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(members, "FILES_MAX", 1)
    with pytest.raises(Refused, match="more than 1 members"):
        check_zip(packed(tmp_path, ("a", ""), ("b", "")))
