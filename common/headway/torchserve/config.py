"""`model-config.yaml`: what its keys mean here, and which mean nothing.

Knows: the file's keys and what `model.toml` calls them. Must not know: handlers, models.

The broker forms batches and counts copies by `model.toml`, which it reads without opening archives. So what
the file says of these is compared with that, and said once where it differs; `model_keys` is what a
`model.toml` for the archive should have. Handlers see the whole file, whatever it says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headway.errors import SettingsError
from headway.models import ModelSpec

FILE = "model-config.yaml"
SIZE_BYTES_MAX = 1 << 20
_WHOLE = "a whole number above 0"
# Theirs: ours. Both count in the same units.
NUMBERS = {
    "batchSize": "batch_size_max",
    "maxBatchDelay": "batch_delay_ms",
    "responseTimeout": "response_timeout_s",
    "jobQueueSize": "queue_size_max",
    "minWorkers": "copies_min",
    "maxWorkers": "copies_max",
}
# Read by handlers, or by what they inherit; nothing else here looks at them.
HANDLERS = ("handler", "pt2", "micro_batching")
# Known to TorchServe, without a meaning here (yet).
IGNORED = (
    "startupTimeout", "deviceIds", "parallelType", "parallelLevel", "torchrun", "maxRetryTimeoutInSec",
    "clientTimeoutInMills", "useJobTicket", "sequenceBatching", "sequenceMaxIdleMSec", "sequenceTimeoutMSec",
    "maxNumSequence", "maxSequenceJobQueueSize", "continuousBatching", "asyncCommunication", "useVenv",
    "pippy", "deepspeed",
)  # fmt: skip


@dataclass(frozen=True)
class Config:
    """`content`: the whole file. `model_keys`: what it says in the words of `model.toml`. `unused`: keys
    that TorchServe knows and that do nothing here. `wrong`: keys of a wrong type, which do not count."""

    content: dict[str, Any] = field(default_factory=dict)
    model_keys: dict[str, Any] = field(default_factory=dict)
    unused: tuple[str, ...] = ()
    wrong: tuple[str, ...] = ()

    def notes(self, spec: ModelSpec) -> str:
        """One sentence for the log: what does nothing, or something else than it says; "" if nothing."""
        notes = [f"no meaning here: {', '.join(self.unused)}"] if self.unused else []
        notes += [f"of a wrong type: {', '.join(self.wrong)}"] if self.wrong else []
        differing = [_difference(spec, key, value) for key, value in self.model_keys.items()]
        if any(differing):
            notes.append(f"model.toml says otherwise, and counts: {', '.join(filter(None, differing))}")
        return f"{FILE}: {'; '.join(notes)}" if notes else ""


def read_config(folder: Path, file: str) -> Config:
    """The file that the manifest names, if it names one. Raises: SettingsError for one that is not there or
    no mapping."""
    if not file:
        return Config()
    path = folder / file
    try:
        if path.stat().st_size > SIZE_BYTES_MAX:
            raise SettingsError(f"{file} has more than {SIZE_BYTES_MAX} bytes")
        return parse_config(_loaded(path.read_text("utf-8"), file), file)
    except OSError as error:
        raise SettingsError(f"configFile: {file}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise SettingsError(f"{file} is not UTF-8: {error}") from None


def parse_config(found: Any, file: str = FILE) -> Config:
    """Raises: SettingsError for what is no mapping."""
    if found is None:
        return Config()
    if not isinstance(found, Mapping):
        raise SettingsError(f"{file} must be a mapping, not {type(found).__name__}")
    content = {str(key): value for key, value in found.items()}
    numbers = {key: content[key] for key in NUMBERS if key in content}
    keys = {NUMBERS[key]: value for key, value in numbers.items() if _is_whole(value)}
    wrong = [
        f"{key} ({_shown(value)} is not {_WHOLE})" for key, value in numbers.items() if not _is_whole(value)
    ]
    if "deviceType" in content:
        device = _device(content["deviceType"])
        keys.update({"device": device} if device else {})
        wrong += [] if device else [f"deviceType ({_shown(content['deviceType'])} is not cpu or gpu)"]
    return Config(content, keys, tuple(key for key in IGNORED if key in content), tuple(wrong))


def _loaded(text: str, file: str) -> Any:
    try:
        import yaml  # only here: archives without such a file need none
    except ImportError:
        raise SettingsError(f"{file} cannot be read: pyyaml is not installed (pip install pyyaml)") from None
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise SettingsError(f"{file} is not YAML: {error}") from None


def _shown(value: Any) -> str:
    """For a message. A few lines of YAML make a list whose text would fill any memory."""
    return f"{value!r:.40}" if isinstance(value, str | int | float) else f"a {type(value).__name__}"


def _is_whole(value: Any) -> bool:
    return type(value) is int and value > 0


def _device(value: Any) -> str:
    return {"cpu": "cpu", "gpu": "cuda", "cuda": "cuda"}.get(value, "") if isinstance(value, str) else ""


def _difference(spec: ModelSpec, key: str, value: Any) -> str:
    least, most = spec.copies_between
    said = {"copies_min": least, "copies_max": most}.get(key, getattr(spec, key))
    if said == value or (key == "device" and said == "auto"):
        return ""
    return f"{key} {said} (the file: {value})"
