"""Structured logs: one line per event, an event with facts.

    log = logs.get("headway.broker")
    log.info("worker lost", worker="w1", reason="no heartbeat for 3.0 s")

gives `12:00:00.123 INFO headway.broker worker lost worker=w1 reason="no heartbeat for 3.0 s"`, or the
same as a JSON object. Knows: the standard library's logging. Must not know: who logs what.
"""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

from headway.errors import SettingsError


class Log:
    """A named logger whose calls take facts as keywords."""

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)

    def debug(self, event: str, **facts: Any) -> None:
        self._logger.debug(event, extra={"facts": facts})

    def info(self, event: str, **facts: Any) -> None:
        self._logger.info(event, extra={"facts": facts})

    def warning(self, event: str, **facts: Any) -> None:
        self._logger.warning(event, extra={"facts": facts})

    def error(self, event: str, **facts: Any) -> None:
        self._logger.error(event, extra={"facts": facts})

    def exception(self, event: str, **facts: Any) -> None:
        """An error, with the traceback of the exception that is being handled."""
        self._logger.error(event, exc_info=True, extra={"facts": facts})


def get(name: str) -> Log:
    """The logger of that name."""
    return Log(name)


def setup(level: str, form: str) -> None:
    """Send every log line of this process to stderr. Raises: SettingsError for an unknown level."""
    if level.upper() not in ("DEBUG", "INFO", "WARNING", "ERROR"):
        raise SettingsError(f"log_level: {level!r} is not debug, info, warning or error")
    stream = logging.StreamHandler(sys.stderr)
    stream.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [stream]
    root.setLevel(level.upper())


class TextFormatter(logging.Formatter):
    """`time LEVEL logger event key=value ...`, for people."""

    def format(self, record: logging.LogRecord) -> str:
        facts = "".join(f" {k}={_quoted(v)}" for k, v in getattr(record, "facts", {}).items())
        time = f"{self.formatTime(record, '%H:%M:%S')}.{int(record.msecs):03d}"
        line = f"{time} {record.levelname} {record.name} {record.getMessage()}{facts}"
        return line + ("\n" + self.formatException(record.exc_info) if record.exc_info else "")


class JsonFormatter(logging.Formatter):
    """One JSON object a line, for machines."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": round(record.created, 6),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
            **getattr(record, "facts", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def _quoted(value: Any) -> str:
    text = str(value)
    plain = text.isprintable() and not any(c in text for c in ' "=')
    return text if text and plain else json.dumps(text)
