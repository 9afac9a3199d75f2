"""What the processes print, in files: `ts_log.log` and `model_log.log`, of a bounded size.

Knows: pipes, files, which lines are a worker's. Must not know: what the lines say.

Each process writes into a pipe, which a thread reads; so a restarted process goes on in the same file, and
files can be changed while it writes. A worker writes into its agent's pipe: whatever does not come from the
agent's own logger there is a worker's.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import threading
from collections.abc import Callable
from logging.handlers import RotatingFileHandler
from pathlib import Path
from types import TracebackType

from headway.errors import SettingsError

SERVER, MODEL = "ts_log.log", "model_log.log"
BYTES_MAX, KEPT = 100 << 20, 5
LINE_BYTES_MAX = 1 << 20
_AGENTS = re.compile(r'\d\d:\d\d:\d\d\.\d{3} [A-Z]+ headway\.agent |\{"time": .*"logger": "headway\.agent"')


class LogFiles:
    """In `folder`, and on stdout if `echo`. `with` starts the threads, and waits until all is written: the
    processes must have ended by then. Raises: SettingsError where no file can be written."""

    def __init__(self, folder: Path, echo: bool) -> None:
        self._echo = echo
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._files = {name: _file(folder / name) for name in (SERVER, MODEL)}
        except OSError as error:
            raise SettingsError(f"LOG_LOCATION: {folder}: {error.strerror}") from None
        self._ends: list[tuple[int, int]] = [os.pipe(), os.pipe()]
        self.server, self.agent = (writing for _, writing in self._ends)
        readers: list[Callable[[str], str]] = [lambda line: SERVER, of_agent]
        self._threads = [
            threading.Thread(target=self._read, args=(end, of), name="headway-logs", daemon=True)
            for (end, _), of in zip(self._ends, readers, strict=True)
        ]

    def __enter__(self) -> LogFiles:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for _, writing in self._ends:
            os.close(writing)
        for thread in self._threads:
            thread.join(5.0)  # a process that nothing ends may hold the other end
        for file in self._files.values():
            file.close()

    def say(self, line: str) -> None:
        """A line of the server's own."""
        self._write(SERVER, line)

    def _read(self, end: int, file_of: Callable[[str], str]) -> None:
        with os.fdopen(end, "r", encoding="utf-8", errors="replace", newline="\n") as lines:
            while line := lines.readline(LINE_BYTES_MAX):
                text = line.rstrip("\n")
                self._write(file_of(text), text)

    def _write(self, name: str, line: str) -> None:
        self._files[name].handle(logging.LogRecord(name, logging.INFO, "", 0, line, None, None))
        if self._echo:
            sys.stdout.write(f"{line}\n")
            sys.stdout.flush()


def of_agent(line: str) -> str:
    """The file for a line that came through an agent's pipe."""
    return SERVER if _AGENTS.match(line) else MODEL


def _file(path: Path) -> RotatingFileHandler:
    file = RotatingFileHandler(path, maxBytes=BYTES_MAX, backupCount=KEPT, encoding="utf-8", errors="replace")
    file.setFormatter(logging.Formatter("%(message)s"))
    return file
