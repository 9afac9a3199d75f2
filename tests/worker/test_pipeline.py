"""The order of the runner's steps, without any runner."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from headway_worker.pipeline import Finish, Launch, Obey, Pipeline, Prepare, Watch


def steps(pipeline: Pipeline) -> list:
    """What it says until it has nothing more to say than to wait."""
    found = []
    while (step := pipeline.next()) is not None and not isinstance(step, Watch):
        found.append(step)
    return found


def test_nothing_to_do_is_nothing():
    assert Pipeline(lambda _: 2).next() is None


def test_one_batch_is_prepared_launched_and_watched_until_it_is_done():
    pipeline = Pipeline(lambda _: 2)
    pipeline.add("a")
    assert steps(pipeline) == [Prepare("a"), Launch("a")]
    assert pipeline.next() == pipeline.next() == Watch("a")
    assert pipeline.land() == "a"
    assert pipeline.next() is None


def test_a_second_batch_is_launched_behind_the_first_which_is_then_finished_for_the_third():
    pipeline = Pipeline(lambda _: 2)
    for batch in "abc":
        pipeline.add(batch)
    assert steps(pipeline)[:4] == [Prepare("a"), Launch("a"), Prepare("b"), Launch("b")]
    assert pipeline.in_flight == ("b", "c")


def test_with_a_depth_of_one_each_is_finished_before_the_next_is_launched():
    pipeline = Pipeline(lambda _: 1)
    pipeline.add("a")
    pipeline.add("b")
    assert steps(pipeline) == [Prepare("a"), Launch("a"), Finish("a"), Prepare("b"), Launch("b")]


def test_an_order_waits_for_what_is_in_flight_and_holds_up_what_comes_after_it():
    pipeline = Pipeline(lambda _: 2)
    pipeline.add("a")
    pipeline.bar("load")
    pipeline.add("b")
    expected = [Prepare("a"), Launch("a"), Finish("a"), Obey("load"), Prepare("b"), Launch("b")]
    assert steps(pipeline) == expected


def test_a_batch_of_a_shallow_model_is_not_launched_beside_one_of_a_deep_model():
    pipeline = Pipeline({"gpu": 2, "cpu": 1}.__getitem__)
    for batch in ("gpu", "cpu", "gpu"):
        pipeline.add(batch)
    kinds = [type(step) for step in steps(pipeline)]
    assert kinds == [Prepare, Launch, Finish] * 2 + [Prepare, Launch]


def test_what_was_prepared_ahead_is_not_prepared_again():
    pipeline = Pipeline(lambda _: 1)
    pipeline.add("a")
    assert steps(pipeline) == [Prepare("a"), Launch("a")]
    assert pipeline.is_open
    pipeline.add("b")
    pipeline.add("c")
    assert pipeline.ahead(lambda _: True) == "b"
    assert pipeline.ahead(lambda _: True) is None  # one at a time
    assert steps(pipeline)[:3] == [Finish("a"), Launch("b"), Finish("b")]


def test_nothing_is_prepared_ahead_across_an_order_or_where_it_may_not_be():
    pipeline = Pipeline(lambda _: 1)
    pipeline.bar("load")
    pipeline.add("a")
    assert pipeline.ahead(lambda _: True) is None
    assert pipeline.next() == Obey("load")
    assert pipeline.ahead(lambda _: False) is None
    assert pipeline.next() == Prepare("a")


class Driver:
    """Does what the pipeline says, as the runner would, and checks each step."""

    def __init__(self, depths: dict[int, int]) -> None:
        self.pipeline: Pipeline = Pipeline(depths.__getitem__)
        self.depths = depths
        self.prepared: Counter[int] = Counter()
        self.flying: list[int] = []
        self.over: list[object] = []

    def step(self) -> bool:
        step = self.pipeline.next()
        match step:
            case Prepare(batch):
                self.prepare(batch)
            case Launch(batch):
                assert self.prepared[batch] == 1
                self.flying.append(batch)
                assert len(self.flying) <= min(self.depths[b] for b in self.flying)
            case Watch(batch):
                assert self.flying[0] == batch
                self.finish(self.pipeline.land())
            case Finish(batch):
                self.finish(batch)
            case Obey(order):
                assert not self.flying
                self.over.append(order)
        return step is not None

    def ahead(self) -> None:
        batch = self.pipeline.ahead(lambda _: True)
        if batch is not None:
            self.prepare(batch)

    def prepare(self, batch: int) -> None:
        self.prepared[batch] += 1

    def finish(self, batch: int) -> None:
        assert self.flying.pop(0) == batch
        self.over.append(batch)


# What comes: batches of depth 1 or 2, and orders; in between some steps are done, or something ahead.
EVENTS = st.lists(st.sampled_from(["shallow", "deep", "order", "step", "step", "ahead"]), max_size=60)


@given(EVENTS)
def test_everything_is_done_once_and_in_order_and_no_more_is_in_flight_than_may_be(events):
    depths: dict[int, int] = {}
    driver = Driver(depths)
    came: list[object] = []
    for number, event in enumerate(events):
        if event in ("shallow", "deep"):
            depths[number] = 1 if event == "shallow" else 2
            driver.pipeline.add(number)
            came.append(number)
        elif event == "order":
            driver.pipeline.bar(f"order {number}")
            came.append(f"order {number}")
        elif event == "ahead":
            driver.ahead()
        else:
            driver.step()
    while driver.step():
        pass
    assert driver.over == came
    assert all(count == 1 for count in driver.prepared.values())
    assert driver.pipeline.in_flight == ()


def test_an_order_waits_for_batches_that_were_taken_out_and_others_do_not():
    apart = ["a"]
    pipeline = Pipeline(lambda _: 1, lambda: not apart)
    pipeline.add("a")
    assert steps(pipeline) == [Prepare("a"), Launch("a")]
    assert pipeline.land() == "a"
    pipeline.add("b")
    pipeline.bar("unload")
    pipeline.add("c")
    assert list(pipeline.waiting) == ["b", "c"]
    assert steps(pipeline) == [Prepare("b"), Launch("b"), Finish("b")]
    assert list(pipeline.waiting) == ["c"]
    apart.clear()
    assert steps(pipeline) == [Obey("unload"), Prepare("c"), Launch("c")]
