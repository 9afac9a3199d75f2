"""headway_gateway.torchserve.exposition: text that TorchServe might have written. What it is compared with
was recorded from TorchServe 0.12."""

from __future__ import annotations

import re

import pytest
from prometheus_client.parser import text_string_to_metric_families

from headway_gateway.torchserve.exposition import Family, Sample, exposition, number

HOST = (("Level", "Host"), ("Hostname", "vm"))
MODEL = (("Extra", "x"), ("ModelName", "met"), ("Level", "Model"), ("Hostname", "vm"))
LE = (
    ("2.5", 0.0),
    ("5.0", 3.0),
    ("+Inf", 3.0),
)
FAMILIES = [
    Family("counter", "Requests2XX", "Count", [Sample("Requests2XX", HOST, 7.0)]),
    Family("gauge", "GPUUtilization", "Percent", []),
    Family("gauge", "DiskUsage", "Gigabytes", [Sample("DiskUsage", HOST, 31.56052017211914)]),
    Family(
        "histogram",
        "MyHist",
        "Milliseconds",
        [
            *(Sample("MyHist_bucket", (*MODEL, ("le", le)), count) for le, count in LE),
            Sample("MyHist_count", MODEL, 3.0),
            Sample("MyHist_sum", MODEL, 15.0),
        ],
    ),
]
RECORDED = """\
# HELP Requests2XX Torchserve prometheus counter metric with unit: Count
# TYPE Requests2XX counter
Requests2XX{Level="Host",Hostname="vm",} 7.0
# HELP GPUUtilization Torchserve prometheus gauge metric with unit: Percent
# TYPE GPUUtilization gauge
# HELP DiskUsage Torchserve prometheus gauge metric with unit: Gigabytes
# TYPE DiskUsage gauge
DiskUsage{Level="Host",Hostname="vm",} 31.56052017211914
# HELP MyHist Torchserve prometheus histogram metric with unit: Milliseconds
# TYPE MyHist histogram
MyHist_bucket{Extra="x",ModelName="met",Level="Model",Hostname="vm",le="2.5",} 0.0
MyHist_bucket{Extra="x",ModelName="met",Level="Model",Hostname="vm",le="5.0",} 3.0
MyHist_bucket{Extra="x",ModelName="met",Level="Model",Hostname="vm",le="+Inf",} 3.0
MyHist_count{Extra="x",ModelName="met",Level="Model",Hostname="vm",} 3.0
MyHist_sum{Extra="x",ModelName="met",Level="Model",Hostname="vm",} 15.0
"""
FILTERED = """\
# HELP Requests2XX Torchserve prometheus counter metric with unit: Count
# TYPE Requests2XX counter
Requests2XX{Level="Host",Hostname="vm",} 7.0
# HELP MyHist Torchserve prometheus histogram metric with unit: Milliseconds
# TYPE MyHist histogram
MyHist_sum{Extra="x",ModelName="met",Level="Model",Hostname="vm",} 15.0
"""


def test_the_text_is_torchserves_to_the_last_comma() -> None:
    assert exposition(FAMILIES) == RECORDED


def test_names_choose_samples_and_families_without_any_are_not_shown() -> None:
    assert exposition(FAMILIES, {"Requests2XX", "MyHist", "MyHist_sum", "GPUUtilization"}) == FILTERED
    assert exposition(FAMILIES, {"Nope"}) == ""


def test_labels_with_quotes_and_newlines_are_read_back_as_they_were() -> None:
    labels = (("a", 'say "hi"\n\\ there'),)
    text = exposition([Family("gauge", "g", 'odd\n"unit"', [Sample("g", labels, 1.0)])])
    (family,) = text_string_to_metric_families(text)
    assert family.samples[0].labels == dict(labels)
    assert family.documentation.endswith('odd\n"unit"')


@pytest.mark.parametrize("value", [0.0, 70.0, 432.252, 1e-9, 123456789.0])
def test_values_have_a_decimal_point_or_an_exponent(value: float) -> None:
    assert re.fullmatch(r"\d+\.\d+|\d+e-\d+", number(value))


def test_what_is_no_number_is_written_as_prometheus_has_it() -> None:
    assert [number(float(text)) for text in ("nan", "inf", "-inf")] == ["NaN", "+Inf", "-Inf"]
