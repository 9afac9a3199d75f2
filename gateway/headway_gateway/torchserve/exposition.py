"""Metrics as text for Prometheus, in the form that TorchServe writes.

Pure. Knows: the form: HELP and TYPE lines, a comma after the last label, values with a decimal point.
Must not know: where the numbers are, which metrics there are.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from typing import NamedTuple

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Sample(NamedTuple):
    """One line. `labels` in the order in which they are shown."""

    name: str
    labels: tuple[tuple[str, str], ...]
    value: float


class Family(NamedTuple):
    """A metric and its series."""

    type: str
    name: str
    unit: str
    samples: list[Sample]


def exposition(families: Iterable[Family], names: Collection[str] = ()) -> str:
    """The text. With `names` only samples that are called so, and their families."""
    return "".join(_written(family) for family in (_chosen(f, names) for f in families) if family)


def _chosen(family: Family, names: Collection[str]) -> Family | None:
    if not names:
        return family
    samples = [sample for sample in family.samples if sample.name in names]
    return family._replace(samples=samples) if samples else None


def _written(family: Family) -> str:
    what = f"Torchserve prometheus {family.type} metric with unit: {family.unit}"
    head = f"# HELP {family.name} {_escaped_help(what)}\n# TYPE {family.name} {family.type}\n"
    return head + "".join(map(_line, family.samples))


def _line(sample: Sample) -> str:
    labels = "".join(f'{name}="{_escaped(value)}",' for name, value in sample.labels)
    return f"{sample.name}{{{labels}}} {number(sample.value)}\n"


def number(value: float) -> str:
    """With a decimal point, always."""
    text = repr(float(value))
    if text[-1] not in "fn":  # inf, nan
        return text
    return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"


def _escaped(text: str) -> str:
    return _escaped_help(text).replace('"', '\\"')


def _escaped_help(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")
