"""headway.torchserve.metrics: declarations and records."""

from __future__ import annotations

from pathlib import Path

import pytest

from headway.errors import SettingsError
from headway.torchserve.metrics import COUNTER, GAUGE, Record, packed, read_declarations, unpacked
from headway.torchserve.properties import Properties
from headway.torchserve.registration import Registration, model_keys

FILE = """
dimensions:
  - &level "Level"
ts_metrics:
  counter:
    - {name: Requests2XX, unit: Count, dimensions: [*level, Hostname]}
model_metrics:
  gauge:
    - {name: Mine, unit: kB, dimensions: [ModelName, *level]}
  histogram:
    - {name: Mine, unit: ms, dimensions: []}
"""
RECORDS = [
    Record(COUNTER, "a", "Count", 1.0, ("Level", "Model"), "r1"),
    Record(GAUGE, "b", "ms", 2.5, (), "r1"),
    Record(GAUGE, "c", "ms", -1.0, (), ""),
]


def test_without_a_file_torchserves_own_metrics_are_declared() -> None:
    found = read_declarations()
    assert len(found.server) == 19
    assert found.server["GPUUtilization"].dimensions == ("Level", "DeviceId", "Hostname")
    assert [one.name for one in found.model.values()] == ["HandlerTime", "PredictionTime"]
    assert found.model[(GAUGE, "PredictionTime")].unit == "ms"


def test_a_file_takes_the_place_of_all_of_them(tmp_path: Path) -> None:
    path = tmp_path / "metrics.yaml"
    path.write_text(FILE)
    found = read_declarations(str(path))
    assert list(found.server) == ["Requests2XX"]
    assert found.server["Requests2XX"].dimensions == ("Level", "Hostname")
    assert set(found.model) == {("gauge", "Mine"), ("histogram", "Mine")}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("- a", "is not a mapping"),
        ("model_metrics: {summary: []}", "'summary' is not one of counter, gauge, histogram"),
        ("ts_metrics: {gauge: [{name: a, unit: b}]}", "needs name, unit and a list of dimensions"),
        ("ts_metrics: {gauge: [{name: a, unit: b, dimensions: c}]}", "needs name, unit and a list"),
        ("{", "while parsing"),
        ("ts_metrics: 3", "must be a mapping of counter, gauge, histogram"),
    ],
)
def test_a_file_that_declares_nothing_sensible_is_refused(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "metrics.yaml"
    path.write_text(text)
    with pytest.raises(SettingsError, match=r"^metrics_config: .*") as refused:
        read_declarations(str(path))
    assert why in str(refused.value)


def test_a_file_that_is_not_there_is_refused() -> None:
    with pytest.raises(SettingsError, match="metrics_config: /nowhere"):
        read_declarations("/nowhere")


def test_workers_are_told_of_the_file_by_what_is_registered() -> None:
    registration = Registration("m", "1", "m.mar", "/store/m.mar")
    options = model_keys(registration, Properties(metrics_config="/etc/metrics.yaml"))["options"]
    assert options["metrics_config"] == "/etc/metrics.yaml"
    assert "metrics_config" not in model_keys(registration, Properties())["options"]


def test_records_arrive_as_they_were_sent_and_say_their_requests_once() -> None:
    rows = packed(RECORDS)
    assert [len(row) for row in rows] == [6, 5, 6]
    assert unpacked(rows) == RECORDS


@pytest.mark.parametrize(
    "row", [3, [], ["sum", "a", "b", 1, []], ["gauge", "a", "b", "1", []], ["gauge", "a", 0, 1, []],
            ["gauge", "a", "b", 1, ["name"]], ["gauge", "a", "b", 1, [1, 2]], ["gauge", "a", "b", 1, [], 7]]
)  # fmt: skip
def test_what_is_no_record_is_left_out(row: object) -> None:
    assert unpacked([row, ["gauge", "a", "b", 1, []]]) == [Record("gauge", "a", "b", 1.0, ())]
    assert unpacked(row) == []
