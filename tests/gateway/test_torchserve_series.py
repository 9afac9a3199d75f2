"""headway_gateway.torchserve.series: log lines, compared with those that TorchServe 0.12 wrote."""

from __future__ import annotations

import pytest

from headway.torchserve.metrics import Declared
from headway_gateway.torchserve.series import Series, is_presentable, model_lines, server_lines

HOST = (("Level", "Host"), ("Hostname", "vm"))
REQUEST = "6c9a038f-1851-4f96-949d-3577d8337646"


def series(name: str, unit: str, labels: tuple[tuple[str, str], ...], type: str = "gauge") -> Series:
    return Series(Declared(type, name, unit, tuple(name for name, _ in labels)), labels, "vm")


def test_lines_of_the_server_are_torchserves() -> None:
    queue = series("QueueTime", "Milliseconds", HOST)
    served = (("model_name", "met"), ("model_version", "default"), ("hostname", "vm"))
    latency = series("ts_queue_latency_microseconds", "Microseconds", served, "counter")
    assert server_lines("then - ", [((queue, latency), (0.0, 287.486))], 1795393962) == (
        "then - QueueTime.Milliseconds:0.0|#Level:Host|#hostname:vm,timestamp:1795393962\n"
        "then - ts_queue_latency_microseconds.Microseconds:287.486|#model_name:met,model_version:default"
        "|#hostname:vm,timestamp:1795393962\n"
    )


def test_lines_of_a_model_are_torchserves() -> None:
    labels = (("ModelName", "met"), ("Level", "Model"), ("Hostname", "vm"))
    timed = series("HandlerTime", "ms", labels)
    failed = series("MyError", "unit", (("Level", "Error"), ("Hostname", "vm")))
    assert model_lines("then - ", [(timed, 2.71, REQUEST), (failed, 1, "")], 1795393962) == (
        "then - HandlerTime.ms:2.71|#ModelName:met,Level:Model|#hostname:vm"
        f",requestID:{REQUEST},timestamp:1795393962\n"
        "then - MyError.unit:1.0|#Level:Error|#hostname:vm,requestID:null,timestamp:1795393962\n"
    )


def test_nothing_that_a_handler_says_begins_another_line() -> None:
    odd = series("a\nb", "c\r", (("d\n", "e\x00"),))
    lines = model_lines("", [(odd, 1.0, "r\n")], 1) + server_lines("", [((odd,), (1.0,))], 1)
    first, second, nothing = lines.split("\n")
    assert (first.isprintable(), second.isprintable(), nothing) == (True, True, "")


@pytest.mark.parametrize(
    ("name", "labels", "is_one"),
    [
        ("a:b_1", ["Level"], True),
        ("a b", ["Level"], False),
        ("1a", [], False),
        ("a", ["my dim"], False),
        ("a", ["Level", "Level"], False),
        ("headway_requests_total", [], False),
    ],
)
def test_what_prometheus_cannot_read_or_is_ours_is_no_metric(
    name: str, labels: list[str], is_one: bool
) -> None:
    assert is_presentable(Declared("gauge", name, "", tuple(labels)), labels) is is_one
