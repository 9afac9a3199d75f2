"""Headway as `headway up` starts it: a broker, one worker with one thread, one gateway process."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from benchmarks.servers.base import Server, ServerSettings


class Headway(Server):
    """Its run directory is in memory, as it should be: sockets and shared memory live there."""

    name = "headway"
    is_installed = True

    def __init__(self, settings: ServerSettings, model: str, folder: Path) -> None:
        super().__init__(settings, model, folder)
        self.run_dir: str | None = None

    @property
    def direct(self) -> str:
        """Where direct clients find the broker."""
        return f"ipc://{self.run_dir}/broker.sock"

    def prepare(self) -> list[str]:
        self.run_dir = tempfile.mkdtemp(prefix="headway-bench-", dir="/dev/shm")
        store = self.folder / "models"
        shutil.copytree(self.model_folder.parent, store / self.model)
        options = ["--workers", "1", "--threads", "1", "--device", "cpu", "--gateway-processes", "1"]
        options += ["--management", "", "--metrics", ""]  # others' ports are beside ours
        command = [sys.executable, "-m", "headway", "up", "--model-store", str(store), *options]
        folders = ["--run-dir", self.run_dir, "--state-dir", str(self.folder / "state")]
        return [*command, "--http", self.address, *folders]

    def clean(self) -> None:
        if self.run_dir:
            shutil.rmtree(self.run_dir, ignore_errors=True)
