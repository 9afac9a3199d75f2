"""A request through a workflow: who is asked when, with what, and what becomes of failures."""

import asyncio
import json

import pytest

from headway.body import Body
from headway_gateway.torchserve.workflows.engine import NodeFailed, answer, run
from headway_gateway.torchserve.workflows.spec import spec_of

REQUEST = Body(b"hello", "text/plain")
DIAMOND = {"a": ["b", "c"], "b": ["d"], "c": ["d"]}


def spec(edges, **models):
    return spec_of({"models": models, "dag": edges})


def given(body):
    """A node's input as plain data."""
    return {name: bytes(part.data) for name, part in body.parts.items()} if body.parts else bytes(body.data)


def asked(spec, ask):
    return asyncio.run(run(spec, REQUEST, ask))


def test_nodes_in_a_row_get_what_the_one_before_answered():
    seen = {}

    async def ask(node, body):
        seen[node.name] = given(body)
        return node.name.encode()

    assert asked(spec({"a": ["b"], "b": ["c"]}), ask) == {"c": b"c"}
    assert seen == {"a": b"hello", "b": {"body": b"a"}, "c": {"body": b"b"}}


def test_nodes_side_by_side_run_at_the_same_time_and_are_joined_by_name():
    both = asyncio.Event()
    running = set()
    seen = {}

    async def ask(node, body):
        seen[node.name] = given(body)
        if node.name in "bc":
            running.add(node.name)
            if len(running) == 2:
                both.set()
            await asyncio.wait_for(both.wait(), 30)
        return node.name.encode()

    assert asked(spec(DIAMOND), ask) == {"d": b"d"}
    assert seen["d"] == {"b": b"b", "c": b"c"}


def test_a_node_is_asked_again_as_often_as_it_may():
    tries = []

    async def ask(node, body):
        tries.append(node.name)
        if len(tries) < 3:
            raise ValueError("not yet")
        return b"now"

    assert asked(spec({"a": []}, **{"retry-attempts": 3}), ask) == {"a": b"now"}


def test_a_failure_names_its_node_and_cancels_what_runs_beside_it():
    ended = []

    async def ask(node, body):
        if node.name == "b":
            raise ValueError("broken")
        if node.name == "c":
            try:
                await asyncio.sleep(60)
            finally:
                ended.append("c")
        return b""

    with pytest.raises(NodeFailed, match="Error executing b") as failed:
        asked(spec(DIAMOND), ask)
    assert ended == ["c"] and failed.value.reason == "broken"


def test_a_node_that_takes_too_long_fails():
    async def ask(node, body):
        await asyncio.sleep(60)

    with pytest.raises(NodeFailed) as failed:
        asked(spec({"a": []}, **{"timeout-ms": 1}), ask)
    assert "1 ms" in failed.value.reason


def test_one_leaf_is_answered_as_it_is_and_several_by_their_names():
    assert answer({"a": b"\xff"}) == b"\xff"
    found = json.loads(answer({"a": b'{"x": 1}', "b": b"text", "c": b"\xff"}))
    assert found == {"a": {"x": 1}, "b": "text", "c": "\ufffd"}
