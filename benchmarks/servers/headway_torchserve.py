"""Headway as `headway torchserve` starts it: TorchServe's archive, its configuration, its command line."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

import psutil

from benchmarks.servers.base import Server, ServerSettings
from benchmarks.servers.torchserve import TorchServe

SERVER = [sys.executable, "-m", "headway", "torchserve"]


class HeadwayTorchServe(TorchServe):
    """The archive is made by TorchServe's archiver, in TorchServe's environment. `waits`: for as long as the
    archive's `maxBatchDelay` says, as TorchServe does."""

    def __init__(self, settings: ServerSettings, model: str, folder: Path, waits: bool = True) -> None:
        super().__init__(settings, model, folder)
        self.run_dir: str | None = None
        self.waits = waits

    def prepare(self) -> list[str]:
        self.run_dir = tempfile.mkdtemp(prefix="headway-bench-", dir="/dev/shm")
        command = [*SERVER, *super().prepare()[1:]]
        if not self.waits:
            with (self.folder / "config.properties").open("a") as config:
                config.write("headway_batch_delay=false\n")
        return command

    def environment(self) -> dict[str, str]:
        # One thread in each worker, as the suite gives all servers.
        return {
            **super().environment(),
            "PATH": os.environ["PATH"],
            "HEADWAY_RUN_DIR": f"{self.run_dir}/run",
            "HEADWAY_AGENT_THREADS": "1",
        }

    def stop(self, members: list[psutil.Process]) -> None:
        """It stops what it started."""
        Server.stop(self, members)

    def clean(self) -> None:
        if self.run_dir:
            shutil.rmtree(self.run_dir, ignore_errors=True)
