"""Settings: small frozen dataclasses, read once.

Knows: every setting of every process, its default, and where it may come from.
Must not know: what the settings are for.

Precedence: command line, over the environment (`HEADWAY_...`), over `headway.toml`, over the default.
A setting `batch_ms` of the section `broker` is `[broker] batch_ms` in the file,
`HEADWAY_BROKER_BATCH_MS` in the environment and `--batch-ms` on the command line of `headway-broker`.
Settings of `Shared` belong to every process: top-level keys in the file, `HEADWAY_RUN_DIR`, `--run-dir`.
Anything unknown, or of a wrong type, is refused with the name of the offending key.

Over 300 lines: half of it is the list of all settings.
"""

from __future__ import annotations

import math
import os
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, TypeVar, get_type_hints

from headway.errors import SettingsError

FILES = (Path("headway.toml"), Path("/etc/headway/headway.toml"))
SHM = Path("/dev/shm")
TOKEN_FILE = "token"  # in the state directory


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
    tcp_security: str = setting("curve", "TCP with keys (curve), or without any encryption or proof (plain)")
    keys_dir: str = setting("", "folder of the keys for TCP; default: keys in state_dir")
    key_name: str = setting("", "own key pair, a name in keys_dir; default: the only one for the role")

    @property
    def keys_path(self) -> Path:
        """Where the keys for TCP are."""
        return Path(self.keys_dir) if self.keys_dir else self.state_dir / "keys"

    @property
    def callers_address(self) -> str:
        """Where the broker listens for gateways and direct clients."""
        return f"ipc://{self.run_dir}/broker.sock"

    @property
    def workers_address(self) -> str:
        """Where the broker listens for workers."""
        return f"ipc://{self.run_dir}/workers.sock"


@dataclass(frozen=True)
class Joining(Shared):
    """Whoever connects to a broker: in the run directory, or where `broker` says."""

    broker: str = setting("", "the broker's address, such as tcp://10.0.0.1:7401; default: in run_dir")

    @property
    def callers_address(self) -> str:
        """Where a gateway or a direct client finds the broker."""
        return self.broker or super().callers_address

    @property
    def workers_address(self) -> str:
        """Where a worker or an agent finds the broker."""
        return self.broker or super().workers_address


@dataclass(frozen=True)
class ClientSettings(Joining):
    """A program with a client of its own."""

    section: ClassVar[str] = "client"

    shm_bytes: int = setting(64 << 20, "shared memory for large tensors; 0 sends them inside messages")
    shm_full: str = setting("inline", "when it is full: inline, inside messages, or refuse")


@dataclass(frozen=True)
class BrokerSettings(Shared):
    """The broker."""

    section: ClassVar[str] = "broker"

    model_store: Path = setting(Path("models"), "folder of models: NAME/VERSION/model.toml")
    store_watch_s: float = setting(0.0, "look into the model store so often; 0: only when told to")
    heartbeat_ms: int = setting(500, "a worker says something at least this often")
    silence_s: float = setting(3.0, "an idle worker silent for so long is lost")
    load_timeout_s: float = setting(600.0, "a worker that loads a model for longer is lost")
    callers_tcp: str = setting("", "listen here too for callers on other hosts, such as tcp://10.0.0.1:7401")
    workers_tcp: str = setting("", "listen here too for workers on other hosts, such as tcp://10.0.0.1:7402")


@dataclass(frozen=True)
class WorkerSettings(Joining):
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
    copies_max: int = setting(0, "copies that it loads at most; 0: as many as fit")
    drain_s: float = setting(30.0, "how long a worker that was told to stop may finish what it has")
    model_store: str = setting("", "the models' folder on this host; default: the broker's, by the same path")
    agent_lock: str = setting("", "file that the agent which started it keeps locked; none: no agent")
    orphan_s: float = setting(60.0, "a worker whose agent has been gone for so long stops")


@dataclass(frozen=True)
class AgentSettings(Joining):
    """The host agent."""

    section: ClassVar[str] = "agent"

    name: str = setting("", "name in logs and status; default: the host's name")
    devices: str = setting("auto", "devices with commas between: cpu, cuda:N, a GPU's or MIG slice's UUID")
    places: int = setting(0, "workers that a device may have; 0: one on a GPU, one for each core on the CPU")
    workers_max: int = setting(0, "workers that this host may have; 0: as many as its devices have places")
    workers_wanted: int = setting(-1, "workers if nobody orders otherwise; -1: one for each device")
    share: int = setting(0, "percent of its device that each worker gets (CUDA MPS); 0: no share")
    threads: int = setting(0, "torch's CPU threads in each worker; 0 leaves torch's default")
    copies_max: int = setting(0, "copies that each worker loads at most; 0: as many as fit")
    workers_as: str = setting("children", "children, or units: headway-worker@NAME.service of systemd")
    drain_s: float = setting(30.0, "how long a worker that is told to stop may finish what it has")
    orphan_s: float = setting(60.0, "workers stop when the agent has been gone for so long")


@dataclass(frozen=True)
class GatewaySettings(Joining):
    """The HTTP gateway."""

    section: ClassVar[str] = "gateway"

    http: str = setting("127.0.0.1:8080", "address to listen on")
    management: str = setting("127.0.0.1:8081", "address for orders and the state; empty for none")
    metrics: str = setting("127.0.0.1:8082", "address for Prometheus; empty for none")
    processes: int = setting(1, "gunicorn worker processes")
    request_timeout_s: float = setting(60.0, "time a request has when its caller names none")
    request_timeout_s_max: float = setting(3600.0, "the most that a caller may ask for")
    body_bytes_max: int = setting(32 << 20, "a larger body is refused with 413")
    shm_bytes: int = setting(256 << 20, "shared memory for large bodies, each process its own; 0 for none")
    shm_full: str = setting("inline", "when it is full: inline, bodies inside messages, or refuse, a 503")
    metrics_dir: str = setting("", "folder where gateway processes share counters; default: in run_dir")
    register_urls: str = setting("", "what models may be fetched from: URL prefixes, with commas")
    register_bytes_max: int = setting(16 << 30, "the most that a fetched model may have, packed and unpacked")
    register_timeout_s: float = setting(900.0, "how long to fetch a model may take")
    torchserve: str = setting("", "speak TorchServe's interfaces: a file that `headway torchserve` writes")


SECTIONS: tuple[type[Shared], ...] = (
    ClientSettings,
    BrokerSettings,
    WorkerSettings,
    AgentSettings,
    GatewaySettings,
)
S = TypeVar("S", bound=Shared)
_CHOICES = {
    "log_format": ("text", "json"),
    "shm_full": ("inline", "refuse"),
    "tcp_security": ("curve", "plain"),
    "workers_as": ("children", "units"),
    "cuda_mps": ("auto", "require"),
}
_LEAST = {"workers_wanted": -1}  # of numbers that may be less than 0
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


def variables(names: Iterable[str]) -> dict[str, str]:
    """What the environment says that is no setting of Headway's, as keys for somebody else's service."""
    return {name: os.environ.get(name, "") for name in names}


def find_token(settings: Shared, file: Path | None = None) -> str:
    """The management token: in `file`, else `HEADWAY_TOKEN`, else in the state directory.

    Raises: SettingsError saying where it was looked for.
    """
    said = os.environ.get("HEADWAY_TOKEN", "")
    if said and file is None:
        return said
    path = file or settings.state_dir / TOKEN_FILE
    try:
        token = path.read_text().strip()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text"
        raise SettingsError(f"no management token: {path}: {reason}; or set HEADWAY_TOKEN") from None
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise SettingsError(f"no management token: {path} holds none")
    return token


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
        return _number(wanted, value, where, _LEAST.get(key, 0))
    if wanted is Path and isinstance(value, str):
        return Path(value)
    if not isinstance(value, wanted):
        raise SettingsError(f"{where} must be of type {wanted.__name__}, not {value!r}")
    return value


def _number(wanted: type[int] | type[float], value: Any, where: str, least: int) -> float:
    if not isinstance(value, (str, int, wanted)) or isinstance(value, bool):
        raise SettingsError(f"{where} must be of type {wanted.__name__}, not {value!r}")
    try:
        number = wanted(value)
    except (ValueError, OverflowError):
        raise SettingsError(f"{where} must be of type {wanted.__name__}, not {value!r:.100}") from None
    if not least <= number < math.inf:
        raise SettingsError(f"{where} must be at least {least}, and finite, not {value!r}")
    return number
