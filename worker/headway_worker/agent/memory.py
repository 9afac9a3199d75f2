"""Whether memory ran out: what the kernel counts of the processes that it ended for that.

Knows: control groups of both versions, /proc/vmstat. Must not know: workers.

A process that the kernel ends because memory ran out looks as if somebody had sent it SIGKILL. The counters
tell, and each is looked at before and after: that of the process's control group for certain, the machine's
as a guess, since it counts everybody.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

OOM_KILL = "oom_kill"


class Kills(NamedTuple):
    """How many processes the kernel has ended. `counter` is the control group's, None where there is none."""

    counter: Path | None
    in_group: int
    on_machine: int


class Memory:
    """`root` is where /proc and /sys lie."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root

    def kills(self, pid: int) -> Kills:
        """The counts now, of the control group that the process is in."""
        counter = self._counter(pid)
        return Kills(counter, _count(counter) if counter else 0, self._on_machine())

    def verdict(self, before: Kills, is_killed: bool = True) -> str:
        """What can be said of a process that has ended since; "" for nothing. `is_killed`: by SIGKILL."""
        if before.counter and _count(before.counter) > before.in_group:
            return "out of memory: the kernel ended a process of its control group"
        if is_killed and self._on_machine() > before.on_machine:
            return "out of memory, probably: the kernel has ended a process of this machine since it started"
        return ""

    def _on_machine(self) -> int:
        return _count(self._root / "proc/vmstat")

    def _counter(self, pid: int) -> Path | None:
        """The file that counts; where the group is not to be seen, that of the nearest above it."""
        groups = _lines(self._root / f"proc/{pid}/cgroup")
        for line in groups:
            _, controllers, path = [*line.split(":", 2), "", ""][:3]
            if "memory" in controllers.split(","):
                return _nearest(self._root / "sys/fs/cgroup/memory", path, "memory.oom_control")
        for line in groups:
            if line.startswith("0::"):
                return _nearest(self._root / "sys/fs/cgroup", line[3:], "memory.events")
        return None


def _nearest(mount: Path, path: str, file: str) -> Path | None:
    group = mount / path.lstrip("/")
    for folder in (group, *group.parents):
        if (folder / file).is_file():
            return folder / file
        if folder == mount:
            break
    return None


def _count(file: Path) -> int:
    """The number in the line `oom_kill NUMBER`; 0 where there is none."""
    words = (line.split() for line in _lines(file))
    return next((int(w[1]) for w in words if len(w) == 2 and w[0] == OOM_KILL and w[1].isdecimal()), 0)


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text().splitlines()
    except OSError:
        return []
