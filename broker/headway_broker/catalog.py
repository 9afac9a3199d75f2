"""What should be: the models, their versions, how many copies, and which version a caller means.

Pure. Knows: specs from the model store, the operator's orders. Must not know: workers, queues, files.

Which version a caller gets who names none. `wanted` is what was ordered: a split by weight, else the default,
else the latest. `serving` is what has the traffic: it becomes what is wanted by `move`, which is for whoever
knows that the versions are ready. So a new version gets no request before it is warm, and one that cannot be
loaded gets none at all.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from headway.errors import InvalidInput, NotReady, UnknownModel
from headway.models import ModelSpec
from headway_broker.desired import Desired
from headway_broker.routes import Route

Key = tuple[str, str]  # (model, version)
VersionOrder = tuple[int, tuple[int | str, ...], str]
_NUMBERS = re.compile(r"[0-9]+(\.[0-9]+)*")
_DIGITS = re.compile(r"([0-9]+)")


class Changes(NamedTuple):
    """What a look into the store found. `changed` ones stay as they were."""

    added: list[Key]
    changed: list[Key]
    gone: list[Key]


def version_order(version: str) -> VersionOrder:
    """Sorts "10" after "9", and "1.10" after "1.9"; words before all numbers, and "rc10" after "rc9"."""
    if _NUMBERS.fullmatch(version):
        return (1, tuple(int(part) for part in version.split(".")), version)
    parts = _DIGITS.split(version)  # text, digits, text, …: what is compared is of one type
    return (0, tuple(int(part) if i % 2 else part for i, part in enumerate(parts)), version)


class Catalog:
    """Every registered version; `broken` ones have a reason in place of a spec."""

    def __init__(
        self,
        specs: Iterable[ModelSpec],
        broken: Mapping[Key, str] | None = None,
        desired: Desired | None = None,
    ) -> None:
        self.desired = desired or Desired()
        self.specs: dict[Key, ModelSpec] = {}
        self.broken: dict[Key, str] = {}
        self._found = {spec.key: spec for spec in specs}  # in the store, registered or not
        self._found_broken = dict(broken or {})
        self._defaults: dict[str, str] = {}  # the latest good version, of a model with none the latest
        self._versions: dict[str, list[str]] = {}  # the good ones of each model, in their order
        self.routes: dict[str, Route] = {}  # of models with a good version
        self.moving: set[str] = set()  # models whose traffic is not where it was ordered to
        self._select()

    def __iter__(self) -> Iterator[ModelSpec]:
        return iter(self.specs.values())

    # ---- questions ----

    def default(self, model: str) -> str | None:
        """The version that callers get (most of them) who name none; None for a model that is not there."""
        route = self.routes.get(model)
        return route.heaviest if route else self._defaults.get(model)

    def resolve(self, model: str, version: str, sticky: str = "") -> Key:
        """The version a caller means; "" is whatever has the traffic.

        Raises: UnknownModel; NotReady for a version whose `model.toml` is wrong.
        """
        if not version and (route := self.routes.get(model)):
            return (model, route.only or route.choose(sticky))
        if model not in self._defaults:
            raise UnknownModel(f"there is no model {model!r}")
        key = (model, version or self._defaults[model])
        if key in self.specs:
            return key
        if key in self.broken:
            raise NotReady(f"version {key[1]} of model {model!r} cannot be loaded: {self.broken[key]}")
        raise UnknownModel(f"model {model!r} has no version {version!r}")

    def versions(self, model: str) -> list[str]:
        """Its good versions. Raises: UnknownModel where it has none, not even a broken one."""
        if model not in self._defaults:
            raise UnknownModel(f"there is no model {model!r}")
        return list(self._versions.get(model, ()))

    def wanted(self, model: str) -> dict[str, float]:
        """The mix that was ordered, as far as its versions are there; empty where none is good."""
        orders = self.desired.models.get(model)
        good = self._versions.get(model, ())
        if orders and (weights := {v: w for v in good if (w := orders.weights.get(v, 0.0)) > 0}):
            return weights
        if orders and orders.default in good:
            return {orders.default: 1.0}
        return {good[-1]: 1.0} if good else {}

    def serving(self, model: str) -> dict[str, float]:
        """The part of the traffic that each version has, 0 to 1."""
        route = self.routes.get(model)
        return dict(route.shares) if route else {}

    def limits(self, key: Key) -> tuple[int, int]:
        """The least and the most copies."""
        orders = self.desired.models.get(key[0])
        ordered = orders.copies.get(key[1]) if orders else None
        if ordered:
            return ordered[0], max(ordered)  # a file that somebody edited may have them the wrong way round
        return self.specs[key].copies_between

    # ---- changes ----

    def look(self, specs: Iterable[ModelSpec], broken: Mapping[Key, str]) -> Changes:
        """The store was read again. A version whose spec changed stays as it is; one that is not there any
        more goes."""
        found = {spec.key: spec for spec in specs}
        before = dict(self.specs)
        changed = [key for key, spec in found.items() if key in before and before[key] != spec]
        self._found = found | {key: before[key] for key in changed}
        self._found_broken = dict(broken)
        for key in broken:  # what was good, and is loaded, is not taken away by a bad edit
            if key in before:
                self._found[key] = before[key]
                changed.append(key)
        self._select()
        added = [key for key in self.specs if key not in before]
        return Changes(added, changed, [key for key in before if key not in self.specs])

    def register(self, model: str, version: str = "") -> list[str]:
        """Take back what was unregistered; all versions if none is named. Returns the registered ones.
        Raises: UnknownModel for what is not in the store; NotReady for what is broken."""
        known = [key[1] for key in (*self._found, *self._found_broken) if key[0] == model]
        if not known or (version and version not in known):
            raise UnknownModel(f"there is no {model}{'/' if version else ''}{version} in the model store")
        self.desired.of(model).unregistered -= {version} if version else set(known)
        self._select()
        if (model, version) in self.broken:
            raise NotReady(f"{model}/{version} cannot be loaded: {self.broken[(model, version)]}")
        return self.versions(model)

    def unregister(self, model: str, version: str = "") -> list[str]:
        """Returns what is gone. Raises: UnknownModel; InvalidInput for a version that has traffic while
        another could take it."""
        known = [key[1] for key in (*self.specs, *self.broken) if key[0] == model]
        if not known or (version and version not in known):
            self.resolve(model, version)
        if version in self.serving(model) and len(self.versions(model)) > 1:
            raise InvalidInput(
                f"version {version} of {model!r} has traffic: set another default, or end the split, first"
            )
        gone = [version] if version else known
        orders = self.desired.of(model)
        orders.unregistered.update(gone)
        for each in gone:
            orders.copies.pop(each, None)
            orders.weights.pop(each, None)
        if orders.default in gone:
            orders.default = ""
        self._select()
        return gone

    def set_default(self, model: str, version: str) -> None:
        """Ends a split. Raises: UnknownModel, NotReady."""
        self.resolve(model, version)
        orders = self.desired.of(model)
        orders.default, orders.weights = version, {}
        self._select()

    def set_split(self, model: str, weights: Mapping[str, float]) -> None:
        """Empty weights end the split. Raises: UnknownModel, NotReady, InvalidInput."""
        for version in weights:
            self.resolve(model, version)
        self.versions(model)
        if weights and not any(weights.values()):
            raise InvalidInput("weights: one must be above 0")
        self.desired.of(model).weights = dict(weights)
        self._select()

    def set_limits(self, key: Key, least: int, most: int) -> None:
        """How many copies it shall have."""
        self.desired.of(key[0]).copies[key[1]] = (least, most)

    def move(self, model: str) -> None:
        """Its versions are ready: the traffic goes where it was ordered to."""
        weights = self.wanted(model)
        self.routes[model] = Route(weights)
        self.desired.of(model).serving = weights
        self.moving.discard(model)

    def document(self) -> dict[str, Any]:
        """The orders as they are kept. Whoever has traffic that is ordered elsewhere has it after a restart
        too: where it is ordered to may not be ready, or never be."""
        for model in self.moving:
            self.desired.of(model).serving = self.serving(model)
        return self.desired.document()

    # ---- inside ----

    def _select(self) -> None:
        """What is registered, of all that was found, and who has the traffic."""
        self.specs = {key: spec for key, spec in self._found.items() if self._is_registered(key)}
        self.broken = {
            key: reason
            for key, reason in self._found_broken.items()
            if self._is_registered(key) and key not in self.specs
        }
        self._defaults = {}
        for keys in (sorted(self.broken, key=_order), sorted(self.specs, key=_order)):
            self._defaults.update(keys)
        self._versions = {}
        for model, version in sorted(self.specs, key=_order):
            self._versions.setdefault(model, []).append(version)
        self.routes = {model: route for model, route in self.routes.items() if model in self._versions}
        for model in self._versions:
            self._reroute(model)
        self.moving = {m for m, route in self.routes.items() if Route(self.wanted(m)).shares != route.shares}

    def _reroute(self, model: str) -> None:
        """Traffic stays where it is as far as those versions are there; else it goes where it is wanted."""
        orders = self.desired.models.get(model)
        before = orders.serving if orders else {}
        if model in self.routes:
            before = self.routes[model].shares
        # In the order of versions, whatever order they were kept in: a sticky key's stretch depends on it.
        left = {v: weight for v in self._versions[model] if (weight := before.get(v, 0.0)) > 0}
        if model not in self.routes or left != before:
            self.routes[model] = Route(left or self.wanted(model))

    def _is_registered(self, key: Key) -> bool:
        orders = self.desired.models.get(key[0])
        return orders is None or key[1] not in orders.unregistered


def _order(key: Key) -> VersionOrder:
    return version_order(key[1])
