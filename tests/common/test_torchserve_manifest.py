"""Manifests of every age, and what is wrong with others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from headway.errors import SettingsError
from headway.torchserve.manifest import FILE, parse_manifest, read_manifest


def test_a_manifest_of_today_is_read() -> None:
    found = {
        "createdOn": "01/01/2025 00:00:00",
        "runtime": "python3",
        "archiverVersion": "0.12.0",
        "model": {
            "modelName": "resnet",
            "modelVersion": "2.1",
            "handler": "image_classifier",
            "serializedFile": "resnet.pt",
            "configFile": "model-config.yaml",
            "envelope": "json",
        },
    }
    manifest = parse_manifest(found, "file")
    assert (manifest.model_name, manifest.model_version, manifest.envelope) == ("resnet", "2.1", "json")
    assert (manifest.serialized_file, manifest.config_file) == ("resnet.pt", "model-config.yaml")
    assert manifest.content == found


def test_without_a_manifest_the_name_is_the_files_and_the_version_is_1_0(tmp_path: Path) -> None:
    manifest = read_manifest(tmp_path, "bare")
    assert (manifest.model_name, manifest.model_version, manifest.handler) == ("bare", "1.0", "")
    assert manifest.content == {"model": {"modelName": "bare", "modelVersion": "1.0"}}


def test_keys_that_are_null_are_as_missing() -> None:
    assert parse_manifest({"runtime": None, "model": {"modelName": None}}, "n").model_name == "n"
    assert parse_manifest({"model": None}, "n").model_version == "1.0"


def test_several_serialized_files_are_looked_at_one_by_one() -> None:
    assert parse_manifest({"model": {"serializedFile": "a.pt,b.pt"}}, "n").serialized_file == "a.pt,b.pt"
    with pytest.raises(SettingsError, match=r"model\.serializedFile: .* leads out"):
        parse_manifest({"model": {"serializedFile": "a.pt,../b.pt"}}, "n")


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        ([], "must be an object, not a list"),
        ("text", "must be an object, not text"),
        ({"model": "m"}, "model must be an object, not text"),
        ({"model": {"handler": ["a"]}}, "model.handler must be text, not a list"),
        ({"model": {"modelVersion": {}}}, "model.modelVersion must be text, not an object"),
        ({"model": {"modelVersion": True}}, "model.modelVersion must be text, not a truth value"),
        ({"runtime": "LSP"}, "runtime 'LSP' is not one of python"),
        ({"runtime": 3}, "runtime must be text, not a number"),
        ({"model": {"modelFile": "/etc/x.py"}}, "model.modelFile: '/etc/x.py' leads out"),
        ({"model": {"configFile": "a/../../x"}}, "model.configFile: 'a/../../x' leads out"),
    ],
)
def test_a_wrong_manifest_is_refused_by_the_key(found: Any, reason: str) -> None:
    with pytest.raises(SettingsError) as refused:
        parse_manifest(found, "n")
    assert reason in str(refused.value)
    assert FILE in str(refused.value)


@pytest.mark.parametrize("text", ["{", "[" * 100_000, '{"a": ' + "9" * 5000 + "}", "\udcff"])
def test_what_is_not_json_is_said_to_be_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "MAR-INF").mkdir()
    (tmp_path / FILE).write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(SettingsError, match="is not JSON"):
        read_manifest(tmp_path, "n")


def test_a_manifest_of_a_megabyte_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "MAR-INF").mkdir()
    (tmp_path / FILE).write_text(" " * (1 << 20) + "{}")
    with pytest.raises(SettingsError, match="has more than 1048576 bytes"):
        read_manifest(tmp_path, "n")
