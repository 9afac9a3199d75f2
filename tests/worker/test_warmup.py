"""Warm-up: which sizes are run, what is measured, and what keeps a model from becoming ready."""

from __future__ import annotations

import pytest

from tests.worker.bench import DOUBLE, Bench, X, Y, floats, request, tensor

# Writes down how many rows each batch has.
COUNTING = """
class Model:
    def load(self, folder, device): self.seen = folder / "seen"
    def note(self, what):
        with self.seen.open("a") as file: print(what, file=file)
    def infer(self, x):
        self.note(len(x))
        return x * 2
"""


def seen(bench: Bench) -> list[int]:
    return [int(line) for line in (bench.store / "m" / "1" / "seen").read_text().split()]


def test_without_buckets_the_ends_and_powers_of_two_are_run_and_measured(bench: Bench) -> None:
    facts = bench.serve("batch_size_max = 6\n" + X + Y, model=COUNTING).facts
    assert list(facts["warmup"]) == list(facts["batch_us"]) == ["1", "2", "4", "6"]
    assert set(seen(bench)) == {1, 2, 4, 6}


def test_a_model_that_takes_long_is_run_at_its_ends_only(bench: Bench) -> None:
    ticks = iter(range(10_000))
    bench.runner._clock = lambda: float(next(ticks))  # each look at the clock is a second
    facts = bench.serve("batch_size_max = 64\n" + X + Y, model=COUNTING).facts
    assert list(facts["batch_us"]) == ["1", "64"]
    assert seen(bench) == [1, 1, 64, 64]  # once to warm it, once to measure
    assert facts["batch_us"] == {"1": 1_000_000, "64": 1_000_000}


def test_every_bucket_is_run_and_nothing_else(bench: Bench) -> None:
    facts = bench.serve("batch_size_max = 6\nbatch_buckets = [3, 6]\n" + X + Y, model=COUNTING).facts
    assert list(facts["batch_us"]) == ["3", "6"]
    bench.outputs(request(x=floats(1, 2)), request(rows=3, x=floats([1, 2], [3, 4], [5, 6])))
    bench.outputs(request(x=floats(1, 2)))
    assert set(seen(bench)) == {3, 6}
    assert seen(bench)[-2:] == [6, 3]


def test_what_a_batch_costs_is_told_in_whole_microseconds_above_0(bench: Bench) -> None:
    costs = bench.serve().facts["batch_us"]  # the clock stands
    assert costs == {"1": 1}
    assert all(type(cost) is int for cost in costs.values())


def test_a_models_own_warm_up_comes_first(bench: Bench) -> None:
    model = COUNTING + "    def warmup(self): self.note(99)\n"
    bench.serve(model=model)
    assert seen(bench)[:2] == [99, 1]


@pytest.mark.parametrize(
    ("inputs", "fact"),
    [
        ("", "skipped: no inputs are declared"),
        (tensor("inputs", "x", shape=(-1,)), "skipped: no warmup_shape for x"),
    ],
)
def test_warm_up_is_skipped_with_the_reason_where_there_is_no_example(
    bench: Bench, inputs: str, fact: str
) -> None:
    assert bench.serve(inputs, model=DOUBLE).facts["warmup"] == fact


def test_warm_up_shape_stands_in_for_an_open_shape(bench: Bench) -> None:
    copy = bench.serve(tensor("inputs", "x", shape=(-1,), more="warmup_shape = [5]"), model=DOUBLE)
    assert copy.facts["warmup"] == {"1": 0.0}
    assert copy.facts["batch_us"] == {"1": 1}
    assert copy.facts["outputs"] == [["output_0", "float32", [5]]]


@pytest.mark.parametrize(
    ("outputs", "reason"),
    [
        (
            tensor("outputs", "y", shape=(3,)),
            "output 'y' must have shape [3], got [2] after the batch dimension",
        ),
        (tensor("outputs", "y", dtype="int64"), "output 'y' must be int64, got float32"),
        (Y + tensor("outputs", "z"), "the model returned 1 outputs, not y, z"),
    ],
)
def test_a_load_fails_when_warm_up_finds_other_outputs_than_declared(
    bench: Bench, outputs: str, reason: str
) -> None:
    bench.write(X + outputs, model=DOUBLE)
    copy = bench.load()
    assert (copy.state, reason in copy.detail) == ("failed", True)


def test_a_load_fails_when_an_output_has_no_batch_dimension(bench: Bench) -> None:
    bench.write("batch_size_max = 4\n" + X, model=DOUBLE.replace("x * 2", "x.sum(0)"))
    assert (
        "output 'output_0' must have a leading 1 for a batch of 1 rows, got shape [2]" in bench.load().detail
    )


def test_a_load_fails_when_a_declared_output_is_missing(bench: Bench) -> None:
    bench.write(model=DOUBLE.replace("x * 2", "{'other': x}"))
    assert "output 'y' is declared, and the model did not return it" in bench.load().detail


def test_what_a_copy_takes_of_the_devices_memory_is_told(bench: Bench) -> None:
    model = DOUBLE.replace("class Model:", "import torch\nclass Model:\n    weights = torch.ones(60 << 20)")
    # 240 MiB, less what was given back meanwhile: garbage of the tests before is in the same process.
    assert 220 << 20 <= bench.serve(model=model).facts["memory_bytes"] < 400 << 20
