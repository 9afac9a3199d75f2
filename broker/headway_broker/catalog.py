"""What should be: the models, their versions, and which version a caller means.

Knows: specs from the model store. Must not know: workers, queues, files.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from headway.errors import NotReady, UnknownModel
from headway.models import ModelSpec

Key = tuple[str, str]  # (model, version)


def version_order(version: str) -> tuple[int, ...]:
    """Sorts "10" after "9", and "1.10" after "1.9"."""
    return tuple(int(part) for part in version.split("."))


class Catalog:
    """Every version that the store holds; `broken` ones have a reason in place of a spec."""

    def __init__(self, specs: Iterable[ModelSpec], broken: Mapping[Key, str] | None = None) -> None:
        self.specs: dict[Key, ModelSpec] = {spec.key: spec for spec in specs}
        self.broken: dict[Key, str] = dict(broken or {})
        self._defaults = self._latest()

    def __iter__(self) -> Iterator[ModelSpec]:
        return iter(self.specs.values())

    def default(self, model: str) -> str | None:
        """The version that a caller gets who names none; None for a model that is not there."""
        return self._defaults.get(model)

    def resolve(self, model: str, version: str) -> Key:
        """The version a caller means; "" is the default.

        Raises: UnknownModel; NotReady for a version whose `model.toml` is wrong.
        """
        default = self._defaults.get(model)
        if default is None:
            raise UnknownModel(f"there is no model {model!r}")
        key = (model, version or default)
        if key in self.specs:
            return key
        if key in self.broken:
            raise NotReady(f"version {key[1]} of model {model!r} cannot be loaded: {self.broken[key]}")
        raise UnknownModel(f"model {model!r} has no version {version!r}")

    def _latest(self) -> dict[str, str]:
        """The latest good version of each model; of a model with none, the latest there is."""
        latest: dict[str, str] = {}
        for keys in (sorted(self.broken, key=_order), sorted(self.specs, key=_order)):
            latest.update(keys)
        return latest


def _order(key: Key) -> tuple[int, ...]:
    return version_order(key[1])
