"""Settings: small frozen dataclasses, read once.

Knows: every setting of every process, its default, and where it may come from.
Must not know: what the settings are for.

Precedence: command line, over the environment (`HEADWAY_...`), over `headway.toml`, over the default.
A setting `batch_ms` of the section `broker` is `[broker] batch_ms` in the file,
`HEADWAY_BROKER_BATCH_MS` in the environment and `--batch-ms` on the command line of `headway-broker`.
Settings of `Shared` belong to every process: top-level keys in the file, `HEADWAY_RUN_DIR`, `--run-dir`.
Anything unknown, or of a wrong type, is refused with the name of the offending key.
"""

from __future__ import annotations

import math
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, TypeVar, get_type_hints

from headway.errors import SettingsError

FILES = (Path("headway.toml"), Path("/etc/headway/headway.toml"))
SHM = Path("/dev/shm")


def default_run_dir() -> Path:
    """Where sockets, locks and shared memory live unless told otherwise: short, and ours alone.

    `$XDG_RUNTIME_DIR/headway` where a login session has one, else `headway-UID` in `/dev/shm`, which is
    memory, else in `/tmp`. (An `ipc` path has at most 107 characters.)
    """
    base = os.environ.get("XDG_RUNTIME_DIR")
    if base:
        return Path(base) / "headway"
    return (SHM if os.access(SHM, os.W_OK) else Path("/tmp")) / f"headway-{os.getuid()}"


def default_state_dir() -> Path:
    """Where what must survive a restart lives unless told otherwise: `$XDG_STATE_HOME/headway`."""
    base = os.environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local" / "state") / "headway"


def setting(default: Any, help: str) -> Any:
    """A dataclass field with the text that `--help` shows."""
    if callable(default):
        return field(default_factory=default, metadata={"help": help})
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True)
class Shared:
    """What every process needs to know."""

    section: ClassVar[str] = ""

    run_dir: Path = setting(default_run_dir, "folder of sockets, locks and shared memory")
    state_dir: Path = setting(default_state_dir, "folder of the management token, keys, and what was ordered")
    log_level: str = setting("info", "debug, info, warning or error")
    log_format: str = setting("text", "text or json, one line per event")

    @property
    def callers_address(self) -> str:
        """Where the broker listens for gateways and direct clients."""
        return f"ipc://{self.run_dir}/broker.sock"

    @property
    def workers_address(self) -> str:
        """Where the broker listens for workers."""
        return f"ipc://{self.run_dir}/workers.sock"


@dataclass(frozen=True)
class ClientSettings(Shared):
    """A program with a client of its own."""

    section: ClassVar[str] = "client"

    shm_bytes: int = setting(64 << 20, "shared memory for large tensors; 0 sends them inside messages")
    shm_full: str = setting("inline", "when it is full: inline, inside messages, or refuse")


@dataclass(frozen=True)
class BrokerSettings(Shared):
    """The broker."""

    section: ClassVar[str] = "broker"

    model_store: Path = setting(Path("models"), "folder of models: NAME/VERSION/model.toml")
    heartbeat_ms: int = setting(500, "a worker says something at least this often")
    silence_s: float = setting(3.0, "an idle worker silent for so long is lost")
    load_timeout_s: float = setting(600.0, "a worker that loads a model for longer is lost")


@dataclass(frozen=True)
class WorkerSettings(Shared):
    """A worker."""

    section: ClassVar[str] = "worker"

    name: str = setting("", "name in logs and status; default: worker-PID")
    device: str = setting("auto", "auto, cpu, cuda, cuda:N, or the UUID of a GPU or MIG slice")
    cuda_mps: str = setting(
        "auto", "auto: if a share or its memory is set; require: start only as its client"
    )
    cuda_mps_share: int = setting(0, "percent of the GPU's multiprocessors, through CUDA MPS; 0 for no share")
    cuda_mps_memory_mb: int = setting(0, "MiB of the GPU's memory; 0 for as many percent as the share")
    cuda_mps_pipe_dir: str = setting("", "the daemon's; default: RUN_DIR/cuda-mps-UUID if there, else CUDA's")
    threads: int = setting(0, "torch's CPU threads; 0 leaves torch's default")
    drain_s: float = setting(30.0, "how long a worker that was told to stop may finish what it has")


@dataclass(frozen=True)
class GatewaySettings(Shared):
    """The HTTP gateway."""

    section: ClassVar[str] = "gateway"

    http: str = setting("127.0.0.1:8080", "address to listen on")
    processes: int = setting(1, "gunicorn worker processes")
    request_timeout_s: float = setting(60.0, "time a request has when its caller names none")
    request_timeout_s_max: float = setting(3600.0, "the most that a caller may ask for")
    body_bytes_max: int = setting(32 << 20, "a larger body is refused with 413")
    shm_bytes: int = setting(256 << 20, "shared memory for large bodies, each process its own; 0 for none")
    shm_full: str = setting("inline", "when it is full: inline, bodies inside messages, or refuse, a 503")
    metrics_dir: str = setting("", "folder where gateway processes share counters; default: in run_dir")


SECTIONS: tuple[type[Shared], ...] = (ClientSettings, BrokerSettings, WorkerSettings, GatewaySettings)
S = TypeVar("S", bound=Shared)
_CHOICES = {
    "log_format": ("text", "json"),
    "shm_full": ("inline", "refuse"),
    "cuda_mps": ("auto", "require"),
}
_MOST = {"cuda_mps_share": 100}


def read(cls: type[S], given: Mapping[str, Any] | None = None, file: Path | None = None) -> S:
    """The settings of one process. `given` is what the command line says (None: not said).

    Raises: SettingsError naming the key and where it was found.
    """
    values: dict[str, Any] = {}
    values.update(_from_file(cls, file))
    values.update(_from_environment(cls))
    for key, value in (given or {}).items():
        if value is not None:
            values[key] = _converted(cls, key, value, f"--{key.replace('_', '-')}")
    settings = cls(**values)
    for key, choices in _CHOICES.items():
        if (said := getattr(settings, key, choices[0])) not in choices:
            raise SettingsError(f"{key}: {said!r} is not {' or '.join(choices)}")
    for key, most in _MOST.items():
        if getattr(settings, key, 0) > most:
            raise SettingsError(f"{key}: {getattr(settings, key)} is over {most}")
    return settings


def find_file() -> Path | None:
    """`$HEADWAY_CONFIG`, else `headway.toml` here, else `/etc/headway/headway.toml`, else None."""
    named = os.environ.get("HEADWAY_CONFIG")
    if named:
        return Path(named)
    return next((path for path in FILES if path.is_file()), None)


def _from_file(cls: type[Shared], file: Path | None) -> dict[str, Any]:
    path = file or find_file()
    if path is None:
        return {}
    try:
        table = tomllib.loads(path.read_text())
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:  # not UTF-8, not TOML, 5,000 digits, 3,000 brackets
        raise SettingsError(f"{path}: not TOML: {error}") from None
    _check_file(table, path)
    shared = {k: v for k, v in table.items() if k in _names(Shared)}
    found = shared | table.get(cls.section, {})
    return {k: _converted(cls, k, v, f"{path}: {k}") for k, v in found.items()}


def _check_file(table: dict[str, Any], path: Path) -> None:
    sections = {s.section: _names(s) for s in SECTIONS}
    for key, value in table.items():
        if isinstance(value, dict) and key in sections:
            for inner in value:
                if inner not in sections[key]:
                    raise SettingsError(f"{path}: [{key}] {inner} is not a setting")
        elif key not in _names(Shared):
            raise SettingsError(f"{path}: {key} is not a setting or section")


def _from_environment(cls: type[Shared]) -> dict[str, Any]:
    """The section's own variables win over the shared ones. Others that start with HEADWAY_ are not ours
    to judge: `HEADWAY_HTTP` may well be a script's."""
    shared: dict[str, Any] = {}
    owned: dict[str, Any] = {}
    own = f"HEADWAY_{cls.section.upper()}_"
    for variable, text in os.environ.items():
        key = variable.removeprefix(own).lower()
        if variable.startswith(own):
            if key not in _names(cls):
                raise SettingsError(f"{variable} is not a setting")
            owned[key] = _converted(cls, key, text, variable)
        key = variable.removeprefix("HEADWAY_").lower()
        if variable.startswith("HEADWAY_") and key in _names(Shared):
            shared[key] = _converted(cls, key, text, variable)
    return shared | owned


def _names(cls: type[Shared]) -> set[str]:
    return {f.name for f in fields(cls)}


def _converted(cls: type[Shared], key: str, value: Any, where: str) -> Any:
    """`value` as the type that the field declares; text is parsed. Raises: SettingsError."""
    wanted = get_type_hints(cls)[key]
    if wanted in (int, float):
        return _number(wanted, value, where)
    if wanted is Path and isinstance(value, str):
        return Path(value)
    if not isinstance(value, wanted):
        raise SettingsError(f"{where} must be of type {wanted.__name__}, not {value!r}")
    return value


def _number(wanted: type[int] | type[float], value: Any, where: str) -> float:
    if not isinstance(value, (str, int, wanted)) or isinstance(value, bool):
        raise SettingsError(f"{where} must be of type {wanted.__name__}, not {value!r}")
    try:
        number = wanted(value)
    except (ValueError, OverflowError):
        raise SettingsError(f"{where} must be of type {wanted.__name__}, not {value!r:.100}") from None
    if not 0 <= number < math.inf:
        raise SettingsError(f"{where} must be at least 0, and finite, not {value!r}")
    return number
