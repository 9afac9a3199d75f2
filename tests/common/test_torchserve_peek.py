"""What an archive says of itself, read without unpacking it."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from headway.errors import SettingsError
from headway.torchserve.peek import peek

pytest.importorskip("yaml")
MANIFEST = "MAR-INF/MANIFEST.json"
Files = Mapping[str, str]


def mar(folder: Path, files: Files) -> Path:
    with zipfile.ZipFile(folder / "net.mar", "w", zipfile.ZIP_DEFLATED) as packed:
        for name, text in files.items():
            packed.writestr(name, text)
    return folder / "net.mar"


def tgz(folder: Path, files: Files) -> Path:
    with tarfile.open(folder / "net.tar.gz", "w:gz") as packed:
        for name, text in files.items():
            member = tarfile.TarInfo(f"net/{name}")
            member.size = len(text.encode())
            packed.addfile(member, io.BytesIO(text.encode()))
    return folder / "net.tar.gz"


def plain(folder: Path, files: Files) -> Path:
    for name, text in files.items():
        path = folder / "net" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder / "net"


def saying(**model: Any) -> str:
    return json.dumps({"runtime": "python", "model": {"modelName": "net", "modelVersion": "2.1", **model}})


@pytest.mark.parametrize("pack", [mar, tgz, plain])
def test_every_form_of_archive_says_what_it_is(pack: Callable[[Path, Files], Path], tmp_path: Path) -> None:
    files = {"c/model.yaml": "batchSize: 4\nminWorkers: 2\n", MANIFEST: saying(configFile="c/model.yaml")}
    peeked = peek(pack(tmp_path, {"weights": "x" * 9999, **files}))
    assert peeked.has_manifest
    assert (peeked.manifest.model_name, peeked.manifest.model_version) == ("net", "2.1")
    assert peeked.config.values == {"batchSize": 4, "minWorkers": 2}


@pytest.mark.parametrize("pack", [mar, tgz, plain])
def test_an_archive_without_a_manifest_is_called_as_its_file(
    pack: Callable[[Path, Files], Path], tmp_path: Path
) -> None:
    peeked = peek(pack(tmp_path, {"handler.py": ""}))
    assert not peeked.has_manifest
    assert (peeked.manifest.model_name, peeked.manifest.model_version) == ("net", "1.0")
    assert peeked.config.values == {}


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({MANIFEST: "{"}, "MANIFEST.json is not JSON"),
        ({MANIFEST: "[]"}, "MANIFEST.json must be an object, not a list"),
        ({MANIFEST: '{"runtime": "LSP"}'}, "runtime 'LSP' is not one of"),
        ({MANIFEST: " " * ((1 << 20) + 1)}, "MANIFEST.json has more than 1048576 bytes"),
        ({MANIFEST: saying(configFile="c.yaml")}, "configFile: c.yaml is not in the archive"),
        ({MANIFEST: saying(configFile="../c.yaml")}, "leads out of the archive's folder"),
        ({MANIFEST: saying(configFile="c.yaml"), "c.yaml": "a: ["}, "c.yaml is not YAML"),
        ({MANIFEST: saying(configFile="c.yaml"), "c.yaml": "- a"}, "c.yaml must be a mapping, not list"),
    ],
)
@pytest.mark.parametrize("pack", [mar, tgz, plain])
def test_what_is_wrong_with_it_is_said(
    pack: Callable[[Path, Files], Path], tmp_path: Path, files: Files, said: str
) -> None:
    with pytest.raises(SettingsError) as raised:
        peek(pack(tmp_path, files))
    assert said in str(raised.value)


@pytest.mark.parametrize("pack", [mar, tgz])
def test_a_file_that_is_cut_off_is_broken(pack: Callable[[Path, Files], Path], tmp_path: Path) -> None:
    path = pack(tmp_path, {MANIFEST: saying() + " " * 5000, "more": "y" * 5000})
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(SettingsError, match=r"net\..* is a broken"):
        peek(path)


def test_what_is_no_archive_is_said(tmp_path: Path) -> None:
    (tmp_path / "a.mar").write_text("hello")
    with pytest.raises(SettingsError, match=r"a\.mar is no TorchServe archive"):
        peek(tmp_path / "a.mar")
    with pytest.raises(SettingsError, match=r"b\.mar: No such file"):
        peek(tmp_path / "b.mar")


def test_a_tar_that_grows_without_end_is_not_read_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headway.torchserve.members.ALWAYS_BYTES", 1 << 20)
    path = tgz(tmp_path, {"zeros": "\0" * (4 << 20), MANIFEST: saying()})
    with pytest.raises(SettingsError, match=r"net\.tar\.gz unpacks to more than"):
        peek(path)
