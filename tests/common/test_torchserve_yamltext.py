"""headway.torchserve.yamltext: YAML that strangers wrote."""

from __future__ import annotations

import time

import pytest

from headway.errors import SettingsError
from headway.torchserve.yamltext import load_yaml

pytest.importorskip("yaml")


def refused(text: str) -> str:
    with pytest.raises(SettingsError) as caught:
        load_yaml(text.encode(), "c.yaml")
    return str(caught.value)


def test_plain_values_come_back() -> None:
    text = "a: &a {x: 1}\nb:\n  <<: *a\n  y: [1.5, true, null]\n"
    assert load_yaml(text.encode(), "c.yaml") == {"a": {"x": 1}, "b": {"x": 1, "y": [1.5, True, None]}}


@pytest.mark.parametrize("depth", [200, 400_000])
def test_what_is_nested_too_deeply_is_refused_and_ends_nothing(depth: int) -> None:
    assert refused("a: " + "[" * depth + "]" * depth) == "c.yaml is not YAML: it is nested more than 100 deep"


def test_merges_that_grow_with_each_line_are_refused() -> None:
    lines = ["a0: &a0 {x: 1}"]
    lines += [f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 10)}]}}" for i in range(1, 10)]
    assert "a mapping has more than 50000 keys" in refused("\n".join(lines))


def test_more_aliases_than_a_configuration_has_are_refused() -> None:
    assert "more than 200 aliases" in refused("a: &a 1\nb: [" + "*a, " * 201 + "]")


def test_a_long_file_takes_a_moment() -> None:
    pytest.importorskip("yaml.cyaml")
    text = "\n".join(f"k{i}: {{a: [1, 2, 3]}}" for i in range(10_000)).encode()
    begun = time.process_time()
    assert len(load_yaml(text, "c.yaml")) == 10_000
    assert time.process_time() - begun < 5
