"""What control groups leave of the host's memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from headway_worker.host_memory import memory_bytes

TOTAL = 8 << 30


@pytest.fixture
def host(tmp_path: Path) -> Path:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text("MemTotal:        8388608 kB\nMemFree:          123456 kB\n")
    return tmp_path


def limit(host: Path, path: str, text: str) -> None:
    file = host / "cgroup" / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def found(host: Path, groups: str) -> int:
    (host / "proc/self/cgroup").write_text(groups)
    return memory_bytes(host / "proc", host / "cgroup")


def test_without_a_limit_it_is_all_of_it(host: Path) -> None:
    limit(host, "a.slice/b.service/memory.max", "max\n")
    assert found(host, "0::/a.slice/b.service\n") == TOTAL
    assert memory_bytes(host / "proc", host / "nothing") == TOTAL


def test_the_lowest_limit_above_the_process_counts(host: Path) -> None:
    limit(host, "a.slice/b.service/memory.max", "3000000000\n")
    limit(host, "a.slice/memory.max", "2000000000\n")
    limit(host, "other.slice/memory.max", "1\n")
    assert found(host, "0::/a.slice/b.service\n") == 2_000_000_000


def test_the_first_version_of_control_groups_is_read_too(host: Path) -> None:
    limit(host, "memory/x/memory.limit_in_bytes", "1000000000\n")
    limit(host, "memory/memory.limit_in_bytes", "9223372036854771712\n")
    assert found(host, "5:cpu,cpuacct:/\n4:memory:/x\n1:name=systemd:/x\n") == 1_000_000_000


def test_in_a_container_the_top_of_the_mount_counts(host: Path) -> None:
    limit(host, "memory.max", "1500000000\n")
    assert found(host, "0::/../../docker/abc\n") == 1_500_000_000


def test_where_nobody_tells_it_is_0(tmp_path: Path) -> None:
    assert memory_bytes(tmp_path, tmp_path) == 0


def test_this_host_has_some() -> None:
    assert memory_bytes() > 1 << 26
