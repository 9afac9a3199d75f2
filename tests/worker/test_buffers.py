"""Memory that is kept from batch to batch: never somebody else's, and not without end."""

from __future__ import annotations

import threading

import pytest
import torch

from headway_worker.buffers import KEPT_BYTES_MAX, KEPT_BYTES_MIN, KEPT_MAX, Buffers
from headway_worker.collate import to_numpy

BIG = (KEPT_BYTES_MIN // 4,)


@pytest.fixture
def buffers() -> Buffers:
    return Buffers()


def place(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def test_memory_that_nobody_holds_is_given_out_again(buffers: Buffers) -> None:
    first = place(buffers.empty("x", BIG, torch.float32))
    assert place(buffers.empty("x", BIG, torch.float32)) == first
    assert len(buffers) == 1


@pytest.mark.parametrize(
    "hold",
    [
        lambda tensor: tensor,
        lambda tensor: tensor[3:5],
        lambda tensor: tensor.view(torch.int32),
        lambda tensor: tensor.detach().numpy()[1:],
        lambda tensor: to_numpy(tensor.view(torch.bfloat16))[::2],
        lambda tensor: memoryview(tensor.numpy()),
        lambda tensor: tensor.untyped_storage(),
        lambda tensor: {"y": [tensor.reshape(2, -1).T]},
    ],
)
def test_memory_that_somebody_holds_in_whatever_form_is_not_given_out(buffers: Buffers, hold) -> None:
    first = buffers.empty("x", BIG, torch.float32)
    taken = place(first)
    held = hold(first)
    del first
    others = [buffers.empty("x", BIG, torch.float32) for _ in range(2)]
    assert taken not in map(place, others)
    del held
    assert place(buffers.empty("x", BIG, torch.float32)) == taken


def test_what_is_held_keeps_its_values(buffers: Buffers) -> None:
    held = buffers.empty("x", BIG, torch.float32)
    held.fill_(1)
    row = held[5]
    del held
    for _ in range(5):
        buffers.empty("x", BIG, torch.float32).fill_(2)
    assert row == 1


def test_no_more_than_a_few_are_kept_however_many_are_in_use(buffers: Buffers) -> None:
    held = [buffers.empty("x", BIG, torch.float32) for _ in range(10)]
    assert len({place(tensor) for tensor in held}) == 10
    assert len(buffers) == KEPT_MAX


def test_a_larger_batch_takes_the_place_of_a_smaller_one(buffers: Buffers) -> None:
    buffers.empty("x", BIG, torch.float32)
    large = place(buffers.empty("x", (2, *BIG), torch.float32))
    assert len(buffers) == 1
    assert place(buffers.empty("x", BIG, torch.float32)) == large


def test_a_smaller_batch_uses_the_front_of_a_larger_ones_memory(buffers: Buffers) -> None:
    large = place(buffers.empty("x", (4, *BIG), torch.float32))
    small = buffers.empty("x", (2, *BIG), torch.float32)
    assert small.shape == (2, *BIG) and small.is_contiguous() and small.data_ptr() == large


@pytest.mark.parametrize("rows", [KEPT_BYTES_MIN - 1, KEPT_BYTES_MAX // KEPT_MAX + 1, 0])
def test_what_is_small_or_huge_is_not_kept(buffers: Buffers, rows: int) -> None:
    assert buffers.empty("x", (rows,), torch.uint8).shape == (rows,)
    assert len(buffers) == 0


def test_memory_is_aligned_for_vector_instructions(buffers: Buffers) -> None:
    assert buffers.empty("x", BIG, torch.float32).data_ptr() % 64 == 0


@pytest.mark.parametrize("dtype", [torch.uint8, torch.bool, torch.bfloat16, torch.float64, torch.uint16])
def test_every_dtype_fits_in_the_same_memory(buffers: Buffers, dtype: torch.dtype) -> None:
    buffers.empty("x", (KEPT_BYTES_MIN,), torch.float64)
    assert buffers.empty("x", (KEPT_BYTES_MIN,), dtype).dtype == dtype


def test_two_threads_never_get_the_same_memory(buffers: Buffers) -> None:
    wrong: list[object] = []

    def use(value: int) -> None:
        for _ in range(200):
            array = buffers.empty("x", BIG, torch.int32)
            array.fill_(value)
            if not bool((array == value).all()):
                wrong.append(value)

    threads = [threading.Thread(target=use, args=(n,)) for n in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert wrong == []
