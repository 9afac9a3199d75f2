"""Whether memory ran out, from the kernel's counters (files of the test's)."""

from __future__ import annotations

from pathlib import Path

import pytest

from headway_worker.agent.memory import Memory

CERTAIN = "out of memory: the kernel ended a process of its control group"


class Kernel:
    def __init__(self, root: Path, groups: str) -> None:
        self.root = root
        self.write("proc/7/cgroup", groups)
        self.write("proc/vmstat", "pgfault 12\noom_kill 5\n")

    def write(self, path: str, text: str) -> None:
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(text)


@pytest.mark.parametrize(
    ("groups", "file", "text"),
    [
        ("0::/a/b\n", "sys/fs/cgroup/a/b/memory.events", "low 0\nhigh 0\nmax 9\noom 1\noom_kill {}\n"),
        ("0::/a/b\n", "sys/fs/cgroup/memory.events", "oom_kill {}\n"),  # a container sees only the mount
        (
            "9:pids:/x\n4:cpu,memory:/a\n0::/\n",
            "sys/fs/cgroup/memory/a/memory.oom_control",
            "oom_kill_disable 0\nunder_oom 0\noom_kill {}\n",
        ),
    ],
)
def test_a_control_groups_counter_is_certain(tmp_path: Path, groups: str, file: str, text: str) -> None:
    kernel, memory = Kernel(tmp_path, groups), Memory(tmp_path)
    kernel.write(file, text.format(2))
    before = memory.kills(7)
    assert memory.verdict(before) == ""
    kernel.write(file, text.format(3))
    assert memory.verdict(before) == CERTAIN
    assert memory.verdict(before, is_killed=False) == CERTAIN


def test_the_machines_counter_is_a_guess_and_none_where_nobody_saw_a_kill(tmp_path: Path) -> None:
    kernel, memory = Kernel(tmp_path, "0::/\n"), Memory(tmp_path)
    before = memory.kills(7)
    kernel.write("proc/vmstat", "oom_kill 6\n")
    assert memory.verdict(before).startswith("out of memory, probably: ")
    assert memory.verdict(before, is_killed=False) == ""


@pytest.mark.parametrize("groups", ["", "nonsense\n", "1:\n", "0::/../../..\n"])
def test_where_nothing_counts_nothing_is_said(tmp_path: Path, groups: str) -> None:
    kernel, memory = Kernel(tmp_path, groups), Memory(tmp_path)
    (tmp_path / "proc/vmstat").unlink()
    assert memory.verdict(memory.kills(7)) == ""
    assert memory.verdict(memory.kills(8)) == ""
    assert kernel.root == tmp_path


def test_this_machine_counts() -> None:
    memory = Memory()
    assert memory.verdict(memory.kills(1)) == ""
