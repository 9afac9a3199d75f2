"""What was ordered, beyond what the model store says by itself: what must survive a restart.

Pure. Knows: the orders, and the document they are kept in. Must not know: the store, workers, files.

The document is data for JSON:

    {"format": 1, "models": {NAME: {"default": VERSION, "weights": {VERSION: NUMBER},
     "copies": {VERSION: [LEAST, MOST]}, "unregistered": [VERSION], "serving": {VERSION: NUMBER}}},
     "hosts": {HOST: WORKERS}}
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from headway.errors import SettingsError

FORMAT = 1


@dataclass
class ModelOrders:
    """One model's. `default` "" is the latest version, `weights` are empty without a split. `serving` is the
    mix of versions that had the traffic last: it stays until what is ordered is ready."""

    default: str = ""
    weights: dict[str, float] = field(default_factory=dict)
    copies: dict[str, tuple[int, int]] = field(default_factory=dict)
    unregistered: set[str] = field(default_factory=set)
    serving: dict[str, float] = field(default_factory=dict)

    @property
    def is_empty(self) -> bool:
        return self == ModelOrders()


@dataclass
class Desired:
    """All orders. `hosts`: how many workers each shall have."""

    models: dict[str, ModelOrders] = field(default_factory=dict)
    hosts: dict[str, int] = field(default_factory=dict)

    def of(self, model: str) -> ModelOrders:
        """The model's orders, to be changed."""
        return self.models.setdefault(model, ModelOrders())

    def document(self) -> dict[str, Any]:
        """As it is kept."""
        models = {name: _written(orders) for name, orders in self.models.items() if not orders.is_empty}
        return {"format": FORMAT, "models": models, "hosts": dict(self.hosts)}


def read_desired(document: Any) -> Desired:
    """The orders in a document. Raises: SettingsError saying what is wrong with it."""
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise SettingsError(f"not the orders of a broker in format {FORMAT}")
    try:
        models = {str(name): _read(orders) for name, orders in document["models"].items()}
        hosts = {str(host): _count(count) for host, count in document["hosts"].items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise SettingsError(f"the orders cannot be read: {error!r}") from None
    return Desired(models, hosts)


def _written(orders: ModelOrders) -> dict[str, Any]:
    return {
        "default": orders.default,
        "weights": dict(orders.weights),
        "copies": {version: list(limits) for version, limits in orders.copies.items()},
        "unregistered": sorted(orders.unregistered),
        "serving": dict(orders.serving),
    }


def _read(orders: dict[str, Any]) -> ModelOrders:
    return ModelOrders(
        str(orders["default"]),
        _weights(orders["weights"]),
        {str(v): (_count(least), _count(most)) for v, (least, most) in orders["copies"].items()},
        {str(version) for version in _list(orders["unregistered"])},
        _weights(orders["serving"]),
    )


def _weights(weights: dict[str, Any]) -> dict[str, float]:
    read = {str(version): float(weight) for version, weight in weights.items()}
    if not all(0 <= weight < 1e9 for weight in read.values()) or (read and not any(read.values())):
        raise ValueError(f"weights {read}")
    return read


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError(f"{value!r} is not a list")
    return value


def _count(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r} is not a number of copies or workers")
    return value
