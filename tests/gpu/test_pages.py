"""The real driver: memory is registered, and a refusal spoils nothing."""

from __future__ import annotations

import mmap

import numpy as np
import pytest
import torch

from headway_worker.pages import CudaDriver

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


def test_registered_memory_is_page_locked_until_it_is_unregistered() -> None:
    memory = mmap.mmap(-1, 1 << 20)
    array = np.frombuffer(memory, np.uint8)
    driver = CudaDriver(torch.device("cuda", 0))
    assert driver.register(array.ctypes.data, len(array)) == ""
    assert torch.from_numpy(array).is_pinned()
    driver.unregister(array.ctypes.data)
    assert not torch.from_numpy(array).is_pinned()


def test_a_refusal_is_told_and_the_next_kernel_does_not_raise_it() -> None:
    driver = CudaDriver(torch.device("cuda", 0))
    assert driver.register(0, 0) != ""
    assert torch.ones(3, device="cuda").sum().item() == 3
