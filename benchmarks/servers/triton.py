"""Triton, from the wheel of nvidia-pytriton: its python backend, one copy of the model."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from benchmarks.inputs import EXAMPLES
from benchmarks.servers.base import ROOT, Server

PEER = ROOT / "benchmarks" / "peers" / "triton"
CONFIG = """\
name: "{model}"
backend: "python"
max_batch_size: {rows}
input [{{ name: "x" data_type: TYPE_FP32 dims: {shape} }}]
output [{{ name: "y" data_type: TYPE_FP32 dims: [{outputs}] }}]
instance_group [{{ count: 1 kind: KIND_CPU }}]
dynamic_batching {{ max_queue_delay_microseconds: {delay_us} }}
"""


class Triton(Server):
    """HTTP on the first port, then gRPC and metrics."""

    name = "triton"

    @property
    def grpc(self) -> str:
        return f"127.0.0.1:{self.settings.port + 1}"

    @property
    def region(self) -> str:
        """What the names of its shared memory begin with."""
        return f"triton_bench_server_{self.settings.port}_"

    def prepare(self) -> list[str]:
        self._repository()
        port = self.settings.port
        command = [str(self.home / "unpacked/pytriton/tritonserver/bin/tritonserver")]
        command += [f"--http-port={port}", f"--grpc-port={port + 1}", f"--metrics-port={port + 2}"]
        command += [f"--{kind}-address=127.0.0.1" for kind in ("http", "grpc", "metrics")]
        command += [f"--model-repository={self.folder / 'models'}"]
        command += [f"--backend-directory={self.home / 'backends'}"]
        return [*command, f"--backend-config=python,shm-region-prefix-name={self.region}"]

    def environment(self) -> dict[str, str]:
        libraries = next((self.home / "lib").glob("python*/site-packages"))
        return {
            "LD_LIBRARY_PATH": str(self.home / "unpacked/nvidia_pytriton.libs"),
            "PATH": f"{self.home / 'bin'}:{os.environ['PATH']}",
            "PYTHONPATH": str(libraries),
        }

    def _repository(self) -> None:
        rows, delay_ms = self.batch
        example = EXAMPLES[self.model]
        version = self.folder / "models" / self.model / "1"
        version.mkdir(parents=True)
        shutil.copy(PEER / f"{self.model}.py", version / "model.py")
        shutil.copy(self.model_folder / "model.py", version / "network.py")
        config = {"model": self.model, "rows": rows, "delay_us": int(delay_ms * 1000)}
        shape = {"shape": list(example.shape), "outputs": example.outputs}
        (version.parent / "config.pbtxt").write_text(CONFIG.format(**config, **shape))

    def clean(self) -> None:
        for left in Path("/dev/shm").glob(f"{self.region}*"):
            left.unlink(missing_ok=True)
