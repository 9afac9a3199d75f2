"""Segments that a device's driver knows: which memory it may read by itself."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch

from headway.lent import Lender
from headway.outgoing import ask_tensors
from headway.tensors import unpack
from headway_worker.pages import DriverPages, pages_for
from headway_worker.sharing import Sharing


class FakeDriver:
    """Stands in for CUDA's; `limit`: how many bytes may be locked."""

    def __init__(self, limit: int = 1 << 40) -> None:
        self.limit = limit
        self.locked: dict[int, int] = {}

    def register(self, address: int, length: int) -> str:
        if length > self.limit:
            return "out of memory"
        self.locked[address] = length
        return ""

    def unregister(self, address: int) -> None:
        del self.locked[address]


def test_memory_is_held_from_its_first_byte_to_its_last_while_it_is_mapped():
    pages = DriverPages(FakeDriver())
    pages.mapped(1000, 100)
    assert pages.holds(1000, 100) and pages.holds(1099, 1)
    assert not pages.holds(999, 2) and not pages.holds(1099, 2) and not pages.holds(2000, 1)
    pages.unmapped(1000)
    assert not pages.holds(1000, 100)


def test_memory_that_the_driver_refuses_is_not_held_which_is_said_once(caplog):
    driver = FakeDriver(limit=10)
    pages = DriverPages(driver)
    caplog.set_level(logging.WARNING, "headway.worker")
    for address in (1000, 2000):
        pages.mapped(address, 100)
        assert not pages.holds(address, 100)
        pages.unmapped(address)  # which the driver must not hear of
    assert [record.message for record in caplog.records] == [
        "shared memory is copied by the CPU, the driver will not read it: out of memory"
    ]


def test_tensors_in_a_callers_segment_are_held_and_others_are_not(tmp_path):
    driver = FakeDriver()
    sharing = Sharing(tmp_path / "segments", DriverPages(driver))
    lender = Lender(f"ipc://{tmp_path}/broker.sock", 1 << 22)
    x = np.arange(1 << 15, dtype=np.float32)
    asked = ask_tensors("m", {"x": x}, lender=lender)
    seen = unpack(sharing.packed(asked.options, b""))["x"]
    assert sharing.holds(seen.ctypes.data, seen.nbytes)
    assert not sharing.holds(x.ctypes.data, x.nbytes)
    assert not Sharing(tmp_path / "segments").holds(seen.ctypes.data, seen.nbytes)
    lender.close()
    sharing.tidy()
    assert driver.locked == {}


def test_a_worker_on_the_cpu_registers_nothing():
    assert pages_for(torch.device("cpu")) is None


@pytest.fixture(autouse=True)
def no_gpu_is_needed():
    """Nothing here may start CUDA."""
    yield
    assert not torch.cuda.is_initialized()
