"""A workflow's request on its way through the nodes: each is asked as soon as all before it have answered.

Knows: the order, attempts, time. Must not know: the broker, HTTP: whoever runs it says how a node is asked.

A node's input: the first one gets the request as it came; one after a single node gets what that answered, as
`body`; one after several gets a part for each, under its name.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

from headway.body import BODY, Body
from headway_gateway.torchserve.workflows.spec import Node, Spec

Ask = Callable[[Node, Body], Awaitable[bytes]]


class NodeFailed(Exception):
    """`reason` is for the log; clients are told which node it was."""

    def __init__(self, node: str, reason: str) -> None:
        super().__init__(f"Error executing {node}")
        self.node = node
        self.reason = reason


async def run(spec: Spec, request: Body, ask: Ask) -> dict[str, bytes]:
    """What each leaf answered. Raises: NodeFailed; what still ran is cancelled then, as it is when the caller
    is."""
    answers: dict[str, bytes] = {}
    running: dict[asyncio.Task[bytes], str] = {}

    def begin(node: str, body: Body) -> None:
        running[asyncio.create_task(_asked(spec.nodes[node], body, ask))] = node

    begin(spec.dag.start, request)
    try:
        while running:
            done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                node = running.pop(task)
                answers[node] = task.result()
                for child in spec.dag.children[node]:
                    if all(parent in answers for parent in spec.dag.parents[child]):
                        begin(child, _input(spec.dag.parents[child], answers))
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
    return {leaf: answers[leaf] for leaf in spec.dag.leaves}


async def _asked(node: Node, body: Body, ask: Ask) -> bytes:
    reason = ""
    for _ in range(node.limits.attempts):
        try:
            async with asyncio.timeout(node.limits.timeout_ms / 1000):
                return await ask(node, body)
        except TimeoutError:
            reason = f"no answer within {node.limits.timeout_ms} ms"
        except Exception as error:
            reason = str(error)
    raise NodeFailed(node.name, reason)


def _input(parents: list[str], answers: dict[str, bytes]) -> Body:
    names = [BODY] if len(parents) == 1 else parents
    return Body(
        b"", "", {name: Body(answers[parent], "") for name, parent in zip(names, parents, strict=True)}
    )


def answer(leaves: dict[str, bytes]) -> bytes:
    """One leaf's answer as it is; of several, JSON by their names."""
    if len(leaves) == 1:
        return next(iter(leaves.values()))
    return (json.dumps({name: _shown(data) for name, data in leaves.items()}, indent=2) + "\n").encode()


def _shown(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return data.decode("utf-8", "replace")
