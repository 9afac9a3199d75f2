"""Workflows' graphs: what is one, and what is refused with which text."""

import pytest

from headway_gateway.torchserve.workflows.dag import LOOP, ONE_START, SELF_LOOP, InvalidDag, dag_of

pytestmark = pytest.mark.pure


def test_a_diamond_has_one_start_and_one_leaf():
    dag = dag_of({"a": ["b", "c"], "b": ["d"], "c": ["d"]})
    assert (dag.start, dag.leaves, dag.parents["d"]) == ("a", ["d"], ["b", "c"])


def test_an_edge_that_is_written_twice_is_one():
    assert dag_of({"a": ["b", "b"]}).parents["b"] == ["a"]


@pytest.mark.parametrize(
    ("edges", "text"),
    [
        ({"a": ["b"], "b": ["a"]}, ONE_START),
        ({"a": ["c"], "b": ["c"]}, ONE_START),
        ({"a": ["a"]}, SELF_LOOP),
        ({"a": ["b"], "b": ["c"], "c": ["b"]}, LOOP),
    ],
)
def test_what_is_no_dag_is_refused(edges, text):
    with pytest.raises(InvalidDag, match=text):
        dag_of(edges)


def test_a_graph_of_thousands_of_nodes_is_refused_before_it_is_built():
    with pytest.raises(InvalidDag, match="1000 nodes"):
        dag_of({"a": [f"n{i}" for i in range(2000)]})
