"""Whether what a server answered is what was recorded, and if not, what differs.

Knows: which headers matter, how close numbers must be.
Must not know: servers, files.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Any

# What a server may say of itself beside what is recorded: clients of TorchServe never saw it, and none is
# led to do something else by it.
MAY_BE_MORE = {"date", "server"}
NUMBER = re.compile(r"-?\d+\.\d+(?:[eE][-+]?\d+)?")


def differences(step: Mapping[str, Any], expected: Mapping[str, Any], seen: Mapping[str, Any]) -> list[str]:
    if "together" in expected:
        triples = zip(step["together"], expected["together"], seen["together"], strict=True)
        return [f"request {i}: {d}" for i, each in enumerate(triples) for d in differences(*each)]
    found = [
        f"{key}: {told(expected.get(key), seen.get(key))}"
        for key in sorted({*expected, *seen} - {"headers"})
        if not is_same(step, expected.get(key), seen.get(key))
    ]
    return found + of_headers(expected.get("headers", {}), seen.get("headers", {}))


def told(expected: Any, seen: Any) -> str:
    """Both, or where both are lines, those that are not the same."""
    if not (
        isinstance(expected, list) and isinstance(seen, list) and all(isinstance(x, str) for x in expected)
    ):
        return f"{expected!r} was recorded, {seen!r} came"
    changed = difflib.unified_diff(expected, seen, lineterm="", n=0)
    return "- was recorded, + came\n" + "\n".join(
        line for line in changed if line[:2] not in ("--", "++", "@@")
    )


def of_headers(expected: Mapping[str, str], seen: Mapping[str, str]) -> list[str]:
    names = sorted({*expected, *seen} - (MAY_BE_MORE - {*expected}))
    return [
        f"header {name}: {expected.get(name)!r} was recorded, {seen.get(name)!r} came"
        for name in names
        if expected.get(name) != seen.get(name)
    ]


def is_same(step: Mapping[str, Any], expected: Any, seen: Any) -> bool:
    if "close" not in step or type(expected) is not type(seen):
        return bool(expected == seen)
    if isinstance(expected, list):
        pairs = zip(expected, seen, strict=False)
        return len(expected) == len(seen) and all(is_same(step, *pair) for pair in pairs)
    return is_close(expected, seen, step["close"]) if isinstance(expected, str) else bool(expected == seen)


def is_close(expected: str, seen: str, by: float) -> bool:
    """Equal but for decimal fractions in it, which may differ by so much."""
    if NUMBER.sub("#", expected) != NUMBER.sub("#", seen):
        return False
    pairs = zip(NUMBER.findall(expected), NUMBER.findall(seen), strict=True)
    return all(abs(float(a) - float(b)) <= by for a, b in pairs)
