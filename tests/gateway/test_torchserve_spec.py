"""Workflows' specifications: defaults, nodes, bad ones."""

import pytest

from headway.errors import SettingsError
from headway_gateway.torchserve.workflows.dag import InvalidDag
from headway_gateway.torchserve.workflows.spec import Limits, spec_of

pytestmark = pytest.mark.pure

SPEC = {
    "models": {"max-workers": 2, "timeout-ms": 500, "cat": {"url": "cat.mar", "batch-size": 4}},
    "dag": {"before": ["cat"], "cat": ["after"]},
}


def test_a_node_says_what_differs_from_all_nodes():
    spec = spec_of(SPEC)
    assert spec.nodes["cat"].limits == Limits(1, 2, 4, 50, 1, 500)
    assert spec.nodes["after"].limits == spec.limits == Limits(1, 2, 1, 50, 1, 500)


def test_a_node_without_a_url_is_a_function():
    urls = {name: node.url for name, node in spec_of(SPEC).nodes.items()}
    assert urls == {"before": "", "cat": "cat.mar", "after": ""}


def test_the_graph_is_shown_as_it_was_written():
    assert spec_of(SPEC).dag_text == "{before=[cat], cat=[after]}"


def test_a_model_that_no_edge_names_is_no_node():
    extra = {**SPEC["models"], "dog": {"url": "dog.mar"}}
    assert "dog" not in spec_of({**SPEC, "models": extra}).nodes


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ([], "must be a mapping, not list"),
        ({"dag": {}}, "models must be a mapping"),
        ({"models": {}}, "dag must be a mapping"),
        ({"models": {"cat": "cat.mar"}, "dag": {"cat": []}}, "models.cat must be a mapping"),
        ({"models": {"cat": {}}, "dag": {"cat": []}}, "models.cat.url"),
        ({"models": {"min-workers": "two"}, "dag": {"a": []}}, "models.min-workers"),
        ({"models": {"cat": {"url": "c", "batch-size": 0}}, "dag": {"cat": []}}, "models.cat.batch-size"),
        ({"models": {"timeout-ms": True}, "dag": {"a": []}}, "models.timeout-ms"),
        ({"models": {}, "dag": {"a": "b"}}, "dag.a must be a list"),
        ({"models": {}, "dag": {"../a": []}}, "no name for a node"),
        ({"models": {}, "dag": {"a": ["b/c"]}}, "no name for a node"),
    ],
)
def test_a_bad_specification_is_refused_by_its_key(spec, text):
    with pytest.raises(SettingsError, match=text):
        spec_of(spec)


def test_a_specification_without_edges_is_no_dag():
    with pytest.raises(InvalidDag):
        spec_of({"models": {}, "dag": {}})
