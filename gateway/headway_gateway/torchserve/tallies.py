"""What the TorchServe metrics came to, over all processes of this gateway.

Knows: prometheus_client's values, which processes share through files (`server` says where).
Must not know: which metrics there are, how they are shown as text.

Not prometheus_client's own Counter and Gauge: those choose names (`..._total`) and labels' order
themselves. What stands in the files is marked with PREFIX, so that Headway's own families can be told from
it. A counter's and a histogram's values are summed over the processes; of a gauge the latest counts.

PERF: to raise a shared value takes 5 us. `note` only remembers, and `flush` raises each series once for all
that was noted: call it once in a turn of the event loop.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from time import time
from typing import Any, NamedTuple

from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.utils import floatToGoString
from prometheus_client.values import ValueClass

from headway import logs
from headway.torchserve.metrics import COUNTER, GAUGE, HISTOGRAM
from headway_gateway.torchserve.exposition import Family, Sample
from headway_gateway.torchserve.series import Key, Series, is_presentable

_log = logs.get("headway.gateway")
PREFIX = "ts::"
SHARED = "PROMETHEUS_MULTIPROC_DIR"
SERIES_MAX = 10_000  # a handler that makes a dimension of what clients send must not fill the disk
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, float("inf"))


class _Cell(NamedTuple):
    """A value that processes share, and what it is called."""

    sample: str
    labels: dict[str, str]
    value: Any


class Tallies:
    """One process's part; `families` shows all of it."""

    def __init__(self) -> None:
        self._noted: dict[Series, list[float]] = {}
        self._cells: dict[Key, tuple[Series, list[_Cell]]] = {}
        self._is_told = False

    def note(self, series: Series, value: float) -> None:
        """Another value."""
        if (noted := self._noted.get(series)) is None:
            self._noted[series] = [value]
        else:
            noted.append(value)

    def flush(self) -> None:
        """Share what was noted."""
        noted, self._noted = self._noted, {}
        now = time()
        for series, values in noted.items():
            found = self._cells.get(series.key) or self._made(series)
            if found:
                _raise(series.declared.type, found[1], values, now)

    def families(self) -> dict[str, Family]:
        """By name, of all processes."""
        self.flush()
        found: dict[str, Family] = {}
        for about, samples in self._shared() if SHARED in os.environ else self._own():
            type, name, unit, dimensions = json.loads(about)
            family = found.setdefault(name, Family(type, name, unit, []))
            if family.type == type:  # a name is of one type; others of that name are not shown
                family.samples.extend(_sample(name, type, dimensions, *sample) for sample in samples)
        for family in found.values():
            family.samples.sort(key=_place)
        return found

    def _made(self, series: Series) -> tuple[Series, list[_Cell]] | None:
        """The cells of a new series; None where it cannot be shown."""
        names = [name for name, _ in series.labels]
        if not is_presentable(series.declared, names) or len(self._cells) >= SERIES_MAX:
            if not self._is_told:
                self._is_told = True
                _log.warning("metric left out (told once)", name=series.declared.name, labels=names)
            return None
        self._cells[series.key] = made = (series, _cells(series))
        return made

    def _shared(self) -> Iterator[tuple[str, list[tuple[str, dict[str, str], float]]]]:
        files = list(map(str, Path(os.environ[SHARED]).glob("*.db")))
        for metric in MultiProcessCollector.merge(files):
            if metric.name.startswith(PREFIX):
                yield metric.documentation, [(s.name, s.labels, s.value) for s in metric.samples]

    def _own(self) -> Iterator[tuple[str, list[tuple[str, dict[str, str], float]]]]:
        for series, cells in self._cells.values():
            samples = [(cell.sample, cell.labels, cell.value.get()) for cell in cells]
            if series.declared.type == HISTOGRAM:
                *buckets, last = samples
                counts = list(accumulate(value for _, _, value in buckets))
                samples = [(n, labels, c) for (n, labels, _), c in zip(buckets, counts, strict=True)]
                samples += [(_marked(series, "_count"), last[1], counts[-1]), last]
            yield _about(series), samples


def _place(sample: Sample) -> tuple[object, ...]:
    """Series by their labels, and each histogram's buckets before its count and sum."""
    *labels, last = sample.labels or (("", ""),)
    if last[0] == "le":
        return tuple(labels), 0, float(last[1])
    return tuple(sample.labels), 1, sample.name


def _marked(series: Series, suffix: str = "") -> str:
    return f"{PREFIX}{series.declared.type}::{series.declared.name}{suffix}"


def _about(series: Series) -> str:
    declared = series.declared
    return json.dumps([declared.type, declared.name, declared.unit, [name for name, _ in series.labels]])


def _cells(series: Series) -> list[_Cell]:
    labels = dict(series.labels)
    if series.declared.type != HISTOGRAM:
        return [_cell(series, "", labels)]
    buckets = [_cell(series, "_bucket", {**labels, "le": floatToGoString(bound)}) for bound in BUCKETS]
    return [*buckets, _cell(series, "_sum", labels)]


def _cell(series: Series, suffix: str, labels: dict[str, str]) -> _Cell:
    names, sample = list(labels), _marked(series, suffix)
    mode = {"multiprocess_mode": "mostrecent"} if series.declared.type == GAUGE else {}
    about = (_marked(series), sample, names, [labels[name] for name in names], _about(series))
    return _Cell(sample, labels, ValueClass(series.declared.type, *about, **mode))


def _raise(type: str, cells: list[_Cell], values: list[float], now: float) -> None:
    if type == COUNTER:
        cells[0].value.inc(sum(values))
    elif type == GAUGE:
        cells[0].value.set(values[-1], timestamp=now)
    else:
        for value in values:
            place = next((i for i, bound in enumerate(BUCKETS) if value <= bound), len(BUCKETS) - 1)
            cells[place].value.inc(1.0)
        cells[-1].value.inc(sum(values))


def _sample(
    name: str, type: str, dimensions: list[str], marked: str, labels: dict[str, str], value: float
) -> Sample:
    """With its own name, and its labels in order."""
    order = [*dimensions, *sorted(labels.keys() - {*dimensions, "le"}), "le"]
    shown = tuple((label, labels[label]) for label in order if label in labels)
    return Sample(name + marked.removeprefix(f"{PREFIX}{type}::{name}"), shown, value)
