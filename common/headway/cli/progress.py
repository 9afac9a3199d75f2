"""What is worth a line while models load, and later when one changes.

Pure. Knows: the answers to the broker's `models` and `stats` questions. Must not know: who asks them,
clocks, the terminal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from headway.tracebacks import last_line

Model = Mapping[str, Any]
Key = tuple[str, str]


class Progress:
    """Remembers what was said of each model, and says what is new."""

    def __init__(self, started: float) -> None:
        self._started = started
        self._said: dict[Key, tuple[Any, ...]] = {}
        self._served: set[Key] = set()

    def news(self, models: Sequence[Model], now: float, joined: bool = True) -> list[str]:
        """A line for each model that is not as it was when last looked at.

        `joined`: all workers that are expected were there. Before, a model that waits is no news.
        """
        lines = [self._line(model, now) for model in models if joined or model["state"] != "waiting"]
        gone = self._said.keys() - {_key(model) for model in models}
        for key in sorted(gone):
            del self._said[key]
            lines.append(f"{' '.join(key)}: removed")
        return [line for line in lines if line]

    def _line(self, model: Model, now: float) -> str:
        key, seen = _key(model), (model["state"], model["ready"], model["error"])
        if self._said.get(key) == seen:
            return ""
        self._said[key] = seen
        return f"{' '.join(key)}: {self._words(model, now)}"

    def _words(self, model: Model, now: float) -> str:
        words = str(model["state"])
        if words == "ready" and model["wanted"] != 1:
            words += f", {model['ready']} of {model['wanted']} copies"
        if words.startswith("ready") and _key(model) not in self._served:
            self._served.add(_key(model))
            words += f" after {now - self._started:.1f} s"
        return f"{words}: {last_line(model['error'])}" if model["error"] else words


def settled(models: Sequence[Model], joined: bool) -> bool:
    """Whether waiting changes nothing: each model serves, failed, needs no copy now, or has no place."""
    return all(
        model["state"] in ("ready", "failed", "asleep") or (model["state"] == "waiting" and joined)
        for model in models
    )


def _key(model: Model) -> Key:
    return model["name"], model["version"]
