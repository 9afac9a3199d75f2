"""TorchServe: one worker, batches of the model's size; with the logs it writes by default, or without."""

from __future__ import annotations

import os
import subprocess
from contextlib import suppress

import psutil

from benchmarks.servers.base import ROOT, Server

PEER = ROOT / "benchmarks" / "peers" / "torchserve"
CONFIG = """\
inference_address=http://127.0.0.1:{0}
management_address=http://127.0.0.1:{1}
metrics_address=http://127.0.0.1:{2}
grpc_inference_port={3}
grpc_management_port={4}
initial_worker_port={5}
job_queue_size=1000
"""
MODEL = "minWorkers: 1\nmaxWorkers: 1\nbatchSize: {}\nmaxBatchDelay: {}\nresponseTimeout: 120\n"
WORKER_SOCKETS = 1000  # its workers' sockets are named after numbers from here on, plus the port


class TorchServe(Server):
    """Five ports from the first one on."""

    name = "torchserve"
    dialect = "torchserve"

    def prepare(self) -> list[str]:
        self._archive()
        ports = [self.settings.port + i for i in range(5)]
        config = self.folder / "config.properties"
        config.write_text(CONFIG.format(*ports, self.settings.port + WORKER_SOCKETS))
        (self.folder / "tmp").mkdir()
        options = ["--start", "--foreground", "--disable-token-auth", "--no-config-snapshots"]
        options += ["--model-store", str(self.folder), "--models", f"{self.model}.mar"]
        if self.settings.quiet:
            options += ["--log-config", str(PEER / "log4j2-off.xml")]
        return [self._program("torchserve"), *options, "--ts-config", str(config)]

    def environment(self) -> dict[str, str]:
        path = f"{self.home / 'bin'}:{os.environ['PATH']}"
        temporary = str(self.folder / "tmp")
        logs = str(self.folder / "logs")
        return {"PATH": path, "TEMP": temporary, "TMPDIR": temporary, "LOG_LOCATION": logs}

    def stop(self, members: list[psutil.Process]) -> None:
        """All of them: its start script does not pass a signal on."""
        for process in members:
            with suppress(psutil.NoSuchProcess):
                process.terminate()

    def _program(self, name: str) -> str:
        return str(self.home / "bin" / name)

    def _archive(self) -> None:
        """Makes MODEL.mar in its folder."""
        config = self.folder / "model-config.yaml"
        config.write_text(MODEL.format(*self.batch))
        command = [self._program("torch-model-archiver"), "--model-name", self.model, "--version", "1.0"]
        command += ["--handler", str(PEER / f"{self.model}.py"), "--config-file", str(config)]
        if self.model == "resnet50":
            command += ["--extra-files", str(self.model_folder / "model.py")]
        subprocess.run([*command, "--export-path", str(self.folder)], check=True, timeout=60)
