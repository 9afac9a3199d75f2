"""What an archive says of itself: `MAR-INF/MANIFEST.json`, of every age.

Knows: the manifest's keys and their types. Must not know: what the files it names contain.

Keys that only older archivers or other servers write are accepted and kept for handlers to see. An archive
without a manifest is one of version 1.0, named after its file; the operator says its handler.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headway.errors import SettingsError

FILE = "MAR-INF/MANIFEST.json"
SIZE_BYTES_MAX = 1 << 20
RUNTIMES = ("python", "python2", "python3")
# Texts in the part "model", and which of them are paths in the archive.
TEXTS = ("modelName", "modelVersion", "handler", "description", "envelope", "version")
PATHS = ("serializedFile", "modelFile", "requirementsFile", "configFile", "sourceVocab")


@dataclass(frozen=True)
class Manifest:
    """`content` is the whole of it, as handlers see it. `is_named`: it says the model's name, which otherwise
    is the file's."""

    model_name: str
    model_version: str
    handler: str = ""
    serialized_file: str = ""
    model_file: str = ""
    requirements_file: str = ""
    config_file: str = ""
    envelope: str = ""
    is_named: bool = True
    content: dict[str, Any] = field(default_factory=dict)


def read_manifest(folder: Path, name: str) -> Manifest:
    """The manifest in an unpacked archive. Raises: SettingsError naming the key."""
    path = folder / FILE
    try:
        if not path.is_file():
            return parse_manifest({}, name)
        if path.stat().st_size > SIZE_BYTES_MAX:
            raise SettingsError(f"{FILE} has more than {SIZE_BYTES_MAX} bytes")
        found = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"{FILE} is not JSON: {error}") from None
    except OSError as error:
        raise SettingsError(f"{FILE}: {error.strerror}") from None
    return parse_manifest(found, name)


def parse_manifest(found: Any, name: str) -> Manifest:
    """Raises: SettingsError naming the key."""
    if not isinstance(found, Mapping):
        raise SettingsError(f"{FILE} must be an object, not {_kind(found)}")
    runtime = _text(found, "runtime", "") or "python"
    if runtime not in RUNTIMES:
        raise SettingsError(f"{FILE}: runtime {runtime!r} is not one of {', '.join(RUNTIMES)}")
    model = {} if found.get("model") is None else found["model"]
    if not isinstance(model, Mapping):
        raise SettingsError(f"{FILE}: model must be an object, not {_kind(model)}")
    texts = {key: _text(model, key, "model.") for key in TEXTS}
    paths = {key: _path(model, key) for key in PATHS}
    model_name = texts["modelName"] or name
    version = texts["modelVersion"] or "1.0"
    given = _given(model)  # first, as handlers may see the order
    content = {**found, "model": {**given, **_missing(given, modelName=model_name, modelVersion=version)}}
    return Manifest(
        model_name=model_name,
        model_version=version,
        handler=texts["handler"],
        serialized_file=paths["serializedFile"],
        model_file=paths["modelFile"],
        requirements_file=paths["requirementsFile"],
        config_file=paths["configFile"],
        envelope=texts["envelope"],
        is_named=bool(texts["modelName"]),
        content=content,
    )


def _given(model: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in model.items() if value is not None}


def _missing(given: Mapping[str, Any], **defaults: str) -> dict[str, str]:
    return {key: value for key, value in defaults.items() if key not in given}


def _text(table: Mapping[str, Any], key: str, where: str) -> str:
    value = table.get(key)
    if value is None:
        return ""
    if key in ("modelName", "modelVersion", "version") and type(value) in (int, float):  # written by hand
        return str(value)
    if not isinstance(value, str):
        raise SettingsError(f"{FILE}: {where}{key} must be text, not {_kind(value)}")
    return value


def _path(model: Mapping[str, Any], key: str) -> str:
    """A file in the archive. TensorRT archives name several, with commas."""
    value = _text(model, key, "model.")
    for part in value.split(","):
        if part.startswith("/") or ".." in part.split("/") or "\\" in part or "\0" in part:
            raise SettingsError(f"{FILE}: model.{key}: {value!r} leads out of the archive's folder")
    return value


def _kind(value: Any) -> str:
    names = {list: "a list", dict: "an object", str: "text", bool: "a truth value", type(None): "null"}
    return names.get(type(value), "a number" if isinstance(value, int | float) else type(value).__name__)
