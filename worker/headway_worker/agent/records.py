"""What the agent wrote down of its workers, for its next start: a file for each in the run directory.

Knows: files. Must not know: processes.

A record is written before the worker is started, without a pid, and again afterwards: whatever moment the
agent dies in, its next start knows for whom to look. Files are replaced whole. They need not survive the
machine's end, which no worker survives either.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from headway import logs

_log = logs.get("headway.agent")


@dataclass(frozen=True)
class Record:
    """A worker. `pid` 0: about to be started. `started_at` is in seconds since 1970, for people."""

    name: str
    device: str
    share: int
    boot_id: str
    pid: int = 0
    start_ticks: int = 0
    started_at: float = 0.0


class Records:
    """The records in `folder`, which is made when it is needed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, record: Record) -> None:
        """Raises: OSError."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._path(record.name)
        part = path.with_suffix(".part")
        part.write_text(json.dumps(asdict(record)))
        part.replace(path)

    def remove(self, name: str) -> None:
        self._path(name).unlink(missing_ok=True)

    def read(self) -> list[Record]:
        """All of them. One that cannot be read is removed, with a word in the log: its worker, if it runs, is
        known by its environment too."""
        found = [(path, _read(path)) for path in sorted(self._folder.glob("*.json"))]
        for path, record in found:
            if record is None or self._path(record.name) != path:
                _log.warning("record refused", file=str(path))
                path.unlink(missing_ok=True)
        return [record for path, record in found if record and self._path(record.name) == path]

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.json"


def _read(path: Path) -> Record | None:
    try:
        said = json.loads(path.read_bytes())
        record = Record(**said)
    except (OSError, ValueError, TypeError):
        return None
    numbers = {"share", "pid", "start_ticks", "started_at"}
    for f in fields(Record):
        if not isinstance(getattr(record, f.name), (int, float) if f.name in numbers else str):
            return None
    return record
