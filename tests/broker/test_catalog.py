"""The catalog: which version a caller means."""

from __future__ import annotations

import pytest

from headway.errors import InvalidInput, NotReady, UnknownModel
from headway_broker.catalog import Catalog, version_order
from headway_broker.desired import Desired, ModelOrders
from tests.broker.bench import spec


def test_a_caller_who_names_no_version_gets_the_latest() -> None:
    catalog = Catalog([spec(version="9"), spec(version="10"), spec(version="2.1")])
    assert catalog.resolve("m", "") == ("m", "10")
    assert catalog.default("m") == "10"


def test_versions_are_ordered_as_numbers() -> None:
    assert sorted(["10", "9", "1.10", "1.9", "1"], key=version_order) == ["1", "1.9", "1.10", "9", "10"]


def test_words_come_before_all_numbers_and_count_as_people_do() -> None:
    rising = ["1.0-rc2", "1.0-rc10", "2.0+cu118", "latest", "v2", "v10", "0.1", "1", "1.0.0.0.1"]
    assert sorted(set(rising), key=version_order) == rising
    catalog = Catalog([spec(version=v) for v in ("v2", "1", "2.0+cu118")])
    assert catalog.resolve("m", "") == ("m", "1")
    assert catalog.resolve("m", "2.0+cu118") == ("m", "2.0+cu118")
    assert Catalog([spec(version=v) for v in ("v10", "v9")]).default("m") == "v10"


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


def orders(**keys: object) -> Desired:
    return Desired({"m": ModelOrders(**keys)})  # type: ignore[arg-type]


def of_versions(*versions: str, desired: Desired | None = None) -> Catalog:
    return Catalog([spec(version=v) for v in versions], None, desired)


def test_a_sticky_key_stays_with_its_version_over_a_restart_in_whatever_order_weights_were_kept() -> None:
    keys = [f"user {i}" for i in range(50)]
    before = of_versions("9", "10")
    before.set_split("m", {"10": 1, "9": 1})
    before.move("m")
    kept = orders(weights={"10": 1.0, "9": 1.0}, serving={"10": 1.0, "9": 1.0})
    after = of_versions("10", "9", desired=kept)
    assert [before.resolve("m", "", k) for k in keys] == [after.resolve("m", "", k) for k in keys]


def test_when_everything_is_broken_callers_learn_why_and_come_back_with_the_first_good_version() -> None:
    catalog = Catalog([], {("m", "1"): "a typo"})
    assert catalog.default("m") == "1" and catalog.serving("m") == {} and catalog.wanted("m") == {}
    assert catalog.versions("m") == []
    assert catalog.look([spec()], {}).added == [("m", "1")]
    assert catalog.resolve("m", "") == ("m", "1") and not catalog.moving


def test_a_version_that_vanishes_while_traffic_moves_to_it_leaves_traffic_where_it_is() -> None:
    catalog = of_versions("1")
    catalog.look([spec(version="1"), spec(version="2")], {})
    assert catalog.moving == {"m"} and catalog.serving("m") == {"1": 1.0}
    assert catalog.look([spec(version="1")], {}).gone == [("m", "2")]
    assert not catalog.moving and catalog.serving("m") == {"1": 1.0}


def test_a_version_with_traffic_that_vanishes_gives_it_to_what_is_wanted_at_once() -> None:
    catalog = of_versions("1", "2")
    catalog.look([spec(version="1")], {})
    assert catalog.serving("m") == {"1": 1.0} and not catalog.moving


def test_a_default_that_vanishes_is_the_latest_until_it_comes_back() -> None:
    catalog = of_versions("1", "2", desired=orders(default="3"))
    assert catalog.wanted("m") == {"2": 1.0}
    catalog.look([spec(version=v) for v in "123"], {})
    assert catalog.wanted("m") == {"3": 1.0} and catalog.serving("m") == {"2": 1.0}
    catalog.move("m")
    assert catalog.resolve("m", "") == ("m", "3")


def test_a_split_goes_on_without_a_version_that_vanished_and_takes_it_back() -> None:
    catalog = of_versions("1", "2", "3", desired=orders(weights={"1": 6.0, "2": 3.0, "3": 1.0}))
    catalog.look([spec(version="1"), spec(version="2")], {})
    assert catalog.serving("m") == pytest.approx({"1": 2 / 3, "2": 1 / 3})
    catalog.look([spec(version=v) for v in "123"], {})
    assert catalog.wanted("m") == {"1": 6.0, "2": 3.0, "3": 1.0} and catalog.moving == {"m"}


def test_what_was_unregistered_stays_so_when_the_store_is_read_again() -> None:
    catalog = of_versions("1", "2")
    assert catalog.unregister("m") == ["1", "2"]
    catalog.look([spec(version="1"), spec(version="2")], {})
    assert not catalog.specs and catalog.default("m") is None
    assert catalog.look([spec(version=v) for v in "123"], {}).added == [("m", "3")]
    assert catalog.register("m") == ["1", "2", "3"]


def test_a_restart_keeps_the_traffic_where_it_is_while_it_is_ordered_elsewhere() -> None:
    catalog = of_versions("1")
    catalog.look([spec(version="1"), spec(version="2")], {})
    assert catalog.document()["models"]["m"]["serving"] == {"1": 1.0}
    again = of_versions("1", "2", desired=catalog.desired)
    assert again.serving("m") == {"1": 1.0} and again.moving == {"m"}


def test_a_bad_edit_of_a_version_that_is_registered_does_not_take_it_away() -> None:
    catalog = of_versions("1")
    changes = catalog.look([], {("m", "1"): "a typo"})
    assert changes.changed == [("m", "1")] and catalog.resolve("m", "1") == ("m", "1")
    assert not catalog.broken


def test_limits_that_are_the_wrong_way_round_in_the_file_do_no_harm() -> None:
    assert of_versions("1", desired=orders(copies={"1": (3, 1)})).limits(("m", "1")) == (3, 3)


def test_the_only_version_may_go_although_it_has_traffic() -> None:
    catalog = of_versions("1", "2")
    with pytest.raises(InvalidInput, match="has traffic"):
        catalog.unregister("m", "2")
    catalog.unregister("m", "1")
    assert catalog.unregister("m", "2") == ["2"]
    with pytest.raises(UnknownModel):
        catalog.unregister("m", "2")
