"""What is read from nvidia-smi, against a stand-in."""

from __future__ import annotations

from pathlib import Path

import pytest

from headway_worker.nvidia_smi import full_uuid, is_uuid, listed, memory_mib, only_gpu
from tests.cuda_mps.daemon import PROGRAMS

SMI = str(PROGRAMS / "nvidia-smi")
FIRST = "GPU-aaaaaaaa-0000-0000-0000-000000000001"


def test_gpus_and_slices_are_listed() -> None:
    assert [entry.uuid[:8] for entry in listed(SMI)] == ["GPU-aaaa", "GPU-bbbb", "MIG-cccc", "MIG-dddd"]
    assert listed(SMI)[0] == (FIRST, "GPU 0: NVIDIA Stand-in")


def test_where_there_is_no_nvidia_smi_nothing_is_there() -> None:
    assert listed("no-such-program") == []
    assert memory_mib(FIRST, "no-such-program") == 0
    assert only_gpu("no-such-program") == ""


def test_a_beginning_that_only_one_has_is_completed() -> None:
    assert full_uuid("GPU-aaaa", SMI) == FIRST
    assert full_uuid("GPU-", SMI) == "GPU-"
    assert full_uuid("GPU-ffff", SMI) == "GPU-ffff"


def test_memory_is_told_of_gpus_and_not_of_slices() -> None:
    assert memory_mib(FIRST, SMI) == 40960
    assert memory_mib("MIG-cccccccc-0000-0000-0000-000000000003", SMI) == 0


def test_the_only_gpu_is_one_that_is_alone_and_not_cut(tmp_path: Path) -> None:
    assert only_gpu(SMI) == ""
    alone = tmp_path / "smi"
    alone.write_text(f"#!/bin/sh\necho 'GPU 0: Tesla T4 (UUID: {FIRST})'\n")
    alone.chmod(0o755)
    assert only_gpu(str(alone)) == FIRST


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        (FIRST, True),
        ("GPU-5d5ba0d6", True),
        ("MIG-GPU-5d5ba0d6-d33d-2b2c/1/0", True),
        ("GPU-", False),
        ("gpu-5d5ba0d6", False),
        ("cuda:0", False),
        ("GPU-../../x", False),
        ("GPU-aaaa,GPU-bbbb", False),
    ],
)
def test_what_has_the_form_of_a_uuid(text: str, is_one: bool) -> None:
    assert is_uuid(text) is is_one
