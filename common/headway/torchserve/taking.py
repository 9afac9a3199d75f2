"""Takes a snapshot of a running server: asks the broker what it serves, and writes that down.

Knows: the direct client, what the broker's state says of models. Must not know: the file's form, who asks
for a snapshot.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from headway import logs
from headway.client import Client
from headway.errors import HeadwayError, SettingsError
from headway.settings import Shared
from headway.torchserve import snapshots
from headway.torchserve.properties import Properties
from headway.torchserve.registration import Registration, read_registration

ASK_TIMEOUT_S = 2.0
_log = logs.get("headway.torchserve")


def take(kind: str, settings: Shared, properties: Properties) -> Path | None:
    """Write one, where snapshots are written; the path of it. One that cannot be written is logged, and
    nobody's error. Waits for the broker: not for an event loop's thread."""
    if not properties.config_snapshots:
        return None
    try:
        with Client(settings.callers_address, ASK_TIMEOUT_S, shm_bytes=0, settings=settings) as client:
            state = client.state(ASK_TIMEOUT_S)
        now, defaults = served(Path(state["broker"]["model_store"]), state["models"])
        return snapshots.write(kind, properties, now, snapshots.folder_of(properties), defaults)
    except (HeadwayError, OSError) as error:
        _log.error("no snapshot", kind=kind, reason=str(error))
        return None


def served(store: Path, models: Iterable[Mapping[str, Any]]) -> tuple[list[Registration], dict[str, str]]:
    """What is registered, with as many workers as are ordered now, and the default versions. `models`: as
    the broker's state lists them. A default version that was ordered is one before it can serve."""
    models = list(models)
    found: list[Registration] = []
    defaults = {m["name"]: m["version"] for m in models if m["default"]}
    defaults |= {m["name"]: m["version"] for m in models if m["wanted_traffic"] == 1.0}
    for model in models:
        try:
            registration = read_registration(store / model["name"] / model["version"])
        except SettingsError:
            continue  # it is just going
        if registration.workflow:
            continue  # snapshots are of models alone
        least, most = _bounds(registration, model)
        found.append(dataclasses.replace(registration, workers_min=least, workers_max=most))
    return found, defaults


def _bounds(registration: Registration, model: Mapping[str, Any]) -> tuple[int, int]:
    """The broker knows how many there are; how many there may be, it was only told at registration."""
    least, most, now = registration.workers_min, registration.workers_max, model["min"]
    return (least, most) if least <= now <= max(least, most) else (now, max(now, model["max"]))
