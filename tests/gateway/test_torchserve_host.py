"""headway_gateway.torchserve.host: readings of the host, and of GPUs as nvidia-smi prints them."""

from __future__ import annotations

from pathlib import Path

from headway_gateway.torchserve.host import Reading, gpu_readings, host_readings, parsed


def test_the_host_is_read_in_torchserves_units() -> None:
    found = {name: value for name, value, device in host_readings() if device == ""}
    assert list(found) == [
        "CPUUtilization", "DiskAvailable", "DiskUsage", "DiskUtilization", "MemoryAvailable", "MemoryUsed",
        "MemoryUtilization",
    ]  # fmt: skip
    assert all(0 <= found[name] <= 100 for name in found if name.endswith("Utilization"))
    lines = Path("/proc/meminfo").read_text().splitlines()
    whole_mib = int(lines[0].split()[1]) / 1024
    assert 0 < found["MemoryUsed"] < whole_mib
    assert 0 < found["MemoryAvailable"] < whole_mib


def test_a_gpu_is_read_from_its_line() -> None:
    assert parsed("1, 37, 2048, 8192") == [
        Reading("GPUMemoryUtilization", 25.0, "1"),
        Reading("GPUMemoryUsed", 2048.0, "1"),
        Reading("GPUUtilization", 37.0, "1"),
    ]


def test_what_a_gpu_does_not_tell_is_left_out() -> None:
    assert parsed("0, [N/A], 512, [N/A]") == [Reading("GPUMemoryUsed", 512.0, "0")]
    assert parsed("No devices were found") == []


def test_a_host_without_nvidia_smi_has_no_gpus(tmp_path: Path) -> None:
    assert gpu_readings(str(tmp_path / "nvidia-smi")) == []


def test_nvidia_smi_is_asked_and_one_that_fails_means_no_gpus(tmp_path: Path) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho '0, 5, 1024, 4096'\necho '1, 6, 1024, 4096'\n")
    program.chmod(0o755)
    found = gpu_readings(str(program))
    assert [(r.device, r.value) for r in found if r.name == "GPUUtilization"] == [("0", 5.0), ("1", 6.0)]
    program.write_text("#!/bin/sh\necho '0, 5, 1024, 4096'\nexit 9\n")
    assert gpu_readings(str(program)) == []
