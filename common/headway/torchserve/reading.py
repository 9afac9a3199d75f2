"""`config.properties`, the command line and the environment, read into `Properties` as TorchServe reads them.

    file       `$TS_CONFIG_FILE`, else --ts-config, else the latest snapshot, else config.properties here
    values     environment (where it may), over command line, over file, over default

Knows: every property of TorchServe's, its type, whether it means anything here. Must not know: files and the
environment themselves (their contents are passed in), what a property is for.

Nothing that TorchServe takes is an error here: what is unknown or means nothing is said in one line each.
Truth values are as Java reads them: what is not "true" is false.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

from headway.errors import SettingsError
from headway.torchserve.addresses import PORTS, parse_address
from headway.torchserve.keys import FILE as KEY_FILE
from headway.torchserve.properties import Properties

CONFIG_FILE = "config.properties"
LOGS = "logs"
METRICS_MODES = ("log", "prometheus", "legacy")
# Known to TorchServe; there is nothing here that they would change.
MEANINGLESS = (
    "async_logging", "blacklist_env_vars", "cpp_log_config", "cpu_launcher_args", "cpu_launcher_enable",
    "debug", "initial_distribution_port", "io_ratio", "ipex_enable", "ipex_gpu_enable", "model_server_home",
    "netty_client_threads", "number_of_netty_threads", "plugins_path", "prefer_direct_buffer",
    "system_metrics_cmd", "use_native_io", "vmargs",
)  # fmt: skip
# What only says how the rest is read, or what TorchServe writes into its snapshots.
SWITCHES = ("enable_envvars_config", "use_env_allowed_urls", "version", "tsConfigFile", "python")
# Not to be said in a file.
_INNER = ("not_started", "said", "config_snapshots", "log_location", "metrics_location", "key_file")
_PATHS = (
    "model_store", "workflow_store", "keystore", "private_key_file", "certificate_file", "metrics_config",
)  # fmt: skip
KNOWN = tuple(f.name for f in dataclasses.fields(Properties) if f.name not in _INNER)
_TYPES = get_type_hints(Properties)
_LEAST = {"number_of_gpu": -1, "max_request_size": 1, "max_response_size": 1, "metric_time_interval": 1}
_LEAST |= {"job_queue_size": 1, "default_response_timeout": 1, "default_startup_timeout": 1}
_MOST = {"grpc_inference_port": 65535, "grpc_management_port": 65535, "initial_worker_port": 65535}
_VARIABLE = re.compile(r"\$\$([^$]+[^$])\$\$")
# Variables that are not called as the property.
_VARIABLES = {"TS_TOKEN_EXPIRATION_TIME_MIN": "token_expiration_min"}
_OIP = "TS_OPEN_INFERENCE_PROTOCOL"


@dataclass(frozen=True)
class Given:
    """What there is to read. `file`: what the configuration file or snapshot says; `line`: what the command
    line does, under the properties' names. `where` names the file in messages. `folder` is the working
    folder, below which relative paths are."""

    folder: Path
    file: Mapping[str, str] = dataclasses.field(default_factory=dict)
    line: Mapping[str, str] = dataclasses.field(default_factory=dict)
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)
    where: str = CONFIG_FILE
    snapshots: bool = True


@dataclass(frozen=True)
class Read:
    """`warnings`: lines for the log."""

    properties: Properties
    warnings: tuple[str, ...] = ()


def read_properties(given: Given) -> Read:
    """Raises: SettingsError naming the key and where it was found."""
    said = {**_resolved(given), **given.line}
    said |= _from_environment(given.environment, said)
    warnings = list(_unheeded(said))
    values = {key: _converted(key, text, given, warnings) for key, text in said.items() if key in KNOWN}
    if oip := given.environment.get(_OIP):
        values["ts_open_inference_protocol"] = oip == "oip"
    values.setdefault("workflow_store", values.get("model_store", ""))
    for key in PORTS:
        parse_address(values.get(key, getattr(Properties, key)), key)
    properties = Properties(**values, **_places(given), config_snapshots=given.snapshots, said=said)
    models_of(properties, given.where)
    return Read(properties, tuple(warnings))


def models_of(properties: Properties, where: str = CONFIG_FILE) -> dict[str, dict[str, dict[str, Any]]]:
    """The property `models`: by name and version, what is said of each. Raises: SettingsError."""
    if not properties.models:
        return {}
    try:
        found = json.loads(properties.models)
        return {
            str(name): {str(version): {**said} for version, said in versions.items()}
            for name, versions in found.items()
        }
    except (ValueError, AttributeError, TypeError, RecursionError) as error:
        raise SettingsError(f"{where}: models is not JSON by name and version: {error}") from None


def _resolved(given: Given) -> dict[str, str]:
    """The file's values, with `$$NAME$$` replaced from the environment."""

    def value_of(found: re.Match[str]) -> str:
        if found[1] not in given.environment:
            raise SettingsError(f"{given.where}: Invalid Environment Variable {found[1]}")
        return given.environment[found[1]]

    return {key: _VARIABLE.sub(value_of, text) for key, text in given.file.items()}


def _from_environment(environment: Mapping[str, str], said: Mapping[str, str]) -> dict[str, str]:
    if not _is_true(said.get("enable_envvars_config", "")):
        return {}
    found: dict[str, str] = {}
    for variable, text in environment.items():
        key = _key_of(variable)
        if key and (key != "allowed_urls" or said.get("use_env_allowed_urls") == "true"):
            found[key] = text
    return found


def _key_of(variable: str) -> str:
    """The property that a variable sets, or ""."""
    if not variable.startswith("TS_") or variable == _OIP:
        return ""
    whole = variable.lower()  # some properties are called ts_ themselves
    key = _VARIABLES.get(variable, whole if whole in KNOWN else whole.removeprefix("ts_"))
    return key if key in KNOWN or key in MEANINGLESS else ""


def _unheeded(said: Mapping[str, str]) -> Iterator[str]:
    meaningless = sorted(key for key in said if key in MEANINGLESS)
    unknown = sorted(set(said) - {*KNOWN, *MEANINGLESS, *SWITCHES})
    if meaningless:
        yield f"properties without a meaning here: {', '.join(meaningless)}"
    if unknown:
        yield f"unknown properties: {', '.join(unknown)}"


def _converted(key: str, text: str, given: Given, warnings: list[str]) -> Any:
    wanted = _TYPES[key]
    if wanted is bool:
        if text.strip().lower() not in ("true", "false"):
            warnings.append(f"{key}: {text!r} is not true or false; it counts as false")
        return _is_true(text)
    if wanted in (int, float):
        return _number(key, text.strip(), given)
    if key == "metrics_mode":
        return _metrics_mode(text, warnings)
    if key in _PATHS and text.strip():
        return str((given.folder / text.strip()).resolve())
    return text.strip()


def _number(key: str, text: str, given: Given) -> float:
    wanted = int if _TYPES[key] is int else float
    where = "the environment or command line" if key not in given.file else given.where
    try:
        number = wanted(text)
    except ValueError:
        what = "a whole number" if wanted is int else "a number"
        raise SettingsError(f"{where}: {key}: {text!r:.80} is not {what}") from None
    least, most = _LEAST.get(key, 0), _MOST.get(key, 2**31 - 1)
    if not least <= number <= most:
        raise SettingsError(f"{where}: {key}: {text!r:.80} is not between {least} and {most}")
    return number


def _metrics_mode(text: str, warnings: list[str]) -> str:
    mode = re.sub(r"\s", "", text).lower()
    if mode in METRICS_MODES:
        return mode
    warnings.append(f"metrics_mode: {text!r} is not one of {', '.join(METRICS_MODES)}; it counts as log")
    return METRICS_MODES[0]


def _places(given: Given) -> dict[str, Any]:
    """Where files are written."""
    logs = given.environment.get("LOG_LOCATION") or LOGS
    metrics = given.environment.get("METRICS_LOCATION") or LOGS
    return {
        "log_location": str((given.folder / logs).resolve()),
        "metrics_location": str((given.folder / metrics).resolve()),
        "key_file": str(given.folder / KEY_FILE),
    }


def _is_true(text: str) -> bool:
    return text.strip().lower() == "true"
