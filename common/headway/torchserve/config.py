"""`model-config.yaml`: what its keys mean here, and which mean nothing.

Knows: the file's keys and what `model.toml` calls them. Must not know: handlers, models.

The broker forms batches and counts copies by `model.toml`, which it reads without opening archives. So what
the file says of these is compared with that, and said once where it differs; `model_keys` is what a
`model.toml` for the archive should have. Handlers see the whole file, whatever it says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headway.errors import SettingsError
from headway.messages import TIMEOUT_MS_MAX
from headway.models import ANY, SEQUENCES_MAX, ModelSpec
from headway.torchserve.yamltext import load_yaml

FILE = "model-config.yaml"
SIZE_BYTES_MAX = 1 << 20
NUMBER_MAX = 2**31 - 1  # Java's largest: what is above is no number to TorchServe
# Theirs: ours, in `model.toml`. Both count in the same units.
NUMBERS = {
    "batchSize": "batch_size_max",
    "maxBatchDelay": "batch_delay_ms",
    "responseTimeout": "response_timeout_s",
    "jobQueueSize": "queue_size_max",
    "minWorkers": "copies_min",
    "maxWorkers": "copies_max",
}
# Whole numbers, and what each must be at least.
LEAST = {
    "batchSize": 1, "maxBatchDelay": 0, "responseTimeout": 1, "startupTimeout": 1, "jobQueueSize": 1,
    "minWorkers": 0, "maxWorkers": 0, "clientTimeoutInMills": 0, "maxRetryTimeoutInSec": 0,
    "parallelLevel": 0, "sequenceMaxIdleMSec": 0, "sequenceTimeoutMSec": 0, "maxNumSequence": 1,
    "maxSequenceJobQueueSize": 1,
}  # fmt: skip
TRUTHS = ("useJobTicket", "useVenv", "continuousBatching", "asyncCommunication", "sequenceBatching")
IN_FLIGHT_MAX = 1000  # of an asynchronous worker: TorchServe hands it batches without end
PARALLEL = ("pp", "tp", "pptp", "custom")
# Read by handlers, or by what they inherit; nothing else here looks at them.
HANDLERS = ("handler", "pt2", "micro_batching")
# Heeded where the archive was registered through TorchServe's interfaces, which write its `model.toml`.
REGISTERED = ("startupTimeout", "clientTimeoutInMills", "maxRetryTimeoutInSec", "useJobTicket", "useVenv")
# Shown to TorchServe's clients as they are; they do nothing else here.
SHOWN = ("deviceIds", "parallelType", "parallelLevel")
# Known to TorchServe, without a meaning here (yet).
IGNORED = (
    *SHOWN, "torchrun", "pippy", "deepspeed",
)  # fmt: skip


@dataclass(frozen=True)
class Config:
    """`content`: the whole file. `values`: TorchServe's own keys of the right type, by their names.
    `unused`: keys that TorchServe knows and that do nothing here. `wrong`: keys of a wrong type, which do
    not count, and what is wrong with them."""

    content: dict[str, Any] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)
    unused: tuple[str, ...] = ()
    wrong: tuple[str, ...] = ()

    @property
    def model_keys(self) -> dict[str, Any]:
        """What it says in the words of `model.toml`."""
        keys = {NUMBERS[key]: value for key, value in self.values.items() if key in NUMBERS}
        if device := self.values.get("deviceType"):
            keys["device"] = {"gpu": "cuda"}.get(device, device)
        # Of several the first counts: each is a way of its own to form batches.
        if self.values.get("sequenceBatching") and (idle_ms := self.values.get("sequenceMaxIdleMSec")):
            most, waiting = (self.values.get(key, 1) for key in ("maxNumSequence", "maxSequenceJobQueueSize"))
            keys |= sequence_keys(most, waiting, idle_ms, self.values.get("sequenceTimeoutMSec", 0))
        elif self.values.get("continuousBatching"):
            keys["continuous"] = True
        elif self.values.get("asyncCommunication"):
            keys["in_flight_max"] = IN_FLIGHT_MAX
        return keys

    @property
    def warning(self) -> str:
        """One sentence for the log of who registers it: what is ignored, and why; "" if nothing."""
        return _sentence(self._ignored(self.unused))

    def notes(self, spec: ModelSpec) -> str:
        """One sentence for the log of who serves it by `model.toml` alone: what does nothing, or something
        else than it says; "" if nothing."""
        notes = self._ignored((*(key for key in REGISTERED if key in self.content), *self.unused))
        differing = [_difference(spec, key, value) for key, value in self.model_keys.items()]
        if any(differing):
            notes.append(f"model.toml says otherwise, and counts: {', '.join(filter(None, differing))}")
        return _sentence(notes)

    def _ignored(self, unused: tuple[str, ...]) -> list[str]:
        if self.values.get("sequenceBatching") and not self.values.get("sequenceMaxIdleMSec"):
            unused = (*unused, "sequenceBatching (without sequenceMaxIdleMSec)")
        elif self.values.get("sequenceBatching"):
            beside = [key for key in ("continuousBatching", "asyncCommunication") if self.values.get(key)]
            unused = (*unused, *(f"{key} (with sequenceBatching)" for key in beside))
        notes = [f"no meaning here: {', '.join(unused)}"] if unused else []
        return notes + ([f"of a wrong type: {', '.join(self.wrong)}"] if self.wrong else [])


def sequence_keys(most: int, waiting: int, idle_ms: int, timeout_ms: int) -> dict[str, Any]:
    """What a `model.toml` says of sequences; they begin with any request, as with TorchServe."""
    return {
        "sequences_max": min(most, SEQUENCES_MAX),
        "sequence_queue_max": min(waiting, SEQUENCES_MAX),
        "sequence_idle_ms": float(min(idle_ms, TIMEOUT_MS_MAX)),
        "sequence_timeout_ms": float(min(timeout_ms, TIMEOUT_MS_MAX)),
        "sequence_opens": ANY,
    }


def read_config(folder: Path, file: str) -> Config:
    """The file that the manifest names, if it names one. Raises: SettingsError for one that is not there or
    no mapping."""
    if not file:
        return Config()
    path = folder / file
    try:
        if path.stat().st_size > SIZE_BYTES_MAX:
            raise SettingsError(f"{file} has more than {SIZE_BYTES_MAX} bytes")
        return parse_config(load_yaml(path.read_bytes(), file), file)
    except OSError as error:
        raise SettingsError(f"configFile: {file}: {error.strerror}") from None


def parse_config(found: Any, file: str = FILE) -> Config:
    """Raises: SettingsError for what is no mapping."""
    if found is None:
        return Config()
    if not isinstance(found, Mapping):
        raise SettingsError(f"{file} must be a mapping, not {type(found).__name__}")
    content = {str(key): value for key, value in found.items()}
    values: dict[str, Any] = {}
    wrong: list[str] = []
    for key, value in content.items():
        rule = _rule_of(key)
        if rule is None:
            continue
        wanted, is_right = rule
        if is_right(value):
            values[key] = {"cuda": "gpu"}.get(value, value) if key == "deviceType" else value
        else:
            wrong.append(f"{key} ({_shown(value)} is not {wanted})")
    return Config(content, values, tuple(key for key in IGNORED if key in content), tuple(wrong))


def _rule_of(key: str) -> tuple[str, Callable[[Any], bool]] | None:
    """What a key's value must be, in words and as a test; None for keys that are not judged."""
    if key in LEAST:
        least = LEAST[key]
        return _whole(least), lambda value: type(value) is int and least <= value <= NUMBER_MAX
    if key in TRUTHS:
        return "true or false", lambda value: isinstance(value, bool)
    return {
        "deviceType": ("cpu or gpu", lambda value: _is_one_of(value, ("cpu", "gpu", "cuda"))),
        "deviceIds": ("a list of whole numbers", _is_ids),
        "parallelType": (" or ".join(PARALLEL), lambda value: _is_one_of(value, PARALLEL)),
    }.get(key)


def _shown(value: Any) -> str:
    """For a message. A few lines of YAML make a list whose text would fill any memory, and a number that
    Python does not write out."""
    if type(value) is int and abs(value) > NUMBER_MAX:
        return "a number that large"
    return f"{value!r:.40}" if isinstance(value, str | int | float) else f"a {type(value).__name__}"


def _whole(least: int) -> str:
    return f"a whole number above {least - 1}" if least else "a whole number, 0 or more"


def _is_one_of(value: Any, choices: tuple[str, ...]) -> bool:
    return isinstance(value, str) and value in choices


def _is_ids(value: Any) -> bool:
    return isinstance(value, list) and all(type(inner) is int and inner >= 0 for inner in value)


def _sentence(notes: list[str]) -> str:
    return f"{FILE}: {'; '.join(notes)}" if notes else ""


def _difference(spec: ModelSpec, key: str, value: Any) -> str:
    least, most = spec.copies_between
    said = {"copies_min": least, "copies_max": most}.get(key, getattr(spec, key))
    if said == value or (key == "device" and said == "auto"):
        return ""
    return f"{key} {said} (the file: {value})"
