"""Which metrics there are under TorchServe's names: what `metrics.yaml` declares, and a record of one
value as a worker sends it.

Knows: the file's form, units, the record's form on the wire. Must not know: Prometheus, log files, handlers.

A metric that is not declared is not shown, but for `model_metrics_auto_detect`. The declared unit is shown as
it is written in the file; a unit that a handler names is shown by its long name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from headway.errors import SettingsError
from headway.wire import are_strings

COUNTER, GAUGE, HISTOGRAM = "counter", "gauge", "histogram"
TYPES = (COUNTER, GAUGE, HISTOGRAM)
META = "metrics"  # the key of a reply's meta
LONG = {
    "ms": "Milliseconds", "s": "Seconds", "percent": "Percent", "count": "Count", "B": "Bytes",
    "kB": "Kilobytes", "MB": "Megabytes", "GB": "Gigabytes", "unit": "unit", "": "unit",
}  # fmt: skip
_SIZE_BYTES_MAX = 1 << 20
_HOST, _SERVED = ("Level", "Hostname"), ("model_name", "model_version", "hostname")
_SERVER = (
    *((COUNTER, f"Requests{which}XX", "Count", _HOST) for which in "245"),
    (COUNTER, "ts_inference_requests_total", "Count", _SERVED),
    (COUNTER, "ts_inference_latency_microseconds", "Microseconds", _SERVED),
    (COUNTER, "ts_queue_latency_microseconds", "Microseconds", _SERVED),
    (GAUGE, "QueueTime", "Milliseconds", _HOST),
    (GAUGE, "WorkerThreadTime", "Milliseconds", _HOST),
    (GAUGE, "WorkerLoadTime", "Milliseconds", ("WorkerName", *_HOST)),
    (GAUGE, "CPUUtilization", "Percent", _HOST),
    (GAUGE, "MemoryUsed", "Megabytes", _HOST),
    (GAUGE, "MemoryAvailable", "Megabytes", _HOST),
    (GAUGE, "MemoryUtilization", "Percent", _HOST),
    (GAUGE, "DiskUsage", "Gigabytes", _HOST),
    (GAUGE, "DiskUtilization", "Percent", _HOST),
    (GAUGE, "DiskAvailable", "Gigabytes", _HOST),
    (GAUGE, "GPUMemoryUtilization", "Percent", ("Level", "DeviceId", "Hostname")),
    (GAUGE, "GPUMemoryUsed", "Megabytes", ("Level", "DeviceId", "Hostname")),
    (GAUGE, "GPUUtilization", "Percent", ("Level", "DeviceId", "Hostname")),
)
_MODEL = (
    (GAUGE, "HandlerTime", "ms", ("ModelName", "Level")),
    (GAUGE, "PredictionTime", "ms", ("ModelName", "Level")),
)


@dataclass(frozen=True, eq=False)
class Declared:
    """A metric. Each is equal to itself alone: they are keys on the way of every request."""

    type: str
    name: str
    unit: str
    dimensions: tuple[str, ...]


@dataclass(frozen=True)
class Declarations:
    """What is declared: the server's own metrics by name, the models' by type and name."""

    server: Mapping[str, Declared]
    model: Mapping[tuple[str, str], Declared]


class Record(NamedTuple):
    """One value that a handler recorded. `dimensions`: names and values by turns. `request`: the ids of the
    requests that it was recorded for, "" for none."""

    type: str
    name: str
    unit: str
    value: float
    dimensions: tuple[str, ...]
    request: str = ""


def read_declarations(path: str = "") -> Declarations:
    """What the file says; without one, what TorchServe declares itself. Raises: SettingsError."""
    if not path:
        return declarations((Declared(*row) for row in _SERVER), (Declared(*row) for row in _MODEL))
    found = _loaded(Path(path))
    if not isinstance(found, dict) or not isinstance(found.get("model_metrics", {}) or {}, dict):
        raise SettingsError(f"metrics_config: {path} is not a mapping with ts_metrics and model_metrics")
    server, model = (_section(found.get(key), f"{path}: {key}") for key in ("ts_metrics", "model_metrics"))
    return declarations(server, model)


def declarations(server: Iterable[Declared], model: Iterable[Declared]) -> Declarations:
    return Declarations({one.name: one for one in server}, {(one.type, one.name): one for one in model})


def packed(records: Iterable[Record]) -> list[list[Any]]:
    """As they travel: a record for the same requests as the one before does not repeat them."""
    rows: list[list[Any]] = []
    before = ""
    for record in records:
        row: list[Any] = [*record[:4], list(record.dimensions)]
        if record.request != before:
            row.append(record.request)
            before = record.request
        rows.append(row)
    return rows


def unpacked(found: Any) -> list[Record]:
    """The records in a reply's meta; what is none is left out."""
    records = []
    request = ""
    for row in found if isinstance(found, list) else ():
        if not isinstance(row, list) or not _is_record(row):
            continue
        request = row[5] if len(row) > 5 else request
        records.append(Record(row[0], row[1], row[2], float(row[3]), tuple(row[4]), request))
    return records


def _is_record(row: list[Any]) -> bool:
    if len(row) not in (5, 6) or row[0] not in TYPES or not isinstance(row[3], int | float):
        return False
    if not isinstance(row[4], list) or len(row[4]) % 2:
        return False
    return are_strings((row[1], row[2], *row[4], *row[5:]))


def _section(found: Any, where: str) -> list[Declared]:
    """Raises: SettingsError naming what is no metric."""
    if not isinstance(found or {}, dict):
        raise SettingsError(f"metrics_config: {where} must be a mapping of {', '.join(TYPES)}")
    declared = []
    for type, metrics in (found or {}).items():
        if type not in TYPES:
            raise SettingsError(f"metrics_config: {where}: {type!r} is not one of {', '.join(TYPES)}")
        declared += [_declared(type, one, where) for one in metrics or ()]
    return declared


def _declared(type: str, found: Any, where: str) -> Declared:
    wrong = f"metrics_config: {where}: a {type} needs name, unit and a list of dimensions, not {found!r:.80}"
    if not isinstance(found, dict) or not {"name", "unit", "dimensions"} <= found.keys():
        raise SettingsError(wrong)
    if not isinstance(found["dimensions"], list):
        raise SettingsError(wrong)
    return Declared(type, str(found["name"]), str(found["unit"]), tuple(map(str, found["dimensions"])))


def _loaded(path: Path) -> Any:
    try:
        import yaml  # only here: most have no such file
    except ImportError:
        raise SettingsError(f"metrics_config: {path} cannot be read: pyyaml is not installed") from None
    try:
        if path.stat().st_size > _SIZE_BYTES_MAX:
            raise SettingsError(f"metrics_config: {path} has more than {_SIZE_BYTES_MAX} bytes")
        return yaml.safe_load(path.read_text("utf-8"))
    except (OSError, yaml.YAMLError, RecursionError, ValueError) as error:
        raise SettingsError(f"metrics_config: {path}: {error}") from None
