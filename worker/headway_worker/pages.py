"""Mapped segments, made known to the CUDA driver, so that the copy engine reads callers' memory itself.

Knows: the driver's registering of memory. Must not know: segments' files, requests, streams.

A segment is registered once, when it is mapped, and for as long as it is. The worker maps it for reading and
writing (replies go into it), so the plain kind of registering does. Where the driver refuses (a limit on
locked memory, a kernel without support), batches go through staging memory as if there were no segments;
that is said once.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import Any, Protocol

import torch

log = logging.getLogger("headway.worker")


class Driver(Protocol):
    """Locks pages of memory for a device. Neither raises."""

    def register(self, address: int, length: int) -> str:
        """Lock it; returns why that was not possible, or ""."""

    def unregister(self, address: int) -> None:
        """Wait until no copy reads it, and unlock it."""


class DriverPages:
    """See `sharing.Pages`."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._lengths: dict[int, int] = {}  # of the memory that is registered, by address
        self._told = False

    def mapped(self, address: int, length: int) -> None:
        reason = self._driver.register(address, length)
        if not reason:
            self._lengths[address] = length
        elif not self._told:
            self._told = True
            log.warning("shared memory is copied by the CPU, the driver will not read it: %s", reason)

    def unmapped(self, address: int) -> None:
        if self._lengths.pop(address, None) is not None:
            self._driver.unregister(address)

    def holds(self, address: int, size: int) -> bool:
        """Whether all of this memory is registered."""
        return any(
            start <= address and address + size <= start + length
            for start, length in list(self._lengths.items())
        )


class CudaDriver:
    """The driver of one device. From any thread: a thread's own device may be another one."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._cudart: Any = torch.cuda.cudart()

    def register(self, address: int, length: int) -> str:
        with torch.cuda.device(self._device):
            error = self._cudart.cudaHostRegister(address, length, 0)
            if int(error) == 0:
                return ""
            # The runtime keeps a failed call's error, and torch would raise it after the next kernel.
            with suppress(RuntimeError):
                torch.zeros(1, device=self._device)
        return str(self._cudart.cudaGetErrorString(error))

    def unregister(self, address: int) -> None:
        with suppress(RuntimeError), torch.cuda.device(self._device):
            torch.cuda.synchronize()  # callers seldom leave
            self._cudart.cudaHostUnregister(address)


def pages_for(device: torch.device) -> DriverPages | None:
    """Who registers a worker's segments; None on the CPU."""
    return DriverPages(CudaDriver(device)) if device.type == "cuda" else None
