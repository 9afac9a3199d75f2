"""Which device a text means, and whether a model may run there."""

from __future__ import annotations

import pytest
import torch

from headway.errors import SettingsError
from headway_worker.device import describe, enter, for_model, free_memory, parse, set_threads

CPU, SECOND = torch.device("cpu"), torch.device("cuda", 1)
HAS_GPU = torch.cuda.is_available()


def test_auto_is_the_first_gpu_or_the_cpu() -> None:
    assert parse("auto") == (torch.device("cuda", 0) if HAS_GPU else CPU)
    assert parse("cpu") == CPU


@pytest.mark.parametrize("text", ["", "gpu", "cuda:", "cuda:x", "mps", "cpu:0"])
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
