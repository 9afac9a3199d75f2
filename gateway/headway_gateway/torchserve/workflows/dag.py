"""The order in which a workflow's nodes are asked: a directed graph without cycles, with one start.

Pure. Knows: names and edges. Must not know: models, requests.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

ONE_START = "DAG should have only one start node"
SELF_LOOP = "Self loop exception"
LOOP = "loop exception"
NOT_VALID = "Not a valid DAG"
NODES_MAX = 1000


class InvalidDag(Exception):
    """Its text is what TorchServe's clients are told."""


@dataclass
class Dag:
    """`children` and `parents` by node, each in the order in which the edges were written."""

    children: dict[str, list[str]] = field(default_factory=dict)
    parents: dict[str, list[str]] = field(default_factory=dict)

    @property
    def start(self) -> str:
        return next(node for node, parents in self.parents.items() if not parents)

    @property
    def leaves(self) -> list[str]:
        return [node for node, children in self.children.items() if not children]


def dag_of(edges: Mapping[str, Sequence[str]]) -> Dag:
    """The graph in which each node leads to those named with it. Raises: InvalidDag."""
    dag = Dag()
    for node, children in edges.items():
        _add(dag, node)
        for child in children:
            if child == node:
                raise InvalidDag(SELF_LOOP)
            _add(dag, child)
            if child not in dag.children[node]:
                dag.children[node].append(child)
                dag.parents[child].append(node)
    _check(dag)
    return dag


def _add(dag: Dag, node: str) -> None:
    if len(dag.children) >= NODES_MAX:
        raise InvalidDag(f"{NOT_VALID}: more than {NODES_MAX} nodes")
    dag.children.setdefault(node, [])
    dag.parents.setdefault(node, [])


def _check(dag: Dag) -> None:
    """Raises: InvalidDag unless there is one start, and a way from it that visits every node once."""
    if sum(not parents for parents in dag.parents.values()) != 1:
        raise InvalidDag(ONE_START)
    waiting = {node: len(parents) for node, parents in dag.parents.items()}
    ready = [dag.start]
    seen = 0
    while ready:
        seen += 1
        for child in dag.children[ready.pop()]:
            waiting[child] -= 1
            if not waiting[child]:
                ready.append(child)
    if seen != len(waiting):
        raise InvalidDag(LOOP)
