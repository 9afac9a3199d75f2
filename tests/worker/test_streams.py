"""Batches on three streams, on a device that does things as late and in as wrong an order as it may."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from headway.models import ModelSpec, TensorSpec
from headway_worker.collate import Values
from headway_worker.request import ModelRequest
from headway_worker.streams import DIRECT_BYTES_MIN, SLOTS, Direct, StreamTrack
from headway_worker.tracks import Flight
from tests.worker.standin import StandIn

SPEC = ModelSpec("m", "1", "/", "python", batch_size_max=4, inputs=(TensorSpec("x", "float32", (2,)),))
WIDE = DIRECT_BYTES_MIN // 4
seeds = st.integers(0, 1 << 32)


def affine(inputs: Values) -> Values:
    return {"y": inputs["x"] * 2 + 1}


def row(value: float, size: int = 2) -> ModelRequest:
    return ModelRequest(tensors={"x": np.full(size, value, np.float32)})


def track_on(gpu: StandIn, spec: ModelSpec = SPEC, infer: Any = affine, **more: Any) -> StreamTrack:
    buckets = more.pop("buckets", ())
    return StreamTrack(spec, infer, buckets, gpu, more.pop("holds", lambda address, size: False))


def launched(track: StreamTrack, values: list[float], size: int = 2) -> Flight:
    return track.launch(track.collate([row(value, size) for value in values]), lambda: 0.0)


def through(track: StreamTrack, batches: list[list[float]], depth: int = SLOTS, size: int = 2) -> None:
    """Run the batches with `depth` in flight, and check what each one gets."""
    flying: list[tuple[list[float], Flight]] = []
    for values in batches:
        if len(flying) == depth:
            land(*flying.pop(0))
        flying.append((values, launched(track, values, size)))
    for pair in flying:
        land(*pair)


def land(values: list[float], flight: Flight) -> None:
    got = flight.outputs()["y"][: len(values), 0].tolist()
    assert got == [2 * value + 1 for value in values]


BATCHES = st.lists(st.lists(st.integers(-50, 50).map(float), min_size=1, max_size=4), max_size=8)


@given(seeds, BATCHES, st.integers(1, 4))
def test_every_batch_gets_its_own_outputs_however_late_things_happen(seed, batches, depth):
    """Four in flight: more than there are slots, as when a batch has several groups."""
    through(track_on(StandIn(seed)), batches, depth)


@given(seeds, BATCHES)
def test_so_it_is_with_graphs_and_buckets(seed, batches):
    gpu = StandIn(seed)
    track = track_on(gpu, replace(SPEC, cuda_graphs=True), buckets=(1, 2, 4))
    for rows in (1, 2, 4):
        track.settle([row(1.0)] * rows, lambda: 0.0)
    assert gpu.captures == 3
    assert track.facts() == {"cuda_graphs": "captured for 3 sizes"}
    through(track, batches)


@given(seeds, BATCHES)
def test_so_it_is_with_inputs_that_are_copied_from_where_they_lie(seed, batches):
    spec = replace(SPEC, inputs=(TensorSpec("x", "float32", (WIDE,)),))
    track = track_on(StandIn(seed), spec, buckets=(2, 4), holds=lambda address, size: True)
    through(track, batches, size=WIDE)


@given(seeds, BATCHES)
def test_so_it_is_when_the_model_returns_its_input(seed, batches):
    def identity(inputs: Values) -> Values:
        return {"y": inputs["x"].view_as(inputs["x"])}

    track = track_on(StandIn(seed), infer=identity)
    flights = [(values, launched(track, values)) for values in batches]
    for values, flight in flights:
        assert flight.outputs()["y"][:, 0].tolist() == values


@given(seeds, st.lists(st.integers(1, 5), max_size=8))
def test_so_it_is_with_open_shapes(seed, sizes):
    spec = replace(SPEC, inputs=(TensorSpec("x", "float32", (-1,)),))
    track = track_on(StandIn(seed), spec)
    flights = [(size, launched(track, [size, -size], size)) for size in sizes]
    for size, flight in flights:
        assert flight.outputs()["y"].tolist() == [[2 * size + 1] * size, [1 - 2 * size] * size]


def test_a_launch_only_enqueues() -> None:
    gpu = StandIn()
    flight = launched(track_on(gpu), [1.0])
    assert gpu.log == []
    assert flight.outputs()["y"].tolist() == [[3.0, 3.0]]
    assert gpu.log == ["copy in", "compute", "copy out"]


def test_copies_overlap_the_computation_of_another_batch() -> None:
    """Over many orders: B comes in before A is computed, and A goes out after B is computed."""
    orders = set()
    for seed in range(200):
        gpu = StandIn(seed)
        track = track_on(gpu)
        for flight in [launched(track, [1.0]), launched(track, [2.0])]:
            flight.outputs()
        orders.add(" ".join(gpu.log))
    assert "copy in copy in compute copy out compute copy out" in orders
    assert "copy in compute copy in compute copy out copy out" in orders


def test_the_third_batch_is_not_copied_in_before_the_first_is_computed() -> None:
    for seed in range(100):
        gpu = StandIn(seed)
        track = track_on(gpu)
        for value in (1.0, 2.0, 3.0):
            launched(track, [value])
        gpu.drain()
        assert gpu.log.index("compute") < [i for i, what in enumerate(gpu.log) if what == "copy in"][2]


def test_whether_it_is_done_is_known_without_waiting() -> None:
    gpu = StandIn()
    flight = launched(track_on(gpu), [1.0])
    looks = 0
    while not flight.is_done():
        looks += 1
    assert looks > 3
    assert flight.compute_s() == 0.001


def test_the_model_sees_buckets_and_padding_is_the_inputs_own() -> None:
    seen = []

    def look(inputs: Values) -> Values:
        seen.append(tuple(inputs["x"].shape))
        return affine(inputs)

    spec = replace(SPEC, inputs=(TensorSpec("x", "float32", (2,), pad_value=7.0),))
    flight = launched(track_on(StandIn(), spec, look, buckets=(4,)), [1.0, 2.0])
    assert flight.outputs()["y"][:, 0].tolist() == [3.0, 5.0, 15.0, 15.0]
    assert set(seen) == {(4, 2)}


def test_padding_behind_rows_that_are_copied_from_where_they_lie_is_the_inputs_own() -> None:
    spec = replace(SPEC, inputs=(TensorSpec("x", "float32", (WIDE,), pad_value=7.0),))
    track = track_on(StandIn(), spec, buckets=(4,), holds=lambda address, size: True)
    outputs = launched(track, [1.0, 2.0], WIDE).outputs()["y"]
    assert outputs[:, -1].tolist() == [3.0, 5.0, 15.0, 15.0]


def test_only_large_dense_inputs_of_fixed_shape_are_copied_from_where_they_lie() -> None:
    held: list[int] = []
    spec = replace(SPEC, inputs=(TensorSpec("x", "float32", (-1,)),))
    fixed = replace(SPEC, inputs=(TensorSpec("x", "float32", (WIDE,)),))

    def kind(spec: ModelSpec, *arrays: np.ndarray) -> type:
        held[:] = [array.ctypes.data for array in arrays]
        track = track_on(StandIn(), spec, holds=lambda address, size: address in held)
        return type(track.collate([ModelRequest(tensors={"x": array}) for array in arrays])["x"])

    large = np.ones(WIDE, np.float32)
    assert kind(fixed, large, large.copy()) is Direct
    assert kind(spec, large) is torch.Tensor
    assert kind(fixed, np.ones(2 * WIDE, np.float32)[::2]) is torch.Tensor
    assert kind(SPEC, np.ones(2, np.float32)) is torch.Tensor
    track = track_on(StandIn(), fixed)
    assert isinstance(track.collate([ModelRequest(tensors={"x": large})])["x"], torch.Tensor)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "uint8"])
def test_read_only_memory_of_any_dtype_is_copied_as_it_is(dtype: str, recwarn: Any) -> None:
    import ml_dtypes

    numpy = np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    size = DIRECT_BYTES_MIN // numpy.itemsize
    spec = replace(SPEC, inputs=(TensorSpec("x", dtype, (size,)),))
    array = np.frombuffer(np.arange(size).astype(numpy).tobytes(), numpy)
    track = track_on(StandIn(), spec, lambda inputs: dict(inputs), holds=lambda address, size: True)
    inputs = track.collate([ModelRequest(rows=1, tensors={"x": array[np.newaxis]})])
    assert isinstance(inputs["x"], Direct)
    made = track.launch(inputs, lambda: 0.0).outputs()["x"]
    assert made[0].float().tolist() == array.astype(np.float32).tolist()
    assert not recwarn.list


def test_a_model_that_raises_leaves_the_streams_in_order_for_the_next_batch() -> None:
    def picky(inputs: Values) -> Values:
        if len(inputs["x"]) == 3:
            raise RuntimeError("three")
        return affine(inputs)

    for seed in range(50):
        track = track_on(StandIn(seed), infer=picky)
        first = launched(track, [1.0])
        with pytest.raises(RuntimeError, match="three"):
            launched(track, [1.0, 2.0, 3.0])
        second, third = launched(track, [4.0]), launched(track, [5.0])
        for value, flight in ((1.0, first), (4.0, second), (5.0, third)):
            land([value], flight)


def test_outputs_that_are_not_on_the_device_come_along() -> None:
    def mixed(inputs: Values) -> Values:
        return {"y": inputs["x"] * 2, "names": np.array(["a"] * len(inputs["x"]))}

    outputs = launched(track_on(StandIn(), infer=mixed), [1.0]).outputs()
    assert outputs["names"].tolist() == [b"a"]
    assert list(outputs) == ["y", "names"]


def test_bytes_pass_by_the_device() -> None:
    spec = replace(SPEC, inputs=(*SPEC.inputs, TensorSpec("s", "bytes", ())))
    request = ModelRequest(tensors={"x": np.ones(2, np.float32), "s": np.array(b"a", object)})

    def infer(inputs: Values) -> Values:
        return {"y": inputs["x"], "s": inputs["s"]}

    track = track_on(StandIn(), replace(spec, cuda_graphs=True), infer)
    track.settle([request], lambda: 0.0)
    assert track.facts() == {"cuda_graphs": "not captured: s is bytes"}
    assert track.launch(track.collate([request]), lambda: 0.0).outputs()["s"].tolist() == [b"a"]


def test_half_precision_is_the_models_own_affair() -> None:
    seen = []

    def look(inputs: Values) -> Values:
        seen.append(inputs["x"].dtype)
        return affine(inputs)

    for graphs in (False, True):
        track = track_on(StandIn(), replace(SPEC, precision="bfloat16", cuda_graphs=graphs), look)
        track.settle([row(1.0)], lambda: 0.0)
        made = launched(track, [3.0]).outputs()["y"]
        assert (made.dtype, made.tolist()) == (torch.float32, [[7.0, 7.0]])
    assert set(seen) == {torch.bfloat16}
