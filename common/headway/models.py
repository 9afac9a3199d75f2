"""What a model version is: the content of its `model.toml`, checked.

Knows: every key of `model.toml`, its type, default and limits.
Must not know: files (that is `store`), torch, processes.

Unknown keys and wrong types are refused by name, because a typo in `batch_dealy_ms` that is silently
ignored costs somebody a night.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from functools import cached_property
from typing import Any, get_type_hints

from headway.errors import SettingsError
from headway.messages import BATCH_ROWS_MAX, TIMEOUT_MS_MAX
from headway.tensors import BY_NAME, NAME_BYTES_MAX, RANK_MAX

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,127}")
VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+\-]{0,127}")
TEMPORARY = (".tmp", ".part", ".partial", ".swp", "~")  # of what is still being copied
DEVICE = re.compile(r"auto|cpu|cuda(:[0-9]+)?")
WORKER = "worker"
BATCH_CLOCKS = ("arrival", WORKER)
ANY = "any"
SEQUENCES_MAX = 1 << 20
SEQUENCE_OPENS = ("start", ANY)
PRECISIONS = ("float32", "float16", "bfloat16")


@dataclass(frozen=True)
class TensorSpec:
    """One input or output. `shape` is without the batch dimension; -1 stands for any size.

    For inputs only: `pad_value` lets requests whose -1 dimensions differ share a batch, padded at the
    end; `mask` then names one more input that the model takes, bool `[batch, *padded shape]`, true where
    the data is the caller's. `warmup_shape` is what warm-up uses in place of `shape` (needed where it
    has a -1).
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    pad_value: float | None = None
    mask: str = ""
    warmup_shape: tuple[int, ...] | None = None

    @property
    def example_shape(self) -> tuple[int, ...] | None:
        """A shape without -1 to warm up with, or None where nobody said one."""
        shape = self.warmup_shape or self.shape
        return None if -1 in shape else shape


@dataclass(frozen=True)
class ModelSpec:
    """One version of a model, as its `model.toml` describes it."""

    name: str
    version: str
    folder: str
    backend: str
    file: str = ""
    processing: str = ""
    device: str = "auto"
    batch_size_max: int = 1
    batch_delay_ms: float = 0.0
    batch_clock: str = "arrival"
    batch_early: bool = True
    batch_buckets: tuple[int, ...] = ()
    continuous: bool = False
    in_flight_max: int = 0
    slo_ms: float = 0.0
    share: float = 1.0
    response_timeout_s: float = 60.0
    load_timeout_s: float = 0.0
    queue_size_max: int = 1000
    queue_bytes_max: int = 256 << 20
    copies: int = 1
    copies_min: int = -1
    copies_max: int = -1
    memory_mb: int = 0
    idempotent: bool = True
    decode_ahead: bool = True
    sequences_max: int = 0
    sequence_queue_max: int = 1
    sequence_idle_ms: float = 60_000.0
    sequence_timeout_ms: float = 0.0
    sequence_opens: str = "start"
    precision: str = "float32"
    channels_last: bool = False
    cuda_graphs: bool = False
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, str]:
        return (self.name, self.version)

    @cached_property
    def abreast_max(self) -> int:
        """How many batches a copy takes at a time that run beside one another; 0: one after the other. With
        `continuous`, each request is a batch on its way, and the model's batch is what runs of these."""
        return self.batch_size_max if self.continuous else self.in_flight_max

    @property
    def may_run_again(self) -> bool:
        """Whether a request may be run a second time: not where the first left its mark on a sequence."""
        return self.idempotent and not self.sequences_max

    @property
    def copies_between(self) -> tuple[int, int]:
        """The least and the most copies: `copies` where nothing else is said."""
        least = self.copies if self.copies_min < 0 else self.copies_min
        return least, max(least, self.copies if self.copies_max < 0 else self.copies_max)


_LIMITS: dict[str, tuple[float, float]] = {
    "batch_size_max": (1, BATCH_ROWS_MAX),
    "batch_delay_ms": (0, TIMEOUT_MS_MAX),
    "in_flight_max": (0, 1 << 12),
    "slo_ms": (0, TIMEOUT_MS_MAX),
    "share": (0.001, 1000),
    "response_timeout_s": (0.001, TIMEOUT_MS_MAX / 1000),
    "load_timeout_s": (0, TIMEOUT_MS_MAX / 1000),
    "queue_size_max": (0, 1 << 40),
    "queue_bytes_max": (1, 1 << 60),
    "copies": (0, 1 << 16),
    "copies_min": (-1, 1 << 16),
    "copies_max": (-1, 1 << 16),
    "memory_mb": (0, 1 << 30),
    "sequences_max": (0, SEQUENCES_MAX),
    "sequence_queue_max": (0, SEQUENCES_MAX),
    "sequence_idle_ms": (1, TIMEOUT_MS_MAX),
    "sequence_timeout_ms": (0, TIMEOUT_MS_MAX),
}
NO_VERSION = "no version: letters, digits, '_', '-', '+' and '.', and no ending like .tmp"
_GIVEN = ("name", "version", "folder")  # by the store, not by the file


def is_version(text: str) -> bool:
    """Whether a version may be called so. A copy that is still being made may not."""
    return bool(VERSION.fullmatch(text)) and not text.endswith(TEMPORARY)


def parse_model(table: Mapping[str, Any], name: str, version: str, folder: str) -> ModelSpec:
    """The spec in a parsed `model.toml`. Raises: SettingsError naming the key that is wrong."""
    if not NAME.fullmatch(name):
        raise SettingsError(f"{name!r} is no name for a model: letters, digits, '_', '-' and '.'")
    if not is_version(version):
        raise SettingsError(f"{version!r} is {NO_VERSION}")
    values = checked(ModelSpec, table, skip=_GIVEN)
    for key in ("inputs", "outputs"):
        if key in values:
            values[key] = tuple(_tensor(key, i, entry) for i, entry in enumerate(values[key]))
    spec = ModelSpec(name=name, version=version, folder=folder, **values)
    _check(spec)
    return spec


def _tensor(key: str, index: int, entry: Any) -> TensorSpec:
    where = f"{key}[{index}]"
    if not isinstance(entry, Mapping):
        raise SettingsError(f"{where} must be a table")
    values = checked(TensorSpec, entry, where=where + ".")
    spec = TensorSpec(**values)
    if not 0 < len(spec.name) <= NAME_BYTES_MAX:
        raise SettingsError(f"{where}.name must have 1 to {NAME_BYTES_MAX} characters")
    if spec.dtype not in BY_NAME:
        raise SettingsError(f"{where}.dtype: {spec.dtype!r} is not one of {', '.join(BY_NAME)}")
    for shape in (spec.shape, spec.warmup_shape or ()):
        if any(type(d) is not int or d < -1 or d == 0 for d in shape):
            raise SettingsError(f"{where}: a shape holds sizes above 0, or -1 for any, not {list(shape)}")
        if len(shape) >= RANK_MAX:
            raise SettingsError(f"{where}: a shape has at most {RANK_MAX - 1} dimensions, and the batch's")
    return spec


def _check(spec: ModelSpec) -> None:
    for key, (least, most) in _LIMITS.items():
        if not least <= getattr(spec, key) <= most:  # so written, it refuses NaN
            raise SettingsError(f"{key} must be from {least} to {most}, not {getattr(spec, key)}")
    if not DEVICE.fullmatch(spec.device):
        raise SettingsError(f"device: {spec.device!r} is not auto, cpu, cuda or cuda:N")
    if spec.batch_clock not in BATCH_CLOCKS:
        raise SettingsError(f"batch_clock: {spec.batch_clock!r} is not one of {', '.join(BATCH_CLOCKS)}")
    if spec.sequence_opens not in SEQUENCE_OPENS:
        raise SettingsError(
            f"sequence_opens: {spec.sequence_opens!r} is not one of {', '.join(SEQUENCE_OPENS)}"
        )
    if spec.sequences_max and spec.slo_ms:
        raise SettingsError("slo_ms: a model with sequences (sequences_max) refuses nothing early")
    if spec.precision not in PRECISIONS:
        raise SettingsError(f"precision: {spec.precision!r} is not one of {', '.join(PRECISIONS)}")
    _check_buckets(spec)
    _check_abreast(spec)
    if 0 <= spec.copies_max < spec.copies_between[0]:
        raise SettingsError(f"copies_max: {spec.copies_max} is below the least, {spec.copies_between[0]}")
    for key in ("file", "processing"):
        if ".." in getattr(spec, key).split("/") or getattr(spec, key).startswith("/"):
            raise SettingsError(f"{key}: {getattr(spec, key)!r} leaves the model's folder")
    for key in ("inputs", "outputs"):
        names = [t.name for t in getattr(spec, key)] + [t.mask for t in getattr(spec, key) if t.mask]
        if len(set(names)) != len(names):
            raise SettingsError(f"{key}: two tensors have one name")


def _check_buckets(spec: ModelSpec) -> None:
    buckets = spec.batch_buckets
    if any(type(rows) is not int or rows < 1 for rows in buckets) or list(buckets) != sorted(set(buckets)):
        raise SettingsError(f"batch_buckets must be rising whole numbers above 0, not {list(buckets)}")
    if buckets and buckets[-1] != spec.batch_size_max:
        raise SettingsError(
            f"batch_buckets must end with batch_size_max, which is {spec.batch_size_max}, not {buckets[-1]}"
        )


def _check_abreast(spec: ModelSpec) -> None:
    if spec.continuous and spec.in_flight_max:
        raise SettingsError(
            "in_flight_max: a continuous batch has at most batch_size_max requests; leave it out"
        )
    for key in ("slo_ms", "batch_buckets", "cuda_graphs", "sequences_max"):
        if spec.abreast_max and getattr(spec, key):
            why = "continuous" if spec.continuous else "in_flight_max"
            raise SettingsError(f"{key}: means nothing with {why}, where batches run beside one another")


def checked(
    cls: type[Any], table: Mapping[str, Any], where: str = "", skip: tuple[str, ...] = ()
) -> dict[str, Any]:
    """The entries of `table` as arguments for the dataclass `cls`, each of the type it declares.

    Raises: SettingsError naming the first key that is unknown, missing, or of a wrong type.
    """
    hints = get_type_hints(cls)
    known = {f.name: f for f in fields(cls) if f.name not in skip}
    for key in table:
        if key not in known:
            raise SettingsError(f"{where}{key} is not known; known are {', '.join(known)}")
    for key, f in known.items():
        if key not in table and f.default is MISSING and f.default_factory is MISSING:
            raise SettingsError(f"{where}{key} is missing")
    return {key: _typed(where + key, hints[key], value) for key, value in table.items()}


def _float(key: str, value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        raise SettingsError(f"{key}: the number is too large") from None


def _typed(key: str, hint: Any, value: Any) -> Any:
    text = str(hint)
    if "tuple" in text and isinstance(value, list):
        return tuple(value)
    if "Mapping" in text and isinstance(value, Mapping):
        return value
    if "float" in text and type(value) in (int, float):
        return _float(key, value)
    if type(value) is hint:
        return value
    wanted = "array" if "tuple" in text else "table" if "Mapping" in text else getattr(hint, "__name__", text)
    raise SettingsError(f"{key} must be of type {wanted}, not {type(value).__name__} ({value!r})")
