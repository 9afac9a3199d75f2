"""A registered archive as a version in Headway's model store: `NAME/VERSION/` with three entries.

    model.toml          what the broker and the worker read
    torchserve.json     what TorchServe's interfaces say of it (a `Registration`)
    ARCHIVE             a link to the archive, which stays where it is

Knows: the three files. Must not know: HTTP, who registers and why.

A version is put in place whole: it is made beside the store's folders under a hidden name, then renamed.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headway.errors import SettingsError
from headway.models import NAME, VERSION
from headway.store import MODEL_FILE
from headway.torchserve.config import sequence_keys
from headway.torchserve.properties import Properties

FILE = "torchserve.json"
HIDDEN = ".torchserve-"


@dataclass(frozen=True)
class Registration:
    """`url` is what it was registered as, `archive` the absolute path of the file or folder that is served.
    `workers_min`, `workers_max`: what was ordered last, in TorchServe's words; what the broker was told is
    how many copies that means, see `model_keys`. `downloaded`: the archive came from a URL and goes when the
    version does. `workflow`: whose node it is. `packages`: the folder of what its archive requires, made for
    this version alone, "" for none; goes with the version."""

    model: str
    version: str
    url: str
    archive: str
    runtime: str = "python"
    handler: str = ""  # in place of the manifest's
    batch_size: int = 1
    batch_delay_ms: int = 100
    workers_min: int = 0
    workers_max: int = 0
    response_timeout_s: int = 120
    startup_timeout_s: int = 120
    queue_size: int = 100
    client_timeout_ms: int = 0
    retry_timeout_s: int = 300
    device_type: str = ""  # cpu, gpu or ""
    device_ids: tuple[int, ...] = ()
    parallel_type: str = ""
    parallel_level: int = 0
    job_ticket: bool = False
    use_venv: bool = False
    continuous: bool = False
    in_flight_max: int = 0  # above 0: an asynchronous worker
    stateful: bool = False
    sequence_idle_ms: int = 0
    sequence_timeout_ms: int = 0
    sequences_max: int = 0
    sequence_queue_size: int = 0
    at_startup: bool = False
    downloaded: bool = False
    workflow: str = ""
    packages: str = ""
    options: dict[str, Any] = field(default_factory=dict)  # more of model.toml's [options]
    id: str = ""  # tells it from an earlier registration of the same version

    @property
    def key(self) -> tuple[str, str]:
        return self.model, self.version

    @property
    def has_sequences(self) -> bool:
        """Whether its requests belong to sequences. Without a time to be idle for, TorchServe has none."""
        return self.stateful and self.sequence_idle_ms > 0


def write_version(store: Path, registration: Registration, properties: Properties) -> Path:
    """Put the version into the store; returns its folder. Raises: SettingsError for names that no model can
    have and where it is there already; OSError."""
    folder = folder_of(store, *registration.key)
    if folder.exists():
        raise SettingsError(f"{registration.model}/{registration.version} is in the store already")
    made = Path(tempfile.mkdtemp(prefix=HIDDEN, dir=store))
    try:
        archive = Path(registration.archive)
        (made / archive.name).symlink_to(archive)
        (made / FILE).write_text(_json(registration))
        (made / MODEL_FILE).write_text(_toml(model_keys(registration, properties)))
        made.chmod(0o755)
        folder.parent.mkdir(exist_ok=True)
        made.rename(folder)
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise
    return folder


def change_version(store: Path, registration: Registration) -> None:
    """Say something else of a version that is there; its `model.toml` stays. Raises: OSError."""
    folder = folder_of(store, *registration.key)
    made = folder / f".{FILE}.{os.getpid()}"
    made.write_text(_json(registration))
    made.replace(folder / FILE)


def read_registration(folder: Path) -> Registration:
    """Raises: SettingsError for a folder without one."""
    try:
        found = json.loads((folder / FILE).read_text())
        found["device_ids"] = tuple(found["device_ids"])
        return Registration(**found)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise SettingsError(f"{folder / FILE}: {error}") from None


def remove_version(store: Path, model: str, version: str, keep_archive: bool = False) -> None:
    """Take it out of the store, at once and whole; its archive goes too if it had been downloaded."""
    folder = folder_of(store, model, version)
    registration = read_registration(folder)
    hidden = Path(tempfile.mkdtemp(prefix=HIDDEN, dir=store))
    folder.rename(hidden / "gone")
    shutil.rmtree(hidden, ignore_errors=True)
    if registration.downloaded and not keep_archive:
        Path(registration.archive).unlink(missing_ok=True)
    if registration.packages:
        shutil.rmtree(registration.packages, ignore_errors=True)
    try:
        folder.parent.rmdir()
    except OSError:  # other versions are there
        return


def remove_all(store: Path) -> None:
    """Take every version out, and what was made for it. Archives stay: the next start may name them."""
    for file in store.glob(f"*/*/{FILE}"):
        remove_version(store, file.parent.parent.name, file.parent.name, keep_archive=True)


def folder_of(store: Path, model: str, version: str) -> Path:
    """Raises: SettingsError for names that lead elsewhere, or that no model can have."""
    if not NAME.fullmatch(model):
        raise SettingsError(f"{model!r} is no name for a model: letters, digits, '_', '-' and '.'")
    if not VERSION.fullmatch(version):
        raise SettingsError(f"{version!r} is no version: letters, digits, '.', '_', '-' and '+'")
    return store / model / version


def model_keys(registration: Registration, properties: Properties) -> dict[str, Any]:
    """The version's `model.toml`."""
    keys = {
        "backend": "torchserve",
        "file": Path(registration.archive).name,
        "device": "cpu" if registration.device_type == "cpu" else "auto",  # without GPUs, "gpu" is the CPU
        "batch_size_max": registration.batch_size,
        "batch_delay_ms": float(registration.batch_delay_ms) if properties.headway_batch_delay else 0.0,
        "batch_clock": "worker",
        "batch_early": properties.headway_batch_early,
        "response_timeout_s": float(registration.response_timeout_s),
        "load_timeout_s": float(registration.startup_timeout_s),
        "queue_size_max": 0 if registration.job_ticket else registration.queue_size,
        "copies_min": registration.workers_min,
        "copies_max": registration.workers_min,  # TorchServe never starts more than the least by itself
        "copies": registration.workers_min,
        **(_sequence_keys(registration) if registration.has_sequences else {}),
        "options": {**_options(registration, properties), **registration.options},
    }
    beside = {"continuous": registration.continuous, "in_flight_max": registration.in_flight_max}
    return keys | {key: value for key, value in beside.items() if value}


def _sequence_keys(registration: Registration) -> dict[str, Any]:
    return sequence_keys(
        registration.sequences_max,
        registration.sequence_queue_size,
        registration.sequence_idle_ms,
        registration.sequence_timeout_ms,
    )


def _json(registration: Registration) -> str:
    return json.dumps(dataclasses.asdict(registration), indent=2) + "\n"


def _options(registration: Registration, properties: Properties) -> dict[str, Any]:
    options: dict[str, Any] = {
        "decode_input": properties.decode_input_request,
        "limit_image_pixels": properties.limit_max_image_pixels,
        "retry_alone": properties.headway_one_bad_request_fails_alone,
        "unpickle": properties.headway_unpickle,
    }
    if registration.handler:
        options["handler"] = registration.handler
    if registration.packages:
        options["packages"] = registration.packages
    if properties.metrics_config:
        options["metrics_config"] = properties.metrics_config
    if properties.service_envelope:
        options["envelope"] = properties.service_envelope
    return options


def _toml(keys: dict[str, Any]) -> str:
    """What these keys have: text, numbers, truth values, and one table."""
    plain = [f"{key} = {json.dumps(value)}" for key, value in keys.items() if key != "options"]
    table = [f"{json.dumps(key)} = {json.dumps(value)}" for key, value in keys["options"].items()]
    return "\n".join([*plain, "", "[options]", *table, ""])
