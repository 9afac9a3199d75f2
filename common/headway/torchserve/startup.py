"""Which models a start shall serve, and as what: `--models`, `load_models`, `models`, a snapshot.

Knows: the order in which TorchServe looks, what it does where one is broken. Must not know: processes, the
broker, how an archive is fetched.

What is named by a URL is only listed (`Startup.urls`) until it is said what became of it (`fetched`).

A model that cannot be served is warned about, and the others are. Only a snapshot is all or nothing: it says
what was served, so that an archive that is gone means that the store is another one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headway.errors import SettingsError
from headway.models import NAME, VERSION
from headway.torchserve import reading, snapshots
from headway.torchserve.peek import peek, stem_of
from headway.torchserve.properties import Properties
from headway.torchserve.registering import Origin, Wish, registration_of
from headway.torchserve.registration import Registration

ALL = "all"
ENDINGS = (".mar", ".model", ".tar.gz")


@dataclass(frozen=True)
class Fetched:
    """What became of a URL: an archive in the store, `downloaded` if it was put there just now; or why there
    is none."""

    path: str = ""
    downloaded: bool = False
    refused: str = ""


@dataclass
class Startup:
    """What to serve at first. `defaults`: by model, the version that is the default one; `failed`: why a
    model cannot be served, by its name; `warnings`: lines for the log; `urls`: what is to be fetched."""

    registrations: list[Registration] = field(default_factory=list)
    defaults: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    urls: list[str] = field(default_factory=list)

    @property
    def workers(self) -> int:
        """How many processes all of them take."""
        return sum(one.workers_min for one in self.registrations)


def startup_of(
    properties: Properties, workers_default: int, fetched: Mapping[str, Fetched] | None = None
) -> Startup:
    """`workers_default`: workers of a model of which nothing says how many. `fetched`: by URL. Raises:
    SettingsError for a snapshot that cannot be restored."""
    if properties.model_snapshot:
        return _restored(properties)
    startup = Startup()
    below = reading.models_of(properties)
    for name, file in _listed(properties, startup.warnings):
        fate = fetched.get(file) if fetched else None
        if is_url(file) and fate is None:
            startup.urls.append(file)
            continue
        try:
            origin = _origin(properties, file, fate, startup)
            _add(startup, properties, Wish(file, model_name=name), origin, below, workers_default)
        except (SettingsError, OSError) as error:
            startup.failed[name or stem_of(shown(file).rpartition("/")[2])] = str(error)
            startup.warnings.append(f"Failed to load model: {shown(file)}: {error}")
    return startup


def is_url(file: str) -> bool:
    return "://" in file


def shown(file: str) -> str:
    """For logs: a URL without its query, which may be a signature."""
    return file.partition("?")[0] if is_url(file) else file


def archive_in(store: str, file: str) -> Path:
    """An archive in the model store, by its name there. Raises: SettingsError."""
    if not file:
        raise SettingsError("empty url")
    if ".." in file:
        raise SettingsError(f"Relative path is not allowed in url: {file}")
    path = Path(store) / file
    if not path.exists():
        raise SettingsError(f"Model not found at: {file}")
    return path


def _listed(properties: Properties, warnings: list[str]) -> Iterator[tuple[str, str]]:
    """Name (or "") and file of what `load_models` says."""
    said = properties.load_models
    if said.lower() != ALL:
        for part in filter(None, (part.strip() for part in said.split(","))):
            name, equals, file = part.partition("=")
            named = equals and not is_url(name)  # a URL may have one of its own
            yield (name.strip(), file.strip()) if named else ("", part)
        return
    try:
        entries = sorted(Path(properties.model_store).iterdir())
    except OSError as error:
        warnings.append(f"Model store path is not found: {properties.model_store}: {error.strerror}")
        return
    for path in entries:
        if not path.name.startswith(".") and (path.is_dir() or path.name.endswith(ENDINGS)):
            yield "", path.name


def _origin(properties: Properties, file: str, fate: Fetched | None, startup: Startup) -> Origin:
    """Where the archive is. Raises: SettingsError."""
    if fate is None:
        return Origin(str(archive_in(properties.model_store, file)), at_startup=True)
    if fate.refused:
        raise SettingsError(fate.refused.replace(file, shown(file)))
    if not fate.downloaded:
        name = Path(fate.path).name
        startup.warnings.append(f"{shown(file)}: not fetched: {name} is in the model store, and is served")
    return Origin(fate.path, downloaded=fate.downloaded, at_startup=True)


def _add(
    startup: Startup,
    properties: Properties,
    wish: Wish,
    origin: Origin,
    models: dict[str, dict[str, dict[str, Any]]],
    workers_default: int,
) -> None:
    peeked = peek(Path(origin.archive))
    key = wish.model_name or peeked.manifest.model_name, peeked.manifest.model_version
    below = _positive(models.get(key[0], {}).get(key[1], {}))
    workers = below.get("minWorkers", workers_default)
    wish = dataclasses.replace(wish, initial_workers=workers, workers_max=below.get("maxWorkers", workers))
    origin = dataclasses.replace(origin, below=below)
    registration = _checked(startup, registration_of(peeked, wish, properties, origin))
    if note := peeked.config.warning:
        startup.warnings.append(f"{shown(wish.url)}: {note}")
    startup.registrations.append(registration)
    if models.get(key[0], {}).get(key[1], {}).get("defaultVersion") is True:
        startup.defaults[key[0]] = key[1]
    startup.defaults.setdefault(*key)


def _restored(properties: Properties) -> Startup:
    startup = Startup()
    for name, versions in snapshots.models_of(properties).items():
        for version, said in versions.items():
            try:
                archive = archive_in(properties.model_store, said["marName"])
            except SettingsError:
                raise SettingsError(
                    f"Model archive file for model :{name}, version :{version} not found in model store"
                ) from None
            registration = _restored_one(properties, name, said, archive)
            startup.registrations.append(_checked(startup, registration))
            if said.get("defaultVersion") is True:
                startup.defaults[name] = registration.version
    if not startup.registrations:
        startup.warnings.append("Model snapshot is empty. Starting without initial models.")
    return startup


def _restored_one(properties: Properties, name: str, said: dict[str, Any], archive: Path) -> Registration:
    wish = Wish(
        said["marName"],
        model_name=name,
        batch_size=said.get("batchSize"),
        max_batch_delay=said.get("maxBatchDelay"),
        response_timeout=said.get("responseTimeout"),
        startup_timeout=said.get("startupTimeout"),
    )
    made = registration_of(peek(archive), wish, properties, Origin(str(archive), at_startup=True))
    workers = max(said.get("minWorkers", 0), 0)  # as many as there were, whatever the archive says
    most = max(said.get("maxWorkers", 0), workers)
    return dataclasses.replace(made, workers_min=workers, workers_max=most)


def _checked(startup: Startup, registration: Registration) -> Registration:
    """Raises: SettingsError for what no model may be called, and for what is there already."""
    if not NAME.fullmatch(registration.model) or not VERSION.fullmatch(registration.version):
        raise SettingsError(f"{registration.model} {registration.version}: no name and version of a model")
    if any(one.key == registration.key for one in startup.registrations):
        raise SettingsError(
            f"Model version {registration.version} is already registered for model {registration.model}"
        )
    return registration


def _positive(said: dict[str, Any]) -> dict[str, Any]:
    """Numbers that count: TorchServe passes over those of 0 and less."""
    return {key: value for key, value in said.items() if type(value) is int and value > 0}
