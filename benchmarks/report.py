"""From results to tables: medians with their range, ratios run by run, and what is to be reached.

    python -m benchmarks.report                 the tables of the last scripts/bench
    python -m benchmarks.report --write         the same, into docs/benchmarks.md, with its plots

A ratio is taken within one repeat, where both were measured within a minute, and then the median over the
repeats; so it suffers less from a machine whose speed changes than two medians would.

Knows: results' form, markdown. Must not know: how anything was measured.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks import plot
from benchmarks.cases import CASES, Case
from benchmarks.servers import TITLES

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / ".bench" / "results.json"
DOCUMENT = ROOT / "docs" / "benchmarks.md"
BEGIN, END = "<!-- results: written by scripts/bench --write -->", "<!-- end of results -->"
HEADINGS = {"tiny": "Tiny", "payload": "Payload", "resnet50": "ResNet-50"}
Results = dict[str, Any]
Runs = list[dict[str, Any]]


def figure(value: float) -> str:
    """Three digits, or all before the point."""
    digits = 0 if value >= 100 else 1 if value >= 10 else 2
    return f"{value:,.{digits}f}"


def spread(values: Iterable[float]) -> str:
    """The median, and the range in brackets."""
    values = list(values)
    if not values:
        return "-"
    middle, low, high = statistics.median(values), min(values), max(values)
    if len(values) == 1:
        return figure(middle)
    return f"{figure(middle)} ({figure(low)} to {figure(high)})"


def column(runs: Runs, key: str) -> str:
    return spread(run[key] for run in runs if key in run)


def ratios(own: Runs, other: Runs, key: str) -> list[float]:
    """Ours by theirs, repeat by repeat, where neither failed."""
    pairs = zip(own, other, strict=True)
    return [mine[key] / theirs[key] for mine, theirs in pairs if key in mine and key in theirs]


def is_reached(case: Case, ratio: float, goal: float) -> bool:
    """Of a rate at least so much, of a time at most."""
    return ratio >= goal if case.key == "rate" else ratio <= goal


def table(head: list[str], rows: list[list[str]]) -> str:
    """Markdown; empty without rows."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) if rows else ""


def title_of(label: str) -> str:
    server, comma, rest = label.rpartition(", ")
    return TITLES.get(label) or (f"{server}{comma}{TITLES.get(rest, rest)}")


def chosen(results: Results, model: str, is_open: bool) -> list[tuple[Case, dict[str, Runs]]]:
    found = results["cases"]
    return [
        (c, found[c.name]) for c in CASES if c.name in found and c.model == model and c.is_open == is_open
    ]


def goals_table(results: Results) -> str:
    rows = []
    for case in CASES:
        by_label = results["cases"].get(case.name, {})
        for label, goal in case.goals.items():
            if label in by_label and "headway" in by_label:
                rows.append(_goal_row(case, label, goal, by_label))
    return table(["work", "measured", "against", "Headway / other", "goal", ""], rows)


def _goal_row(case: Case, label: str, goal: float | None, by_label: dict[str, Runs]) -> list[str]:
    shares = ratios(by_label["headway"], by_label[label], case.key)
    sign = "≥" if case.key == "rate" else "≤"
    row = [case.title, case.key.removesuffix("_ms"), title_of(label), spread(shares)]
    if goal is None:
        return [*row, "", ""]
    reached = bool(shares) and is_reached(case, statistics.median(shares), goal)
    return [*row, f"{sign} {goal:g}", "reached" if reached else "**missed**"]


def closed_table(results: Results, model: str) -> str:
    rows = []
    for case, by_label in chosen(results, model, is_open=False):
        for i, (label, runs) in enumerate(by_label.items()):
            keys = ("rate", "p50_ms", "p99_ms")
            cpu = "" if label == "bare" else column(runs, "cpu_ms")
            cells = [*(column(runs, key) for key in keys), cpu]
            rows.append([case.title if i == 0 else "", title_of(label) + _errors(runs), *cells])
    return table(["work", "", "requests/s", "p50 ms", "p99 ms", "CPU ms per 1,000 requests"], rows)


def open_table(results: Results, model: str) -> str:
    rows = []
    for case, by_label in chosen(results, model, is_open=True):
        for i, (label, runs) in enumerate(by_label.items()):
            keys = ("p50_ms", "p90_ms", "p99_ms", "p99.9_ms", "max_ms")
            cells = [column(runs, key) for key in keys]
            rows.append([case.title if i == 0 else "", title_of(label) + _errors(runs), *cells])
    return table(["open loop", "", "p50 ms", "p90 ms", "p99 ms", "p99.9 ms", "largest ms"], rows)


def _errors(runs: Runs) -> str:
    """What went wrong belongs beside the name, or a table would praise who refuses fastest."""
    lost = sum("failed" in run for run in runs)
    errors = sum(run.get("errors", 0) + run.get("unanswered", 0) for run in runs)
    answers = sum(run.get("answers", 0) for run in runs)
    said = [f"{lost} of {len(runs)} runs failed"] if lost else []
    said += [f"{errors:,} of {answers:,} requests failed"] if errors else []
    return f" ({'; '.join(said)})" if said else ""


def servers_table(results: Results) -> str:
    rows = []
    for model, servers in results["servers"].items():
        for i, (name, facts) in enumerate(servers.items()):
            counts = [str(facts["processes"]), figure(facts["rss_mb"]), figure(facts["pss_mb"])]
            idle = f"{facts['idle_cpu'] * 100:.1f} %"
            rows.append([HEADINGS[model] if i == 0 else "", TITLES[name], *counts, idle])
    head = ["model", "", "processes", "RSS MB", "PSS MB", "one core's share while idle"]
    return table(head, rows)


def broker_table(results: Results) -> str:
    """What `broker_cost` found."""
    found = results.get("broker", [])
    return table(found[0], found[1:]) if found else ""


def about(results: Results) -> str:
    facts = results["machine"]
    versions = "\n".join(f"- {name}: {text}" for name, text in facts.items() if name != "machine")
    how = f"median of {results['repeats']} runs of {results['seconds']:g} s (range)"
    return f"{results['date']}, {facts['machine']}; {how}.\n\n{versions}"


def sections(results: Results) -> list[str]:
    parts = [about(results), goals_table(results)]
    for model, heading in HEADINGS.items():
        tables = [closed_table(results, model), open_table(results, model)]
        parts += [f"### {heading}", *tables] if any(tables) else []
    for heading, text in (
        ("Processes and memory", servers_table(results)),
        ("What a request costs the broker", broker_table(results)),
    ):
        parts += [f"### {heading}", text] if text else []
    return parts


def show(results: Results) -> str:
    return "\n\n".join(part for part in sections(results) if part)


def replaced(document: str, text: str) -> str:
    """The document with `text` between its marks. Raises: ValueError when it has no marks."""
    before, found, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (found and end):
        raise ValueError(f"no marks: {BEGIN} ... {END}")
    return f"{before}{BEGIN}\n\n{text}\n\n{END}{after}"


def write(results: Results) -> None:
    """Tables and plots into the document."""
    plots = []
    for name, text in plot.plots(results, title_of).items():
        (DOCUMENT.parent / f"benchmarks-{name}.svg").write_text(text)
        plots.append(f"![{plot.CAPTIONS[name]}](benchmarks-{name}.svg)")
    text = "\n\n".join([*plots, show(results)])
    DOCUMENT.write_text(replaced(DOCUMENT.read_text(), text))


if __name__ == "__main__":
    found = json.loads(RESULTS.read_text())
    print(show(found))
    if "--write" in sys.argv:
        write(found)
