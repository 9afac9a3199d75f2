"""The recorded cases as pytest's tests of Headway: a server for each group, a test for each case.

Knows: pytest, how Headway is started.
Must not know: TorchServe; none is needed here.

A group's file says `server = group_server(NAME)` and `test_case = case_test(NAME)`. Cases of a group run in
the order of the file, for the server is the same; each leaves it as it was.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.torchserve.compare import differences
from tests.torchserve.play import CASES, play
from tests.torchserve.server import HEADWAY, Server, serving

Case = dict[str, Any]


def group_file(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((CASES / f"{name}.json").read_text())
    return found


def group_server(name: str) -> Callable[..., Any]:
    def server() -> Iterator[Server]:
        with serving(HEADWAY, group_file(name)["group"]) as found:
            yield found

    return pytest.fixture(scope="module", name="server")(server)


def case_test(name: str) -> Callable[..., None]:
    @pytest.mark.system
    @pytest.mark.parametrize("case", group_file(name)["cases"], ids=lambda case: str(case["id"]))
    def test(server: Server, case: Case) -> None:
        found = differences_of(server, case)
        if found:
            print(server.tail(), file=sys.stderr)
        assert not found, "\n".join(found)

    return test


def differences_of(server: Server, case: Case) -> list[str]:
    """What is other than recorded; where Headway is meant to differ, than said under `headway`."""
    expected = case.get("headway", case)["expected"]
    triples = zip(case["steps"], expected, play(server, case["steps"]), strict=True)
    return [f"step {i}: {d}" for i, each in enumerate(triples) for d in differences(*each)]
