"""Which devices a host offers, with a stand-in for nvidia-smi."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from headway.errors import SettingsError
from headway.settings import AgentSettings
from headway_worker.agent.devices import find_gpus, offer

TWO = "0, GPU-aaaa-1, Some GPU, 81559\n1, GPU-bbbb-2, Other GPU, [N/A]\n"


@pytest.fixture(autouse=True)
def all_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.fixture
def smi(tmp_path: Path) -> Any:
    """Makes an nvidia-smi that prints so, and ends with so."""

    def make(prints: str = TWO, code: int = 0) -> str:
        (tmp_path / "prints").write_text(prints)
        script = tmp_path / "nvidia-smi"
        script.write_text(f'#!/bin/sh\ncat "{tmp_path}/prints"\nexit {code}\n')
        script.chmod(0o755)
        return str(script)

    return make


def test_the_copies_that_a_worker_takes_are_offered(smi: Any) -> None:
    assert offer(AgentSettings(copies_max=1, workers_wanted=0), smi()).facts()["copies_max"] == 1
    assert offer(AgentSettings(), smi()).copies_max == 0


def offered(nvidia_smi: str, **settings: Any) -> list[tuple[str, str, int]]:
    found = offer(AgentSettings(**settings), nvidia_smi)
    return [(d.device, d.device_id, d.places) for d in found.devices]


def test_auto_is_every_gpu_with_what_is_known_of_it(smi: Any) -> None:
    found = offer(AgentSettings(), smi())
    assert [(d.device, d.device_id, d.device_name, d.memory_bytes, d.places) for d in found.devices] == [
        ("cuda:0", "GPU-aaaa-1", "Some GPU", 81559 << 20, 1),
        ("cuda:1", "GPU-bbbb-2", "Other GPU", 0, 1),
    ]
    assert (found.workers_max, found.workers_wanted) == (2, 2)


@pytest.mark.parametrize(("prints", "code"), [("", 0), ("NVIDIA-SMI has failed\n", 9), ("garbage\n", 0)])
def test_auto_without_a_gpu_is_the_cpu_with_a_place_for_each_core(smi: Any, prints: str, code: int) -> None:
    cores = len(os.sched_getaffinity(0))
    assert offered(smi(prints, code)) == [("cpu", "cpu", cores)]
    assert offered("/nowhere/nvidia-smi") == [("cpu", "cpu", cores)]
    found = offer(AgentSettings(), smi(prints, code))
    assert (found.workers_max, found.workers_wanted) == (cores, 1)
    assert found.devices[0].memory_bytes > 1 << 20


def test_devices_can_be_named(smi: Any) -> None:
    assert offered(smi(), devices="cuda:1, cpu", places=2) == [("cuda:1", "GPU-bbbb-2", 2), ("cpu", "cpu", 2)]
    assert offered(smi(), devices="GPU-bbbb-2") == [("GPU-bbbb-2", "GPU-bbbb-2", 1)]
    assert offered(smi(), devices="MIG-1,MIG-2") == [("MIG-1", "MIG-1", 1), ("MIG-2", "MIG-2", 1)]
    assert offered("/nowhere", devices="cuda:3") == [("cuda:3", "cuda:3", 1)]


@pytest.mark.parametrize(
    ("devices", "why"),
    [
        ("cuda:2", "'cuda:2' is not here; nvidia-smi sees 2 GPUs"),
        ("gpu0", "'gpu0' is not auto, cpu, cuda:N"),
        ("cuda", "'cuda' is not"),
        ("cuda:0,cuda:0", "names a device twice"),
        ("cuda:0,,cpu", "none between two commas"),
        ("auto,cpu", "'auto' is not"),
        ("", "none between"),
    ],
)
def test_a_device_that_is_not_there_is_refused(smi: Any, devices: str, why: str) -> None:
    with pytest.raises(SettingsError, match=why):
        offer(AgentSettings(devices=devices), smi())


def test_shares_that_do_not_fit_are_refused(smi: Any) -> None:
    assert offer(AgentSettings(places=2, share=50), smi()).share == 50
    with pytest.raises(SettingsError, match="share: 3 places on cuda:0 with 50 % each are over 100 %"):
        offer(AgentSettings(places=3, share=50), smi())
    with pytest.raises(SettingsError, match="share: 101 % is over 100 %"):
        offer(AgentSettings(share=101), smi())


def test_workers_are_limited_and_wanted_as_the_settings_say(smi: Any) -> None:
    found = offer(AgentSettings(places=4, workers_max=3, workers_wanted=9), smi())
    assert (found.workers_max, found.workers_wanted) == (3, 3)
    assert offer(AgentSettings(workers_wanted=0), smi()).workers_wanted == 0


@pytest.mark.parametrize(
    ("visible", "uuids"),
    [
        ("1", ["GPU-bbbb-2"]),
        ("1,0", ["GPU-bbbb-2", "GPU-aaaa-1"]),
        ("GPU-bbbb", ["GPU-bbbb-2"]),
        ("0,7,1", ["GPU-aaaa-1"]),
        ("", []),
        ("-1", []),
    ],
)
def test_gpus_that_cuda_does_not_show_are_not_offered(
    smi: Any, monkeypatch: pytest.MonkeyPatch, visible: str, uuids: list[str]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert [gpu.uuid for gpu in find_gpus(smi())] == uuids
