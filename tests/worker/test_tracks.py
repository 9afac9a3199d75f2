"""A batch's way through a model on the CPU, and which device gets which track."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from headway.errors import ModelError
from headway.models import ModelSpec, TensorSpec
from headway_worker.collate import Values
from headway_worker.request import ModelRequest
from headway_worker.tracks import HostTrack, WholeTrack
from headway_worker.yard import enter, holds_nothing, track_for
from tests.worker.bench import Bench, floats, request, tensor

SPEC = ModelSpec("m", "1", "/", "python", batch_size_max=4, inputs=(TensorSpec("x", "float32", (2,)),))


def double(inputs: Values) -> Values:
    return {"y": inputs["x"] * 2}


def rows(*values: float) -> list[ModelRequest]:
    return [ModelRequest(tensors={"x": floats(value, value)}) for value in values]


def test_a_launch_on_the_cpu_has_landed_and_took_its_time() -> None:
    ticks = iter([5.0, 7.5])
    track = HostTrack(SPEC, double, ())
    flight = track.launch(track.collate(rows(1, 2)), lambda: next(ticks))
    assert flight.is_done()
    assert flight.outputs()["y"].tolist() == [[2, 2], [4, 4]]
    assert flight.compute_s() == 2.5


@pytest.mark.parametrize(("count", "bucket"), [(1, 2), (2, 2), (3, 4), (5, 5)])
def test_the_model_sees_the_next_bucket_or_a_larger_batch_as_it_is(count: int, bucket: int) -> None:
    track = HostTrack(SPEC, double, (2, 4))
    assert track.collate(rows(*range(count)))["x"].shape == (bucket, 2)


def test_large_batches_come_from_kept_memory() -> None:
    size = 1 << 18
    track = HostTrack(replace(SPEC, inputs=(TensorSpec("x", "float32", (size,)),)), double, ())
    request = ModelRequest(tensors={"x": np.ones(size, np.float32)})
    places = {track.collate([request])["x"].data_ptr() for _ in range(5)}
    assert len(places) == 1


def test_a_model_that_returns_no_tensor_is_told_so_by_name() -> None:
    track = HostTrack(SPEC, lambda inputs: {"y": [1]}, ())
    with pytest.raises(ModelError, match="'y' is of type list"):
        track.launch(track.collate(rows(1)), lambda: 0.0)


def test_the_cpu_has_the_hosts_track_and_no_page_locked_memory() -> None:
    track = track_for(SPEC, double, (), torch.device("cpu"))
    assert isinstance(track, HostTrack)
    assert (track.depth, track.facts()) == (1, {})
    assert not holds_nothing(0, 1)
    enter(torch.device("cpu"))


def test_padding_is_not_seen_by_callers(bench: Bench) -> None:
    model = "class Model:\n    def infer(self, x): return x.cumsum(0) * 0 + len(x)\n"
    toml = "batch_size_max = 4\nbatch_buckets = [4]\n" + tensor("inputs", "x") + tensor("outputs", "n")
    bench.serve(toml, model=model)
    outputs = bench.outputs(request(x=floats(1, 2)), request(rows=2, x=floats([1, 2], [3, 4])))
    assert [output["n"].tolist() for output in outputs] == [[4, 4], [[4, 4], [4, 4]]]


def test_a_model_that_forgets_the_padding_is_told_how_many_rows_there_were(bench: Bench) -> None:
    bench.write(
        "batch_size_max = 4\nbatch_buckets = [4]\n" + tensor("inputs", "x"),
        model="class Model:\n    def infer(self, x): return x[:1]\n",
    )
    assert "must have a leading 4 for a batch of 4 rows, got shape [1, 2]" in bench.load().detail


def test_a_backend_may_take_requests_whole() -> None:
    asked = rows(1, 2)
    track = WholeTrack(lambda requests: [{"y": r.tensors["x"] * 2} for r in requests])
    ticks = iter([5.0, 7.5])
    flight = track.launch(track.collate(asked), lambda: next(ticks))
    assert flight.is_done()
    assert [share["y"].tolist() for share in flight.outputs()] == [[2, 2], [4, 4]]  # type: ignore[index]
    assert flight.compute_s() == 2.5


def test_a_backend_that_answers_too_few_requests_is_at_fault() -> None:
    track = WholeTrack(lambda requests: [{}])
    with pytest.raises(ModelError, match="the backend answered 1 requests of 2"):
        track.launch(track.collate(rows(1, 2)), lambda: 0.0)
