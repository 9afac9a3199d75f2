"""Two plots as SVG, without a library: rates as bars, and latencies of the open loop as curves.

The curves are drawn from the histograms of all repeats added up. Their horizontal axis is the usual one for
tails: each step to the right is a tenth of the requests before it.

Knows: results' form, SVG. Must not know: how anything was measured.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from html import escape
from typing import Any

from benchmarks.cases import CASES, Case
from benchmarks.histogram import Histogram

CAPTIONS = {
    "rates": "Requests per second over HTTP, by server",
    "latency": "Latency by percentile in the open loop, by server",
}
COLOURS = {
    "headway": "#0b6e4f",
    "headway-archive": "#0b6e4f",
    "headway-archive-0ms": "#4fae8c",
    "torchserve": "#f3b183",
    "torchserve-quiet": "#d9772b",
    "triton": "#3d6fb6",
    "triton-0ms": "#9dbce6",
    "mosec": "#8a8a8a",
}
WIDTH, LEFT, RIGHT = 760, 170, 90
BAR, GAP = 15, 26
PANEL_H, PANEL_GAP = 220, 70
NINES = (50, 90, 99, 99.9)
RATE_CASES = (
    "tiny-http-1",
    "tiny-http-8",
    "tiny-http-64",
    "payload-http-1",
    "payload-http-64",
    "resnet50-64",
)
LATENCY_CASES = ("tiny-open-500", "tiny-open-2000", "payload-open-200")
Results = dict[str, Any]
Title = Callable[[str], str]


def plots(results: Results, title: Title) -> dict[str, str]:
    """The plots there is something to draw for."""
    drawn = {"rates": rates(results, title), "latency": latency(results, title)}
    return {name: text for name, text in drawn.items() if text}


def succeeded(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [run for run in runs if "failed" not in run]


def text(x: float, y: float, words: str, anchor: str = "start", extra: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" {extra}>{escape(words)}</text>'


def page(height: float, shapes: list[str]) -> str:
    if not shapes:
        return ""
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}"'
    style = 'font-family="sans-serif" font-size="12" fill="#222"'
    ground = f'<rect width="{WIDTH}" height="{height:.0f}" fill="#fff"/>'
    return "\n".join([f"{head} {style}>", ground, *shapes, "</svg>\n"])


# ---- bars ----


def rates(results: Results, title: Title) -> str:
    """A group of bars for each closed case over HTTP; each group has a scale of its own."""
    shapes: list[str] = []
    y = 10.0
    for case in CASES:
        found = results["cases"].get(case.name, {})
        by_label = {k: succeeded(v) for k, v in found.items() if k in COLOURS and succeeded(v)}
        if case.name in RATE_CASES and by_label:
            y = _group(shapes, y, case, by_label, title)
    return page(y, shapes)


def _group(shapes: list[str], y: float, case: Case, by_label: dict[str, Any], title: Title) -> float:
    """One group of bars from `y` down; returns where it ends."""
    shapes.append(text(10, y + 14, f"{case.title} (requests/s)", extra='font-weight="bold"'))
    y += 22
    medians = {label: statistics.median(run["rate"] for run in runs) for label, runs in by_label.items()}
    scale = (WIDTH - LEFT - RIGHT) / max(medians.values())
    for label, rate in medians.items():
        shapes.append(text(LEFT - 8, y + BAR - 3, title(label), "end"))
        size = f'width="{rate * scale:.1f}" height="{BAR - 2}"'
        shapes.append(f'<rect x="{LEFT}" y="{y}" {size} fill="{COLOURS[label]}"/>')
        digits = 1 if rate < 100 else 0
        shapes.append(text(LEFT + rate * scale + 6, y + BAR - 3, f"{rate:,.{digits}f}"))
        y += BAR
    return y + GAP - BAR / 2


# ---- curves ----


def latency(results: Results, title: Title) -> str:
    shapes: list[str] = []
    y = 10.0
    for case in CASES:
        by_label = results["cases"].get(case.name, {})
        if case.name in LATENCY_CASES and any(map(succeeded, by_label.values())):
            _panel(shapes, y, case, by_label, title)
            y += PANEL_H + PANEL_GAP
    return page(y, shapes)


def merged(runs: list[dict[str, Any]]) -> Histogram:
    total = Histogram()
    for run in succeeded(runs):
        total.merge(Histogram.from_facts(run["histogram"]))
    return total


def _panel(shapes: list[str], top: float, case: Case, by_label: dict[str, Any], title: Title) -> None:
    histograms = {label: merged(runs) for label, runs in by_label.items() if succeeded(runs)}
    shapes.append(
        text(10, top + 14, f"{case.title} (latency in ms, by percentile)", extra='font-weight="bold"')
    )
    values = [h.percentile(p) / 1e6 for h in histograms.values() for p in (1, NINES[-1])]
    scale = Scale(top + 24, PANEL_H, math.floor(math.log10(min(values))), math.ceil(math.log10(max(values))))
    _axes(shapes, scale)
    for i, (label, histogram) in enumerate(histograms.items()):
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in _curve(histogram, scale))
        line = f'fill="none" stroke="{COLOURS[label]}" stroke-width="2"'
        shapes.append(f'<polyline points="{points}" {line}/>')
        key_y = top + 40 + 16 * i
        shapes.append(f'<rect x="10" y="{key_y - 9:.0f}" width="10" height="10" fill="{COLOURS[label]}"/>')
        shapes.append(text(26, key_y, title(label)))


class Scale:
    """Logarithmic both ways: decades of milliseconds up, nines to the right."""

    def __init__(self, top: float, height: float, low: int, high: int) -> None:
        self.top, self.height, self.low, self.high = top, height, low, max(high, low + 1)

    def x(self, percent: float) -> float:
        width = WIDTH - LEFT - RIGHT
        return LEFT + width * -math.log10(1 - percent / 100) / -math.log10(1 - NINES[-1] / 100)

    def y(self, ms: float) -> float:
        share = (math.log10(ms) - self.low) / (self.high - self.low)
        return self.top + self.height * (1 - min(max(share, 0), 1))


def _axes(shapes: list[str], scale: Scale) -> None:
    grid = 'stroke="#ddd" stroke-width="1"'
    for power in range(scale.low, scale.high + 1):
        y = scale.y(10.0**power)
        shapes.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" {grid}/>')
        shapes.append(text(WIDTH - RIGHT + 6, y + 4, f"{10.0**power:g} ms"))
    for percent in (0, *NINES):
        x, bottom = scale.x(percent), scale.top + scale.height
        shapes.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{scale.top:.1f}" y2="{bottom:.1f}" {grid}/>')
        shapes.append(text(x, bottom + 16, f"{percent:g} %", "middle"))


def _curve(histogram: Histogram, scale: Scale) -> list[tuple[float, float]]:
    steps = [100 - 100 * 10 ** (-i / 20) for i in range(1, 61)]  # 60 points, up to 99.9
    return [(scale.x(p), scale.y(histogram.percentile(p) / 1e6)) for p in steps]
