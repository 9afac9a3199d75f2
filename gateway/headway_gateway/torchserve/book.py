"""Where a value of a metric goes: to Prometheus or into a log file, as `metrics_mode` says.

Knows: which metrics are declared, the modes, the two log files. Must not know: what is measured.

| mode | to Prometheus | into `ts_metrics.log` and `model_metrics.log` |
| --- | --- | --- |
| log | nothing | all |
| prometheus | all | nothing |
| legacy | LEGACY | all others |
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from headway.errors import SettingsError
from headway.torchserve.metrics import Declared, Record, read_declarations
from headway.torchserve.properties import Properties
from headway_gateway.torchserve.exposition import Family
from headway_gateway.torchserve.logfile import LogFile, Stamp
from headway_gateway.torchserve.series import Noted, Series, model_lines, server_lines
from headway_gateway.torchserve.tallies import Tallies

LOG, PROMETHEUS, LEGACY_MODE = "log", "prometheus", "legacy"
LEGACY = (
    "ts_inference_requests_total", "ts_inference_latency_microseconds", "ts_queue_latency_microseconds",
)  # fmt: skip
SERIES_MAX = 10_000
DETECTED_MAX = 1_000
LOGS = "logs"
K = TypeVar("K")
V = TypeVar("V")


class Book:
    """One process's. Values wait until `flush`."""

    def __init__(self, properties: Properties, host: str) -> None:
        """Raises: SettingsError."""
        self.mode = properties.metrics_mode.lower()
        if self.mode not in (LOG, PROMETHEUS, LEGACY_MODE):
            raise SettingsError(f"metrics_mode: {properties.metrics_mode!r} is not log, prometheus or legacy")
        self._host = host
        self._detects = properties.model_metrics_auto_detect
        self._declared = read_declarations(properties.metrics_config)
        self._tallies = Tallies()
        folder = Path(properties.metrics_location or properties.log_location or LOGS)
        self._server_log, self._model_log = LogFile(folder, "ts_metrics"), LogFile(folder, "model_metrics")
        self._server_lines: list[Noted] = []
        self._model_lines: list[tuple[Series, float, str]] = []
        self._stamp = Stamp()
        self._series: dict[object, Series] = {}
        self._detected: dict[tuple[str, str], Declared] = {}

    def open(self, now: float) -> None:
        self._server_log.open(now)
        self._model_log.open(now)

    def close(self) -> None:
        self._server_log.close()
        self._model_log.close()

    def server(self, name: str, value: float, labels: tuple[tuple[str, str], ...] = ()) -> None:
        """A value of the server's own; `labels` beside Level and Hostname. One that is not declared is
        dropped."""
        self.note(self.series(name, labels), value)

    def series(self, name: str, labels: tuple[tuple[str, str], ...] = ()) -> Series | None:
        """What `note` takes for a metric of the server's own. None: it is not declared."""
        if (series := self._series.get((name, labels))) is None:
            if (declared := self._declared.server.get(name)) is None:
                return None
            series = self._of_server(declared, labels)
            _keep(self._series, (name, labels), series, SERIES_MAX)
        return series

    def note(self, series: Series | None, value: float) -> None:
        """As `server`. PERF: a prediction has seven values, and to look up its series takes longer than all
        else that is done with one."""
        if series is None:
            return
        if self.mode == LOG or not self._is_shown(series.declared.name):
            self._server_lines.append(((series,), (float(value),)))
        else:
            self._tallies.note(series, value)

    def note_all(self, series: tuple[Series | None, ...], values: tuple[float, ...]) -> None:
        """As `note`, of several at once, again and again the same. PERF: a prediction has six
        values; together they take 3 us, and 9 one by one."""
        if self.mode == LOG and None not in series:
            self._server_lines.append((series, values))  # type: ignore[arg-type]
            return
        for one, value in zip(series, values, strict=True):
            self.note(one, value)

    def model(self, record: Record) -> None:
        """A value that a handler recorded. One that is not declared is dropped, unless the server is told to
        detect them; so is one with more or fewer dimensions than declared."""
        key = record[:2] + record.dimensions
        if (series := self._series.get(key)) is None:
            if (declared := self._declared_as(record)) is None:
                return
            values = (*record.dimensions[1::2], self._host)
            series = Series(
                declared, tuple(zip((*declared.dimensions, "Hostname"), values, strict=True)), self._host
            )
            _keep(self._series, key, series, SERIES_MAX)
        if self._is_shown(record.name):
            self._tallies.note(series, record.value)
        else:
            self._model_lines.append((series, record.value, record.request))

    def flush(self, now: float) -> None:
        """Write and share what came since the last time."""
        self._tallies.flush()
        begin, second = self._stamp.at(now), int(now)
        if self._server_lines:
            lines, self._server_lines = self._server_lines, []
            self._server_log.write(server_lines(begin, lines, second), now)
        if self._model_lines:
            more, self._model_lines = self._model_lines, []
            self._model_log.write(model_lines(begin, more, second), now)

    def families(self) -> dict[str, Family]:
        """What Prometheus is shown, by name: the declared ones first, whether they have values or not."""
        found = self._tallies.families()
        declared = [*self._declared.server.values(), *self._declared.model.values()]
        shown = {one.name: Family(one.type, one.name, one.unit, []) for one in declared}
        kept = {name: found.get(name, family) for name, family in shown.items() if self._is_shown(name)}
        return {**kept, **{name: found[name] for name in sorted(found.keys() - kept.keys())}}

    def server_family(self, name: str) -> Declared | None:
        """How a metric of the server's own is declared, if it is and Prometheus is shown it."""
        return self._declared.server.get(name) if self._is_shown(name) else None

    def labels(self, declared: Declared, more: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
        """A server metric's, in the declared order; "" for what it does not have."""
        values = {"Level": "Host", "Hostname": self._host, "hostname": self._host, **more}
        return tuple((name, values.get(name, "")) for name in declared.dimensions)

    def _of_server(self, declared: Declared, labels: tuple[tuple[str, str], ...]) -> Series:
        return Series(declared, self.labels(declared, dict(labels)), self._host)

    def _is_shown(self, name: str) -> bool:
        return self.mode == PROMETHEUS or (self.mode == LEGACY_MODE and name in LEGACY)

    def _declared_as(self, record: Record) -> Declared | None:
        key = record[:2]
        declared = self._declared.model.get(key) or self._detected.get(key)
        if declared is None and self._detects:
            declared = Declared(record.type, record.name, record.unit, record.dimensions[::2])
            _keep(self._detected, key, declared, DETECTED_MAX)
        if declared is None or 2 * len(declared.dimensions) != len(record.dimensions):
            return None
        return declared


def _keep(known: dict[K, V], key: K, value: V, most: int) -> None:
    """Remember it, and forget the oldest of too many."""
    if len(known) >= most:
        del known[next(iter(known))]
    known[key] = value
