"""What is served, written after each change, so that the next start can serve it again.

    logs/config/20261123003105203-startup.cfg      the properties, and `model_snapshot`: models as JSON

Knows: the files' form, which is TorchServe's. Must not know: who calls for one, how models are started.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from headway.errors import SettingsError
from headway.torchserve import javaproperties
from headway.torchserve.properties import Properties
from headway.torchserve.registration import Registration

STARTUP, SNAPSHOT, SHUTDOWN = "startup", "snapshot", "shutdown"
FOLDER = "config"  # in the folder of the logs
KEY = "model_snapshot"
_FILE = re.compile(r"(\d{17})-(?:startup|snapshot|shutdown)\.cfg")
Defaults = Mapping[str, str]
# Of a registration: what it is called in a snapshot.
_NUMBERS = {
    "minWorkers": "workers_min",
    "maxWorkers": "workers_max",
    "batchSize": "batch_size",
    "maxBatchDelay": "batch_delay_ms",
    "responseTimeout": "response_timeout_s",
    "startupTimeout": "startup_timeout_s",
}


def folder_of(properties: Properties) -> Path:
    """Where snapshots are."""
    return Path(properties.log_location) / FOLDER


def write(
    kind: str,
    properties: Properties,
    registrations: Iterable[Registration],
    folder: Path,
    defaults: Defaults | None = None,
    clock_s: float | None = None,
) -> Path:
    """Write one, whole; the path of it. `registrations`: as it is now, their `workers_min` and `workers_max`
    being what was ordered last. `defaults`: the default version of each model; the first one's where it
    does not say. Raises: OSError."""
    now = time.time() if clock_s is None else clock_s
    stamp = datetime.fromtimestamp(now).strftime("%Y%m%d%H%M%S") + f"{int(now * 1000) % 1000:03d}"
    path = folder / f"{stamp}-{kind}.cfg"
    document = _document(path.name, now, registrations, defaults or {})
    values = {key: text for key, text in properties.said.items() if key != KEY}
    text = javaproperties.written({**values, KEY: json.dumps(document, indent=2)})
    folder.mkdir(parents=True, exist_ok=True)
    hidden = folder / f".{path.name}.{os.getpid()}"
    private = 0o600 if "keystore_pass" in values else 0o644
    with os.fdopen(
        os.open(hidden, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, private), "w"
    ) as file:
        file.write(
            f"#Saving snapshot\n#{time.strftime('%a %b %d %H:%M:%S %Z %Y', time.localtime(now))}\n{text}"
        )
        file.flush()
        os.fsync(file.fileno())  # or a host that loses power finds the last one empty
    hidden.rename(path)
    return path


def is_one(path: Path) -> bool:
    """By its name."""
    return _FILE.fullmatch(path.name) is not None


def latest(folder: Path) -> Path | None:
    """The youngest one, by its name."""
    try:
        found = [path for path in folder.iterdir() if is_one(path)]
    except OSError:
        return None
    return max(found, key=lambda path: path.name, default=None)


def check(path: Path, values: Mapping[str, str]) -> None:
    """That it is all there: a start from an empty one would serve nothing, and say nothing of it. Raises:
    SettingsError."""
    if KEY not in values:
        earlier = "remove it to start from the one before it, or name a configuration (--ts-config)"
        raise SettingsError(f"{path}: it is no whole snapshot, as it has no {KEY}: {earlier}")


def models_of(properties: Properties) -> dict[str, dict[str, dict[str, Any]]]:
    """The models that a snapshot names, by name and version; empty where there is none. Raises: SettingsError
    for one that is none."""
    if not properties.model_snapshot:
        return {}
    try:
        models = json.loads(properties.model_snapshot)["models"]
        return {
            name: {version: _checked(name, version, said) for version, said in versions.items()}
            for name, versions in models.items()
        }
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise SettingsError(f"{KEY}: it is no snapshot: {error!r}") from None


def _checked(name: str, version: str, said: Any) -> dict[str, Any]:
    if not isinstance(said.get("marName"), str) or not said["marName"]:
        raise SettingsError(f"{KEY}: {name} {version}: there is no marName")
    for key in _NUMBERS:
        if key in said and type(said[key]) is not int:
            raise SettingsError(f"{KEY}: {name} {version}: {key} is not a whole number")
    return {**said}


def _document(
    name: str, now: float, registrations: Iterable[Registration], defaults: Defaults
) -> dict[str, Any]:
    models: dict[str, dict[str, Any]] = {}
    for one in registrations:
        versions = models.setdefault(one.model, {})
        is_default = one.version == defaults.get(one.model) if one.model in defaults else not versions
        versions[one.version] = _state(one, is_default)
    return {"name": name, "modelCount": len(models), "created": int(now * 1000), "models": models}


def _state(one: Registration, is_default: bool) -> dict[str, Any]:
    state: dict[str, Any] = {"defaultVersion": is_default, "marName": _file(one)}
    state |= {key: getattr(one, field) for key, field in _NUMBERS.items()}
    state["runtimeType"] = one.runtime
    if one.parallel_level > 0:
        state["parallelLevel"] = one.parallel_level
    return state


def _file(one: Registration) -> str:
    """The archive as the store knows it."""
    return Path(one.archive).name if "://" in one.url else one.url
