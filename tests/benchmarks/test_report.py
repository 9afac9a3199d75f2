"""From results to tables."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks import plot
from benchmarks.cases import CASES
from benchmarks.histogram import Histogram
from benchmarks.report import BEGIN, END, is_reached, ratios, replaced, show, spread, title_of
from benchmarks.servers import SERVERS

RUN = {"answers": 10, "errors": 0, "rate": 100.0, "cpu_ms": 5.0, "histogram": Histogram.of([10**6]).facts()}
RUN |= {f"{key}_ms": 1.0 for key in ("p50", "p90", "p99", "p99.9", "max")}


def results_of(case_name: str) -> dict[str, object]:
    case = next(case for case in CASES if case.name == case_name)
    cases = {case.name: {run.label: [RUN, RUN] for run in case.runs}}
    facts = {"idle_cpu": 0.01, "processes": 3, "rss_mb": 100.0, "pss_mb": 80.0}
    about = {"machine": {"machine": "a machine"}, "date": "today", "repeats": 2, "seconds": 5.0}
    return {**about, "cases": cases, "servers": {case.model: {"headway": facts}}}


def test_ratios_are_taken_run_by_run() -> None:
    own, other = [{"rate": 2.0}, {"rate": 30.0}], [{"rate": 1.0}, {"rate": 10.0}]
    assert ratios(own, other, "rate") == [2.0, 3.0]


def test_a_spread_is_the_median_with_its_range() -> None:
    assert spread([1.0, 30.0, 1000.4]) == "30.0 (1.00 to 1,000)"
    assert spread([2.0]) == "2.00"


def test_rates_are_to_be_high_and_times_low() -> None:
    rate = replace(CASES[0], key="rate")
    time = replace(CASES[0], key="p50_ms")
    assert is_reached(rate, 1.5, 1.4) and not is_reached(rate, 1.3, 1.4)
    assert is_reached(time, 0.5, 0.6) and not is_reached(time, 0.7, 0.6)


@pytest.mark.parametrize("name", [case.name for case in CASES])
def test_every_case_has_its_rows_and_every_run_its_own(name: str) -> None:
    case = next(case for case in CASES if case.name == name)
    text = show(results_of(name))
    assert case.title in text
    assert all(title_of(run.label) in text for run in case.runs)
    assert len({run.label for run in case.runs}) == len(case.runs)
    assert {run.server for run in case.runs} <= {*SERVERS, ""}
    assert set(case.goals) <= {run.label for run in case.runs}


def test_what_a_request_costs_the_broker_has_its_table() -> None:
    results = results_of("tiny-http-1")
    assert "costs the broker" not in show(results)
    results["broker"] = [["", "ratio"], ["idle", "1.07"]]
    assert "### What a request costs the broker\n\n|  | ratio |\n| --- | --- |\n| idle | 1.07 |" in show(
        results
    )


def test_failures_stand_beside_the_name() -> None:
    results = results_of("tiny-http-1")
    results["cases"]["tiny-http-1"]["triton"] = [{**RUN, "errors": 3}, RUN]  # type: ignore[index]
    assert "Triton (3 of 20 requests failed)" in show(results)


def test_a_run_that_failed_is_named_and_its_pair_left_out() -> None:
    results = results_of("tiny-http-1")
    results["cases"]["tiny-http-1"]["triton"] = [RUN, {"failed": "why"}]  # type: ignore[index]
    assert "Triton (1 of 2 runs failed)" in show(results)
    assert ratios([RUN, RUN], [RUN, {"failed": "why"}], "rate") == [1.0]


def test_only_what_is_between_the_marks_is_replaced() -> None:
    document = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    assert replaced(document, "new") == f"before\n{BEGIN}\n\nnew\n\n{END}\nafter\n"
    assert replaced(replaced(document, "old"), "new") == replaced(document, "new")
    with pytest.raises(ValueError, match="no marks"):
        replaced("nothing", "new")


@pytest.mark.parametrize(("case", "drawn"), [("tiny-http-64", "rates"), ("tiny-open-2000", "latency")])
def test_plots_are_drawn_for_what_was_measured(case: str, drawn: str) -> None:
    results = results_of(case)
    drawings = plot.plots(results, title_of)
    assert set(drawings) == {drawn} and "TorchServe, logs off" in drawings[drawn]
    assert {*plot.LATENCY_CASES, *plot.RATE_CASES} <= {case.name for case in CASES}
    assert set(plot.COLOURS) == set(SERVERS)
