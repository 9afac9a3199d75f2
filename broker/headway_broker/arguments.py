"""The arguments of a command, taken out one by one and checked.

Pure. Knows: types, limits, words for what is wrong. Must not know: commands.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headway.errors import InvalidInput

_NOTHING: Any = object()


class Arguments:
    """A command's; `done` refuses what nobody took."""

    def __init__(self, verb: str, given: Mapping[str, Any]) -> None:
        self._verb = verb
        self._given = dict(given)

    def text(self, name: str, default: str | None = None) -> str:
        """Raises: InvalidInput, as all of these."""
        value = self._take(name, default)
        if not isinstance(value, str):
            raise self._wrong(name, "text", value)
        return value

    def count(self, name: str, default: int | None = _NOTHING, most: int = 1 << 16) -> int | None:
        """A whole number from 0 to `most`; None where that is the default."""
        value = self._take(name, None if default is _NOTHING else default, default is not _NOTHING)
        if value is None and default is None:
            return None
        if type(value) is not int or not 0 <= value <= most:
            raise self._wrong(name, f"a whole number from 0 to {most}", value)
        return value

    def flag(self, name: str) -> bool:
        value = self._take(name, False)
        if value not in (0, 1, True, False):
            raise self._wrong(name, "0 or 1", value)
        return bool(value)

    def weights(self, name: str) -> dict[str, float]:
        """A map from versions to numbers from 0 on."""
        value = self._take(name, None)
        if not isinstance(value, dict):
            raise self._wrong(name, "a map from version to weight", value)
        for version, weight in value.items():
            if not isinstance(version, str) or not version:
                raise self._wrong(name, "a map from version to weight", value)
            if not _is_weight(weight):
                raise self._wrong(f"{name}[{version!r}]", "a number from 0 on", weight)
        return {version: float(weight) for version, weight in value.items()}

    def done(self) -> None:
        """Nothing else is there. Raises: InvalidInput naming what is."""
        if self._given:
            raise InvalidInput(f"{self._verb}: {next(iter(self._given))!r} is not known")

    def _take(self, name: str, default: Any, may_be_missing: bool = False) -> Any:
        if name not in self._given and default is None and not may_be_missing:
            raise InvalidInput(f"{self._verb}: {name} is missing")
        return self._given.pop(name, default)

    def _wrong(self, name: str, wanted: str, value: Any) -> InvalidInput:
        return InvalidInput(f"{self._verb}: {name} must be {wanted}, not {value!r:.100}")


def _is_weight(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value < 1e9
