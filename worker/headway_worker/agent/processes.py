"""Worker processes as Linux knows them: who they are, and which of them this run directory's agents started.

Knows: /proc, pidfds. Must not know: records, what is to be done with a process.

A pid alone names nobody: it may be somebody else's by now. With the time of the process's start, in clock
ticks since the machine's, it names one process of this boot. A worker carries in its environment whose it is,
so that it is found even if its agent died before it could write down the pid; its own children inherit
that, but do not lead its process group.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

VARIABLE = "HEADWAY_AGENT_WORKER"
PROC = Path("/proc")


class Mark(NamedTuple):
    """What a worker carries in its environment."""

    run_dir: str
    name: str
    device: str
    share: int

    def text(self) -> str:
        return json.dumps(self)


class Marked(NamedTuple):
    """A process with a mark. `group` is its process group: its own pid if it is the worker itself."""

    pid: int
    group: int
    start_ticks: int
    mark: Mark


def boot_id() -> str:
    """Another one after each start of the machine."""
    return (PROC / "sys/kernel/random/boot_id").read_text().strip()


def start_ticks(pid: int) -> int | None:
    """When the process was started; None if there is none, or only its exit code is left."""
    found = _stat(pid)
    return found and found[1]


def open_if_same(pid: int, ticks: int) -> int | None:
    """A pidfd of the process `pid`, if it is the one that was started at `ticks`."""
    try:
        descriptor = os.pidfd_open(pid)
    except (ProcessLookupError, ValueError, OverflowError):
        return None
    if start_ticks(pid) == ticks:  # asked while we hold it: the pid is not given to another meanwhile
        return descriptor
    os.close(descriptor)
    return None


def marked(run_dir: Path) -> list[Marked]:
    """Our processes with a mark of this run directory, the oldest first."""
    found = [process for pid in _our_pids() if (process := _marked(pid)) is not None]
    ours = [process for process in found if process.mark.run_dir == str(run_dir)]
    return sorted(ours, key=lambda process: process.start_ticks)


def kill_rest(run_dir: Path, workers: Collection[str]) -> None:
    """End what workers that are gone have left: processes whose mark names none of `workers`."""
    for process in marked(run_dir):
        if process.mark.name not in workers:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(process.pid, signal.SIGKILL)


def _our_pids() -> list[int]:
    return [int(folder.name) for folder in PROC.iterdir() if folder.name.isdecimal() and _is_ours(folder)]


def _is_ours(folder: Path) -> bool:
    try:
        return folder.stat().st_uid == os.geteuid()
    except OSError:  # it has ended meanwhile
        return False


def _marked(pid: int) -> Marked | None:
    try:
        lines = (PROC / str(pid) / "environ").read_bytes().split(b"\0")
    except OSError:
        return None
    text = next((line for line in lines if line.startswith(VARIABLE.encode() + b"=")), None)
    found = _stat(pid) if text else None
    if text is None or found is None:
        return None
    try:
        run_dir, name, device, share = json.loads(text.partition(b"=")[2])
        mark = Mark(str(run_dir), str(name), str(device), int(share))
    except (ValueError, TypeError):  # somebody else's idea of the variable
        return None
    return Marked(pid, *found, mark)


def _stat(pid: int) -> tuple[int, int] | None:
    """Process group and start of a process that lives."""
    try:
        text = (PROC / str(pid) / "stat").read_text(errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()  # the name before may contain anything
    return None if fields[0] in "ZX" else (int(fields[2]), int(fields[19]))
