"""CUDA MPS as NVIDIA makes it: what the stand-in daemon only pretends is held against a real one here.

Needs a GPU, `nvidia-cuda-mps-control` and the right to start it, and the GPU to itself. Every client is a
process of its own; this one keeps away from CUDA.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from headway.exits import Exit
from headway_worker import cuda_mps, nvidia_smi
from headway_worker.cuda_mps import Control, end_client, is_client, wait_active, wait_gone
from headway_worker.place import own_pipe_dir

GPUS = [entry.uuid for entry in nvidia_smi.listed() if entry.uuid.startswith("GPU-")]
HAS_CONTROL = shutil.which(cuda_mps.PROGRAM) is not None
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not GPUS, reason="no NVIDIA GPU: nvidia-smi lists none"),
    pytest.mark.skipif(not HAS_CONTROL, reason=f"{cuda_mps.PROGRAM} is not installed"),
]
WAIT_S = 60.0
SCRIPT = Path(__file__).parents[2] / "scripts" / "cuda-mps"

# Starts CUDA, says what it sees as a line of JSON, and then does as the lines on its standard input say.
CLIENT = """
import json, sys, torch

def say(what):
    print(json.dumps(what), flush=True)

properties = torch.cuda.get_device_properties(0)
x = torch.ones(1, device="cuda")
say({"processors": properties.multi_processor_count, "memory": properties.total_memory})
for line in sys.stdin:
    try:
        if line.startswith("take"):
            torch.empty(int(line.split()[1]), dtype=torch.uint8, device="cuda")
        elif line.startswith("fault"):
            torch.zeros(1, device="cuda")[torch.tensor([99], device="cuda")]
        elif line.startswith("spin"):
            say("spinning")
            torch.cuda._sleep(1 << 62)
        torch.cuda.synchronize()
        say("ok")
    except RuntimeError as error:
        say(type(error).__name__ + ": " + str(error).split("\\n")[0])
"""


class Client:
    """A process with CUDA on the GPU, as a client of the daemon unless it is misled."""

    def __init__(self, gpu: str, **variables: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", CLIENT],
            env={**os.environ, "CUDA_VISIBLE_DEVICES": gpu, **variables},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.seen = self.hear()

    def hear(self) -> Any:
        assert self.process.stdout
        line = self.process.stdout.readline()
        assert line, f"the client ended with {self.process.wait()}"
        return json.loads(line)

    def say(self, line: str) -> Any:
        assert self.process.stdin
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()
        return self.hear()


class Mps:
    """A real daemon for one GPU, in a run directory of its own."""

    def __init__(self, folder: Path) -> None:
        self.gpu = GPUS[0]
        self.run_dir = folder
        self.control = Control(own_pipe_dir(folder, self.gpu))
        self.clients: list[Client] = []
        self.script("start", self.gpu)

    def script(self, *arguments: str) -> None:
        options = [f"--run-dir={self.run_dir}", f"--state-dir={self.run_dir}/state"]
        subprocess.run(
            [SCRIPT, *options, *arguments],
            env={**os.environ, "PYTHON": sys.executable},
            check=True,
            timeout=90,
        )

    def client(self, **variables: str) -> Client:
        told = {"CUDA_MPS_PIPE_DIRECTORY": str(self.control.pipe_dir), **variables}
        self.clients.append(Client(self.gpu, **told))
        return self.clients[-1]

    def close(self) -> None:
        for client in self.clients:
            with client.process as process:
                process.kill()
        self.script("stop", self.gpu, "--force-after-s", "5")
        wait_gone(self.control, 30.0)


@pytest.fixture
def mps() -> Iterator[Mps]:
    with TemporaryDirectory(prefix="hw-") as folder:
        made = Mps(Path(folder))
        try:
            yield made
        finally:
            made.close()


def test_a_client_is_in_the_daemons_list_and_its_share_is_a_smaller_number_of_multiprocessors(
    mps: Mps,
) -> None:
    whole = mps.client()
    part = mps.client(CUDA_MPS_ACTIVE_THREAD_PERCENTAGE="40")
    assert is_client(mps.control, whole.process.pid)
    assert is_client(mps.control, part.process.pid)
    assert 0 < part.seen["processors"] <= 0.4 * whole.seen["processors"]
    [server] = mps.control.server_list()
    assert mps.control.server_status(server) == cuda_mps.ACTIVE


def test_memory_over_the_limit_is_out_of_memory_and_the_client_lives_on(mps: Mps) -> None:
    client = mps.client(CUDA_MPS_PINNED_DEVICE_MEM_LIMIT="0=2G")
    assert client.say(f"take {256 << 20}") == "ok"
    assert client.say(f"take {3 << 30}").startswith("OutOfMemoryError")
    assert client.say(f"take {256 << 20}") == "ok"
    assert mps.client().say(f"take {3 << 30}") == "ok"


def test_a_fault_of_one_client_is_told_to_all_and_the_server_is_active_again_when_they_have_gone(
    mps: Mps,
) -> None:
    guilty, neighbour = mps.client(), mps.client()
    assert "device-side assert" in guilty.say("fault")
    assert "CUDA error" in neighbour.say("take 1000")
    for client in (guilty, neighbour):
        client.process.communicate("", timeout=WAIT_S)
    wait_active(mps.control, WAIT_S)
    assert mps.client().say("take 1000") == "ok"


def test_a_process_that_misses_the_daemon_runs_without_it_and_is_found_out(mps: Mps) -> None:
    lost = mps.client(CUDA_MPS_PIPE_DIRECTORY=str(mps.run_dir / "wrong"))
    assert lost.say("take 1000") == "ok"
    assert not is_client(mps.control, lost.process.pid)


def test_a_client_that_is_ended_in_the_middle_of_a_kernel_leaves_its_neighbours_alive(mps: Mps) -> None:
    stuck, neighbour = mps.client(), mps.client()
    assert stuck.say("spin") == "spinning"
    time.sleep(1.0)
    ended = end_client(mps.control, stuck.process.pid, WAIT_S)
    assert ended.server in mps.control.server_list()
    assert stuck.process.wait(WAIT_S) == -signal.SIGKILL
    assert neighbour.say("take 1000") == "ok"
    assert mps.control.server_status(ended.server or 0) == cuda_mps.ACTIVE


@pytest.mark.system
def test_a_real_worker_is_a_client_or_does_not_start(mps: Mps) -> None:
    command = [sys.executable, "-m", "headway_worker", f"--run-dir={mps.run_dir}", f"--device={mps.gpu}"]
    worker = subprocess.Popen([*command, "--cuda-mps-share=40"], stderr=subprocess.PIPE, text=True)
    try:
        assert worker.stderr
        line = next(line for line in worker.stderr if "worker starts" in line)
        assert "cuda_mps=client" in line and "share=40" in line and f"device_id={mps.gpu}" in line
        assert is_client(mps.control, worker.pid)
    finally:
        worker.terminate()
        worker.communicate(timeout=WAIT_S)
    wrong = [
        *command,
        "--cuda-mps-share=40",
        "--cuda-mps-memory-mb=2000",
        f"--cuda-mps-pipe-dir={mps.run_dir}/no",
    ]
    assert subprocess.run(wrong, timeout=WAIT_S).returncode == Exit.TEMPORARY
