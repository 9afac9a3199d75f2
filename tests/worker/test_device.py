"""Which device a text means, whether a model may run there, and what breaks it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from headway.errors import ModelError, SettingsError
from headway_worker.device import (
    Growth,
    describe,
    enter,
    facts,
    fault_of,
    for_model,
    free_memory,
    parse,
    raise_fault,
    set_environment,
    set_threads,
)
from headway_worker.faults import DeviceFault

CPU, SECOND = torch.device("cpu"), torch.device("cuda", 1)
HAS_GPU = torch.cuda.is_available()


def test_auto_is_the_first_gpu_or_the_cpu() -> None:
    assert parse("auto") == (torch.device("cuda", 0) if HAS_GPU else CPU)
    assert parse("cpu") == CPU


@pytest.mark.parametrize("text", ["", "gpu", "cuda:", "cuda:x", "mps", "cpu:0", "GPU-", "gpu-5d5ba0d6"])
def test_a_text_that_is_no_device_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="is not auto, cpu, cuda or cuda:N"):
        parse(text)


def test_a_gpu_that_is_not_there_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"'cuda:99' is not here; torch sees \d+ CUDA devices"):
        parse("cuda:99")


@pytest.mark.parametrize(
    ("wanted", "here", "found"),
    [
        ("auto", CPU, CPU),
        ("auto", SECOND, SECOND),
        ("cpu", SECOND, CPU),
        ("cuda", SECOND, SECOND),
        ("cuda:1", SECOND, SECOND),
    ],
)
def test_a_model_runs_where_it_wants(wanted: str, here: torch.device, found: torch.device) -> None:
    assert for_model(wanted, here) == found


@pytest.mark.parametrize(("wanted", "here"), [("cuda", CPU), ("cuda:0", SECOND)])
def test_a_model_is_not_taken_elsewhere(wanted: str, here: torch.device) -> None:
    with pytest.raises(SettingsError, match=f"device: the model wants {wanted}, this worker runs on {here}"):
        for_model(wanted, here)


def test_the_cpu_is_described_by_its_threads() -> None:
    before = torch.get_num_threads()
    set_threads(0)
    assert describe(CPU) == f"cpu, {before} threads"
    set_threads(1)
    assert describe(CPU) == "cpu, 1 threads"
    set_threads(before)


def test_entering_and_freeing_the_cpu_does_nothing() -> None:
    enter(CPU)
    free_memory()


@pytest.mark.gpu
@pytest.mark.skipif(not HAS_GPU, reason="no CUDA device")
def test_a_gpu_is_described_by_its_name_and_memory() -> None:
    assert "MiB" in describe(parse("cuda"))


# ---- by UUID


@pytest.mark.skipif(HAS_GPU, reason="there is a CUDA device")
@pytest.mark.parametrize("text", ["GPU-5d5ba0d6-d33d-2b2c-524d-9e3d8d2b8a77", "MIG-5d5ba0d6"])
def test_a_uuid_that_is_not_there_is_refused_with_what_is(text: str) -> None:
    with pytest.raises(SettingsError, match=f"device: '{text}' is not here; nvidia-smi lists no GPU"):
        parse(text)


def test_variables_reach_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADWAY_TEST_VARIABLE", "before")
    set_environment({"HEADWAY_TEST_VARIABLE": "after"})
    assert os.environ["HEADWAY_TEST_VARIABLE"] == "after"
    set_environment({})


def test_a_share_does_not_make_a_cpu_of_a_gpu() -> None:
    assert facts(CPU) == {"device_id": "cpu", "device_name": "CPU", "device_memory_bytes": 0}


# ---- memory


def test_what_is_taken_of_the_hosts_memory_is_measured() -> None:
    growth = Growth(CPU)
    taken = torch.ones(50 << 20, dtype=torch.uint8)
    assert 50 << 20 <= growth.measured()["memory_bytes"] < 70 << 20
    del taken
    assert growth.measured() == {} or growth.measured()["memory_bytes"] < 50 << 20


# ---- faults


def accelerator_error(text: str, code: int) -> BaseException:
    error = torch.AcceleratorError(f"CUDA error: {text}")
    error.error_code = code
    return error


@pytest.mark.skipif(not hasattr(torch, "AcceleratorError"), reason="an older torch")
def test_torchs_own_errors_are_told_apart() -> None:
    fault = fault_of(accelerator_error("an illegal memory access was encountered", 700))
    assert str(fault) == "CUDA error: an illegal memory access was encountered"
    assert fault_of(accelerator_error("invalid argument", 1)) is None
    assert fault_of(torch.cuda.OutOfMemoryError("CUDA out of memory")) is None
    assert fault_of(RuntimeError("cuBLAS says no")) is None  # and CUDA, which never started, cannot be asked


def test_a_fault_is_found_through_what_a_model_made_of_it() -> None:
    error = ModelError("it broke")
    error.__context__ = RuntimeError("CUDA error: unspecified launch failure")
    with pytest.raises(DeviceFault, match="unspecified launch failure") as caught:
        raise_fault(error)
    assert caught.value.__cause__ is error
    again = fault_of(caught.value)
    assert again is caught.value
    raise_fault(ValueError("no fault"))


def test_out_of_memory_ends_nobody_whatever_it_came_of() -> None:
    error = ModelError("too large")
    error.__cause__ = torch.cuda.OutOfMemoryError("CUDA out of memory")
    error.__cause__.__context__ = RuntimeError("CUDA error: unspecified launch failure")
    assert fault_of(error) is None


CONVOLUTION = """
import os, threading, torch
from headway_worker.device import enter, set_threads

def convolve():
    enter(torch.device("cpu"))
    before = len(os.listdir("/proc/self/task"))
    torch.nn.functional.conv2d(torch.empty(8, 3, 64, 64), torch.empty(64, 3, 3, 3))  # the first operator
    print(len(os.listdir("/proc/self/task")) - before)

set_threads(1)
thread = threading.Thread(target=convolve)
thread.start()
thread.join()
"""


def test_the_number_of_threads_holds_in_the_runners_thread_too() -> None:
    """In a process of its own: the threads of a convolution, once there, stay."""
    said = subprocess.run(
        [sys.executable, "-c", CONVOLUTION],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | {"OMP_NUM_THREADS": "2"},  # what it takes otherwise, on a single core as well
    )
    assert (said.stdout, said.stderr) == ("0\n", "")
