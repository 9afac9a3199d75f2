"""Memory in and out: collate and split are each other's inverse."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from headway.models import TensorSpec
from headway.tensors import DTYPES, Tensors, pack, unpack
from headway_worker.collate import as_tensors, collate, cut, dtype_name, grouped, split, to_host
from headway_worker.request import ModelRequest


def array_of(dtype: str, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    numbers = (np.arange(np.prod(shape, dtype=int)) + seed) % 100
    found = next(d for d in DTYPES if d.name == dtype)
    if dtype == "bytes":
        return np.array([str(n).encode() for n in numbers] or np.empty(0), dtype=object).reshape(shape)
    return numbers.astype(found.numpy).reshape(shape)


def same(one: Tensors, other: Tensors) -> bool:
    return one.keys() == other.keys() and all(
        a.dtype == b.dtype and a.shape == b.shape and a.tolist() == b.tolist()
        for a, b in zip(one.values(), other.values(), strict=True)
    )


@given(
    dtype=st.sampled_from([d.name for d in DTYPES]),
    shape=st.lists(st.integers(0, 3), max_size=3).map(tuple),
    rows=st.lists(st.integers(0, 3), min_size=1, max_size=5),
)
def test_split_gives_back_what_was_collated(dtype: str, shape: tuple[int, ...], rows: list[int]) -> None:
    requests = [
        ModelRequest(rows=n, tensors={"x": array_of(dtype, (n, *shape) if n else shape, seed)})
        for seed, n in enumerate(rows)
    ]
    batch = collate(requests, [TensorSpec("x", dtype, shape)])
    assert batch["x"].shape == (sum(n or 1 for n in rows), *shape)
    assert dtype_name(batch["x"]) == dtype
    for request, share in zip(requests, split(batch, requests), strict=True):
        assert same(unpack(pack(as_tensors(share))), request.tensors)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=4))
def test_padding_keeps_each_request_and_the_mask_counts_its_elements(shapes: list[tuple[int, int]]) -> None:
    spec = TensorSpec("x", "int32", (-1, -1), pad_value=-7, mask="m")
    requests = [ModelRequest(tensors={"x": array_of("int32", shape)}) for shape in shapes]
    assert grouped(requests, [spec]) == [list(range(len(shapes)))]
    batch = collate(requests, [spec])
    x, mask = batch["x"], batch["m"]
    assert x.shape == mask.shape == (len(shapes), *map(max, zip(*shapes, strict=True)))
    for row, (a, b) in enumerate(shapes):
        assert x[row, :a, :b].tolist() == requests[row].tensors["x"].tolist()
        assert mask[row, :a, :b].all()
        assert mask[row].sum() == a * b
    assert (x[~mask] == -7).all()


def test_padded_strings_are_empty() -> None:
    spec = TensorSpec("x", "bytes", (-1,), pad_value=0.0)
    batch = collate([ModelRequest(tensors={"x": array_of("bytes", (n,))}) for n in (1, 2)], [spec])
    assert batch["x"].tolist() == [[b"0", b""], [b"0", b"1"]]


def test_read_only_memory_is_copied_without_a_warning() -> None:
    array = np.frombuffer(bytes(8), np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        batch = collate([ModelRequest(tensors={"x": array})], [])
        host = to_host("x", array)
    for tensor in (batch["x"], host):
        assert isinstance(tensor, torch.Tensor)
        tensor += 1
    assert array.tolist() == [0, 0]


@pytest.mark.parametrize(
    "tensor",
    [
        torch.arange(6.0).reshape(2, 3).T,
        torch.ones(1, 3).expand(2, 3),
        torch.ones(2, requires_grad=True),
        torch.ones(2, dtype=torch.bfloat16)[::2],
    ],
)
def test_any_dense_tensor_of_a_model_can_be_packed(tensor: torch.Tensor) -> None:
    packed = pack(as_tensors({"y": to_host("y", tensor)}))
    assert unpack(packed)["y"].tolist() == tensor.tolist()


def test_big_endian_arrays_of_a_model_are_turned_round() -> None:
    assert to_host("y", np.array([1, 2], ">i4")).tolist() == [1, 2]


def test_rows_beyond_the_requests_are_padding_and_the_mask_says_so() -> None:
    spec = TensorSpec("x", "int32", (-1,), pad_value=-7, mask="m")
    batch = collate([ModelRequest(tensors={"x": array_of("int32", (2,), 1)})], [spec], rows=3)
    assert batch["x"].tolist() == [[1, 2], [-7, -7], [-7, -7]]
    assert batch["m"].tolist() == [[True, True], [False, False], [False, False]]


def test_rows_of_padding_are_zero_or_empty_where_no_value_is_declared() -> None:
    for dtype, zero in (("float32", 0), ("bool", False), ("bytes", b"")):
        spec = TensorSpec("x", dtype, (1,))
        batch = collate([ModelRequest(tensors={"x": array_of(dtype, (1,), 1)})], [spec], rows=2)
        assert batch["x"][1].tolist() == [zero]


def test_cut_gives_back_what_was_there_before_the_padding() -> None:
    request = ModelRequest(rows=2, tensors={"x": array_of("float32", (2, 3))})
    batch = collate([request], [TensorSpec("x", "float32", (3,))], rows=8)
    (share,) = split(cut(batch, 2), [request])
    assert same(as_tensors(share), request.tensors)


def test_inputs_that_are_skipped_are_left_out() -> None:
    tensors = {"x": array_of("float32", (2,)), "z": array_of("float32", (2,))}
    assert list(collate([ModelRequest(tensors=tensors)], [], skip=["x"])) == ["z"]
