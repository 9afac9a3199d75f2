"""headway_gateway.torchserve.tallies: what values come to, in one process and in several."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from headway.torchserve.metrics import Declared
from headway_gateway.torchserve import tallies as module
from headway_gateway.torchserve.series import Series
from headway_gateway.torchserve.tallies import Tallies

NOTE = """
import sys, json
from headway.torchserve.metrics import Declared
from headway_gateway.torchserve.series import Series
from headway_gateway.torchserve.tallies import Tallies
from headway_gateway.metrics import HttpMetrics
number = float(sys.argv[1])
tallies, http = Tallies(), HttpMetrics()
http._requests.labels("d", "200").inc()
labels = (("Z", "z"), ("A", "a"))
for type, name, value in (("counter", "c_total", number), ("gauge", "g", number), ("histogram", "h", number)):
    tallies.note(Series(Declared(type, name, "u", ("Z", "A")), labels, "vm"), value)
found = tallies.families()
print(json.dumps([[*family[:3], [[s.name, s.labels, s.value] for s in family.samples]]
                  for family in found.values()]))
print(json.dumps(sorted(metric.name for metric in http.collect())))
"""
LABELS = [["Z", "z"], ["A", "a"]]


def series(type: str = "counter", name: str = "c", *labels: tuple[str, str]) -> Series:
    return Series(Declared(type, name, "u", tuple(n for n, _ in labels)), tuple(labels), "vm")


def test_counters_add_up_gauges_are_the_last_and_histograms_count() -> None:
    tallies = Tallies()
    counter, gauge, histogram = (series(type, type) for type in ("counter", "gauge", "histogram"))
    for value in (0.3, 20.0):
        for one in (counter, gauge, histogram):
            tallies.note(one, value)
    found = tallies.families()
    assert [s.value for s in found["counter"].samples] == [20.3]
    assert [s.value for s in found["gauge"].samples] == [20.0]
    shown = {(s.name, dict(s.labels).get("le")): s.value for s in found["histogram"].samples}
    assert len(shown) == 17
    assert shown[("histogram_bucket", "0.25")] == 0
    assert shown[("histogram_bucket", "0.5")] == shown[("histogram_bucket", "10.0")] == 1
    assert shown[("histogram_bucket", "+Inf")] == shown[("histogram_count", None)] == 2
    assert shown[("histogram_sum", None)] == 20.3


def test_two_series_of_one_key_are_one() -> None:
    tallies = Tallies()
    for _ in range(2):
        tallies.note(series("counter", "c", ("a", "1")), 1.0)
    tallies.note(series("counter", "c", ("a", "2")), 1.0)
    samples = tallies.families()["c"].samples
    assert [(sample.labels, sample.value) for sample in samples] == [((("a", "1"),), 2), ((("a", "2"),), 1)]


def test_a_name_is_of_one_type() -> None:
    tallies = Tallies()
    tallies.note(series("counter", "both"), 1.0)
    tallies.note(series("gauge", "both"), 5.0)
    family = tallies.families()["both"]
    assert (family.type, [s.value for s in family.samples]) == ("counter", [1.0])


def test_what_cannot_be_shown_and_too_many_series_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SERIES_MAX", 3)
    tallies = Tallies()
    tallies.note(series("counter", "not a name"), 1.0)
    for i in range(5):
        tallies.note(series("counter", "c", ("i", str(i))), 1.0)
    found = tallies.families()
    assert list(found) == ["c"]
    assert len(found["c"].samples) == 3


def test_several_processes_are_summed_and_the_latest_gauge_counts(tmp_path: Path) -> None:
    variables = {
        **os.environ,
        "PROMETHEUS_MULTIPROC_DIR": str(tmp_path),
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    for number in ("1", "4"):
        command = [sys.executable, "-c", NOTE, number]
        done = subprocess.run(command, env=variables, capture_output=True, text=True, check=True)
    shown, own = map(json.loads, done.stdout.splitlines())
    found = {name: (type, unit, samples) for type, name, unit, samples in shown}
    assert found["c_total"] == ("counter", "u", [["c_total", LABELS, 5.0]])
    assert found["g"] == ("gauge", "u", [["g", LABELS, 4.0]])
    type, _, samples = found["h"]
    values = {(name, labels[-1][1]): value for name, labels, value in samples}
    assert type == "histogram"
    assert values[("h_bucket", "1.0")] == 1 and values[("h_bucket", "5.0")] == 2
    assert values[("h_count", "a")] == 2 and values[("h_sum", "a")] == 5.0
    assert samples[0][1][-1][0] == "le" and samples[0][1][:2] == LABELS, "labels in the declared order"
    assert own and all(name.startswith("headway_") for name in own), "Headway's own are told from them"
