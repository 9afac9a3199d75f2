"""The catalog: which version a caller means."""

from __future__ import annotations

import pytest

from headway.errors import NotReady, UnknownModel
from headway_broker.catalog import Catalog, version_order
from tests.broker.bench import spec


def test_a_caller_who_names_no_version_gets_the_latest() -> None:
    catalog = Catalog([spec(version="9"), spec(version="10"), spec(version="2.1")])
    assert catalog.resolve("m", "") == ("m", "10")
    assert catalog.default("m") == "10"


def test_versions_are_ordered_as_numbers() -> None:
    assert sorted(["10", "9", "1.10", "1.9", "1"], key=version_order) == ["1", "1.9", "1.10", "9", "10"]


def test_a_caller_who_names_a_version_gets_that_one() -> None:
    assert Catalog([spec(version="1"), spec(version="2")]).resolve("m", "1") == ("m", "1")


def test_an_unknown_model_and_an_unknown_version_are_told_apart() -> None:
    catalog = Catalog([spec()])
    with pytest.raises(UnknownModel, match="no model 'nobody'"):
        catalog.resolve("nobody", "")
    with pytest.raises(UnknownModel, match="'m' has no version '7'"):
        catalog.resolve("m", "7")
    assert catalog.default("nobody") is None


def test_a_broken_version_says_why() -> None:
    catalog = Catalog([spec()], {("m", "2"): "batch_dealy_ms is not known"})
    with pytest.raises(NotReady, match=r"version 2 of model 'm'.*batch_dealy_ms is not known"):
        catalog.resolve("m", "2")


def test_a_broken_version_is_the_default_only_where_there_is_no_good_one() -> None:
    catalog = Catalog([spec(version="1")], {("m", "2"): "wrong", ("b", "1"): "wrong", ("b", "3"): "wrong"})
    assert catalog.default("m") == "1"
    assert catalog.default("b") == "3"
    with pytest.raises(NotReady):
        catalog.resolve("b", "")


def test_iterating_gives_the_good_versions() -> None:
    assert [s.key for s in Catalog([spec("a"), spec("b")], {("c", "1"): "wrong"})] == [("a", "1"), ("b", "1")]
