"""headway_gateway.torchserve.door_metrics and book: what requests leave in Prometheus and in log files.
The lines are compared with those that TorchServe 0.12 wrote for the same requests."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from headway.errors import SettingsError
from headway.torchserve.metrics import Record, packed
from headway.torchserve.properties import Properties
from headway_gateway.torchserve.door_metrics import DoorMetrics
from headway_gateway.torchserve.host import Reading

TIMES = {"queue_us": 287, "worker_us": 9000, "compute_us": 3000}
LABELS = ("ModelName", "met", "Level", "Model")
RECORDS = [
    Record("gauge", "HandlerTime", "ms", 2.71, LABELS, "r1"),
    Record("gauge", "MyTime", "Milliseconds", 1.5, LABELS, "r1"),
    Record("counter", "MyError", "unit", 1.0, ("Level", "Error")),
]
META = {**TIMES, "metrics": packed(RECORDS)}
TS_LOG = """\
ts_inference_requests_total.Count:1.0|#model_name:met,model_version:default|#hostname:vm
ts_inference_latency_microseconds.Microseconds:12630.0|#model_name:met,model_version:default|#hostname:vm
ts_queue_latency_microseconds.Microseconds:287.0|#model_name:met,model_version:default|#hostname:vm
QueueTime.Milliseconds:0.287|#Level:Host|#hostname:vm
WorkerThreadTime.Milliseconds:6.0|#Level:Host|#hostname:vm
Requests2XX.Count:1.0|#Level:Host|#hostname:vm
"""
MODEL_LOG = """\
HandlerTime.ms:2.71|#ModelName:met,Level:Model|#hostname:vm,requestID:r1
MyTime.Milliseconds:1.5|#ModelName:met,Level:Model|#hostname:vm,requestID:r1
MyError.unit:1.0|#Level:Error|#hostname:vm,requestID:null
"""
Door = Callable[..., DoorMetrics]


@pytest.fixture
def properties(tmp_path: Path) -> Properties:
    return Properties(log_location=str(tmp_path), metrics_location=str(tmp_path / "metrics"))


def visit(properties: Properties, act: Callable[[DoorMetrics], Any]) -> DoorMetrics:
    """A door's turn of the loop."""

    async def turn() -> DoorMetrics:
        door = DoorMetrics(properties, "vm")
        door.open()
        act(door)
        await asyncio.sleep(0)
        door.close()
        return door

    return asyncio.run(turn())


def predict(door: DoorMetrics) -> None:
    door.count(200, "met", "", 0.01263, META)
    door.access("127.0.0.1:54190", "POST /predictions/met HTTP/1.1", 200, 0.0205)


def lines(path: Path) -> str:
    """A metrics log without its times, which are as they should be."""
    text = path.read_text()
    for line in text.splitlines():
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d,\d{3} - .*,timestamp:\d{10}", line)
    return re.sub(r",timestamp:\d+", "", re.sub(r"(?m)^\S+ - ", "", text))


def shown(door: DoorMetrics) -> dict[str, list[tuple[tuple[tuple[str, str], ...], float]]]:
    families = door.book.families()
    return {name: [(s.labels, s.value) for s in f.samples] for name, f in families.items()}


def test_log_mode_writes_everything_into_the_two_files_and_shows_nothing(
    properties: Properties, tmp_path: Path
) -> None:
    door = visit(replace(properties, model_metrics_auto_detect=True), predict)
    assert lines(tmp_path / "metrics" / "ts_metrics.log") == TS_LOG
    assert lines(tmp_path / "metrics" / "model_metrics.log") == MODEL_LOG
    assert shown(door) == {}


def test_every_request_is_in_the_access_log(properties: Properties, tmp_path: Path) -> None:
    visit(properties, predict)
    text = (tmp_path / "access_log.log").read_text()
    line = r'\S+T\S+,\d{3} - /127\.0\.0\.1:54190 "POST /predictions/met HTTP/1\.1" 200 20\n'
    assert re.fullmatch(line, text)


def test_prometheus_mode_shows_everything_and_writes_nothing(properties: Properties, tmp_path: Path) -> None:
    prometheus = replace(properties, metrics_mode="prometheus", model_metrics_auto_detect=True)
    door = visit(prometheus, lambda door: [predict(door), predict(door)])
    found = shown(door)
    host = (("Level", "Host"), ("Hostname", "vm"))
    served = (("model_name", "met"), ("model_version", "default"), ("hostname", "vm"))
    assert found["ts_inference_requests_total"] == [(served, 2.0)]
    assert found["ts_queue_latency_microseconds"] == [(served, 574.0)]
    assert found["QueueTime"] == [(host, 0.287)]
    assert found["Requests2XX"] == [(host, 2.0)]
    assert found["Requests5XX"] == [], "declared, and without a value yet"
    model = (("ModelName", "met"), ("Level", "Model"), ("Hostname", "vm"))
    assert found["HandlerTime"] == [(model, 2.71)]
    assert found["MyTime"] == [(model, 1.5)]
    assert found["MyError"] == [((("Level", "Error"), ("Hostname", "vm")), 2.0)]
    assert door.book.families()["HandlerTime"].unit == "ms"
    assert (tmp_path / "metrics" / "ts_metrics.log").read_text() == ""
    assert (tmp_path / "metrics" / "model_metrics.log").read_text() == ""


def test_legacy_mode_shows_three_and_writes_the_rest(properties: Properties, tmp_path: Path) -> None:
    door = visit(replace(properties, metrics_mode="legacy"), predict)
    served = (
        "ts_inference_requests_total",
        "ts_inference_latency_microseconds",
        "ts_queue_latency_microseconds",
    )
    assert sorted(shown(door)) == sorted(served)
    written = lines(tmp_path / "metrics" / "ts_metrics.log")
    assert written == "".join(TS_LOG.splitlines(keepends=True)[3:])


def test_what_is_not_declared_is_dropped_unless_it_shall_be_detected(
    properties: Properties, tmp_path: Path
) -> None:
    config = tmp_path / "metrics.yaml"
    config.write_text(
        "ts_metrics: {counter: [{name: Requests2XX, unit: Count, dimensions: [Hostname, Level]}]}\n"
        "model_metrics: {gauge: [{name: MyTime, unit: s, dimensions: [A, B]},"
        " {name: HandlerTime, unit: ms, dimensions: [Other]}]}\n"
    )
    declared = replace(properties, metrics_config=str(config), metrics_mode="prometheus")
    found = shown(visit(declared, predict))
    assert found == {
        "Requests2XX": [((("Hostname", "vm"), ("Level", "Host")), 1.0)],
        "MyTime": [((("A", "met"), ("B", "Model"), ("Hostname", "vm")), 1.5)],
        "HandlerTime": [],  # it has another number of dimensions
    }


def test_statuses_are_counted_by_their_hundreds(properties: Properties) -> None:
    def act(door: DoorMetrics) -> None:
        for status in (200, 202, 302, 404, 499, 500, 599, 507):
            door.access("1.2.3.4:5", "GET / HTTP/1.1", status, 0.0)

    found = shown(visit(replace(properties, metrics_mode="prometheus"), act))
    assert [found[f"Requests{kind}XX"][0][1] for kind in "245"] == [2.0, 2.0, 3.0]


def test_models_that_are_not_there_make_no_series(properties: Properties) -> None:
    def act(door: DoorMetrics) -> None:
        door.count(404, "invented", "", 0.1)
        door.count(503, "met", "1.0", 0.1, {})  # refused before a worker had it
        door.count(404, "met", "1.0", 0.1, TIMES)  # the handler said so
        door.count(200, "met", "1.0", 0.1, TIMES, timed=False)  # not over HTTP
        door.count(503, "met", "1.0", 0.1, {**TIMES, "message": "Prediction failed"})

    found = shown(visit(replace(properties, metrics_mode="prometheus"), act))
    labels = (("model_name", "met"), ("model_version", "1.0"), ("hostname", "vm"))
    assert found["ts_inference_requests_total"] == [(labels, 4.0)]
    assert found["ts_inference_latency_microseconds"] == [(labels, 100000.0)]


def test_readings_of_a_gpu_have_its_number(properties: Properties, tmp_path: Path) -> None:
    readings = [Reading("CPUUtilization", 3.5), Reading("GPUUtilization", 7.0, "1")]
    visit(properties, lambda door: door.read(readings))
    assert lines(tmp_path / "metrics" / "ts_metrics.log") == (
        "CPUUtilization.Percent:3.5|#Level:Host|#hostname:vm\n"
        "GPUUtilization.Percent:7.0|#Level:Host,DeviceId:1|#hostname:vm\n"
    )


def test_requests_of_a_moment_are_written_together_and_soon(
    properties: Properties, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[int] = []
    original = DoorMetrics.flush

    def flush(self: DoorMetrics) -> None:
        flushed.append(len(self._predictions))
        original(self)

    monkeypatch.setattr(DoorMetrics, "flush", flush)

    async def run() -> None:
        door = DoorMetrics(properties, "vm")
        door.open()
        for _ in range(50):
            predict(door)
            await asyncio.sleep(0)
        async with asyncio.timeout(30):
            while not flushed:
                await asyncio.sleep(0.01)
        assert door._timer is None
        door.close()

    asyncio.run(run())
    assert flushed == [50, 0]  # the second: at the end


def test_a_mode_that_there_is_not_is_refused(properties: Properties) -> None:
    with pytest.raises(SettingsError, match="metrics_mode: 'loud' is not log, prometheus or legacy"):
        DoorMetrics(replace(properties, metrics_mode="loud"))
