"""What a workflow's specification says: its nodes, how each is served, and their order.

Pure. Knows: the keys of the specification and their defaults. Must not know: files, models, requests.

    models:
      min-workers: 1            for every node that says nothing else
      cat:
        url: cat.mar            a node that is an archive
    dag:
      before: [cat]             a node that no `url` was given for is a function of the workflow's handler
      cat: [after]
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from headway.errors import SettingsError
from headway.models import NAME
from headway_gateway.torchserve.workflows.dag import Dag, InvalidDag, dag_of

NUMBERS = {
    "min-workers": 1,
    "max-workers": 1,
    "batch-size": 1,
    "max-batch-delay": 50,
    "retry-attempts": 1,
    "timeout-ms": 10_000,
}
INVALID = "Invalid workflow specification"


@dataclass(frozen=True)
class Limits:
    """How a node is served: `attempts` and `timeout_ms` are for each time it is asked."""

    workers_min: int
    workers_max: int
    batch_size: int
    batch_delay_ms: int
    attempts: int
    timeout_ms: int


@dataclass(frozen=True)
class Node:
    """`url` of its archive, "" for a function of the workflow's handler."""

    name: str
    url: str
    limits: Limits


@dataclass(frozen=True)
class Spec:
    """`limits`: of a node that says nothing of its own. `edges`: as they were written."""

    nodes: dict[str, Node]
    dag: Dag
    limits: Limits
    edges: dict[str, list[str]]

    @property
    def dag_text(self) -> str:
        """As a description shows it."""
        rows = (f"{node}=[{', '.join(children)}]" for node, children in self.edges.items())
        return f"{{{', '.join(rows)}}}"


def spec_of(found: Any) -> Spec:
    """A parsed specification. Raises: SettingsError naming what is wrong; InvalidDag."""
    if not isinstance(found, Mapping):
        raise _wrong(f"it must be a mapping, not {type(found).__name__}")
    models, edges = _table(found, "models"), _edges(_table(found, "dag"))
    limits = _limits(models, NUMBERS, "models")
    own = dict(zip(NUMBERS, vars(limits).values(), strict=True))
    nodes = {
        str(name): _archive(str(name), said, own) for name, said in models.items() if name not in NUMBERS
    }
    if not edges:
        raise InvalidDag("Not a valid DAG")
    dag = dag_of(edges)
    for name in dag.children:
        nodes.setdefault(name, Node(_name(name), "", limits))
    return Spec({name: nodes[name] for name in dag.children}, dag, limits, edges)


def _archive(name: str, said: Any, defaults: Mapping[str, int]) -> Node:
    if not isinstance(said, Mapping):
        raise _wrong(f"models.{name} must be a mapping with a url, not {type(said).__name__}")
    url = said.get("url")
    if not isinstance(url, str) or not url:
        raise _wrong(f"models.{name}.url must be text")
    return Node(_name(name), url, _limits(said, defaults, f"models.{name}"))


def _limits(said: Mapping[Any, Any], defaults: Mapping[str, int], where: str) -> Limits:
    values = {key: said.get(key, default) for key, default in defaults.items()}
    for key, value in values.items():
        least = 0 if key in ("max-batch-delay", "min-workers") else 1
        if type(value) is not int or not least <= value < 1 << 31:
            raise _wrong(f"{where}.{key} must be a whole number from {least} on, not {value!r:.40}")
    values["max-workers"] = max(values["max-workers"], values["min-workers"])
    return Limits(*values.values())


def _edges(said: Mapping[Any, Any]) -> dict[str, list[str]]:
    """Every node to those after it. A name that is empty stands for none."""
    edges: dict[str, list[str]] = {}
    for node, children in said.items():
        if not isinstance(children, list):
            raise _wrong(f"dag.{node} must be a list of nodes, not {type(children).__name__}")
        edges[_name(str(node))] = [_name(str(child)) for child in children if child not in (None, "")]
    return edges


def _table(found: Mapping[Any, Any], key: str) -> Mapping[Any, Any]:
    table = found.get(key)
    if not isinstance(table, Mapping):
        raise _wrong(f"{key} must be a mapping, not {type(table).__name__}")
    return table


def _name(name: str) -> str:
    if not NAME.fullmatch(name):
        raise _wrong(f"{name!r:.60} is no name for a node: letters, digits, '_', '-' and '.'")
    return name


def _wrong(what: str) -> SettingsError:
    return SettingsError(f"{INVALID}: {what}")
