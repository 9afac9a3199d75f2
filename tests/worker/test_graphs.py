"""Graphs: what is captured, what is replayed, and what runs without; on a device that stands in."""

from __future__ import annotations

import logging

import pytest
import torch

from headway.models import ModelSpec, TensorSpec
from headway_worker.collate import Values
from headway_worker.graphs import Graphs, refusal
from tests.worker.standin import StandIn


def double(inputs: Values) -> Values:
    return {"y": inputs["x"] * 2}


def same(inputs: Values) -> Values:
    return inputs


def examples(rows: int, value: float = 1.0) -> dict[str, torch.Tensor]:
    return {"x": torch.full((rows, 3), value)}


def spec_of(*inputs: TensorSpec) -> ModelSpec:
    return ModelSpec("m", "1", "/", "python", inputs=inputs)


def test_only_shapes_that_were_captured_are_replayed() -> None:
    graphs = Graphs(StandIn(), double, same, 4)
    assert graphs.capture(examples(2)) == ""
    assert len(graphs) == 1
    assert graphs.run(examples(3)) is None
    replayed = graphs.run(examples(2, 5.0))
    assert replayed is not None and replayed["y"].tolist() == [[10.0] * 3] * 2


def test_outputs_are_not_written_over_by_the_next_replay() -> None:
    graphs = Graphs(StandIn(), double, same, 4)
    graphs.capture(examples(1))
    first, _second = graphs.run(examples(1, 1.0)), graphs.run(examples(1, 2.0))
    assert first is not None and first["y"].tolist() == [[2.0] * 3]


def test_all_sizes_share_the_memory_of_the_largest() -> None:
    graphs = Graphs(StandIn(), double, same, 4)
    for rows in (1, 2, 4):
        graphs.capture(examples(rows))
    places = {captured.inputs["x"].data_ptr() for captured in graphs._captured.values()}
    assert len(places) == 1


def test_a_model_that_cannot_be_captured_runs_without_any_graph_and_says_why(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def picky(inputs: Values) -> Values:
        if len(inputs["x"]) == 2:
            raise RuntimeError("operation not permitted when stream is capturing")
        return double(inputs)

    caplog.set_level(logging.WARNING, "headway.worker")
    graphs = Graphs(StandIn(), picky, same, 4)
    assert graphs.capture(examples(1)) == ""
    assert graphs.capture(examples(2)).startswith("not captured: RuntimeError: operation not permitted")
    assert len(graphs) == 0
    assert graphs.run(examples(1)) is None
    assert len(caplog.records) == 1


def test_outputs_off_the_gpu_cannot_be_replayed() -> None:
    graphs = Graphs(StandIn(), lambda inputs: {"y": inputs["x"].numpy()}, same, 4)
    assert "output 'y' is not on the GPU" in graphs.capture(examples(1))


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        (spec_of(TensorSpec("x", "float32", (2,))), ""),
        (spec_of(TensorSpec("x", "float32", (-1,), warmup_shape=(3,))), ""),
        (spec_of(TensorSpec("x", "float32", (-1,))), "not captured: x has no warmup_shape"),
        (spec_of(TensorSpec("s", "bytes", ())), "not captured: s is bytes"),
        (spec_of(), "not captured: no inputs are declared"),
    ],
)
def test_which_models_can_have_none_is_known_without_trying(spec: ModelSpec, reason: str) -> None:
    assert refusal(spec) == reason
