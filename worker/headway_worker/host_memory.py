"""How much memory of the host the models of a worker on the CPU may use.

Knows: /proc/meminfo, control groups of both versions. Must not know: torch, models.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_PROC, _CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")


def memory_bytes(proc: Path = _PROC, cgroups: Path = _CGROUPS) -> int:
    """The host's memory, or what a control group above this process leaves of it; 0 if nobody tells."""
    total = _total(proc)
    return min([total, *_limits(proc, cgroups)]) if total else 0


def _total(proc: Path) -> int:
    with suppress(OSError, ValueError, IndexError):
        for line in (proc / "meminfo").read_text().splitlines():
            if line.startswith("MemTotal:"):
                return int(line.split()[1]) << 10
    return 0


def _limits(proc: Path, cgroups: Path) -> Iterator[int]:
    for path in _groups(proc, cgroups):
        for name in ("memory.max", "memory.limit_in_bytes"):  # of version 2 and 1
            with suppress(OSError, ValueError):  # not there; "max"
                yield int((path / name).read_text())


def _groups(proc: Path, cgroups: Path) -> Iterator[Path]:
    """The folders of this process's groups and of all above them. In a container the path may be one of the
    host's, with only the mount's top to be seen: that one is looked at too."""
    with suppress(OSError):
        for line in (proc / "self" / "cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers and "memory" not in controllers.split(","):
                continue
            top = cgroups / "memory" if controllers else cgroups
            for parent in (group := Path(path.lstrip("/")), *group.parents):
                yield top / parent
