"""`headway state` and `headway describe`: what a running server knows, for people and for scripts.

Knows: the fields of PROTOCOL.md's `state`. Must not know: how it is asked for.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import click
from rich.table import Table
from rich.text import Text

from headway.cli.managed import json_option, managed
from headway.cli.output import console
from headway.cli.view import STYLES, view
from headway.manage import Management
from headway.tracebacks import last_line

Row = dict[str, Any]


def _model_fields(m: Row) -> list[Any]:
    default = "default" if m.get("default") else "-"
    counts = [m.get("ready", 0), m.get("wanted", 0), m.get("min", 0), m.get("max", 0)]
    return [m["name"], m["version"], m["state"], *counts, default, m.get("traffic", 0)]


def _worker_fields(w: Row) -> list[Any]:
    draining = "draining" if w.get("draining") else "-"
    return [w["name"], w["host"], w.get("state", ""), draining, w.get("device_id") or w.get("device", "")]


def _device_fields(d: Row) -> list[Any]:
    memory = [d.get("memory_used_bytes") or 0, d.get("memory_bytes") or 0]
    return [d["host"], d.get("device_id", ""), *memory, ",".join(d.get("workers", []))]


def _agent_fields(a: Row) -> list[Any]:
    return [a["name"], a["host"], a.get("wanted", 0), a.get("workers_max", 0), len(a.get("workers", []))]


LISTS: dict[str, Callable[[Row], list[Any]]] = {
    "models": _model_fields,
    "workers": _worker_fields,
    "devices": _device_fields,
    "agents": _agent_fields,
}


@click.command()
@json_option
@click.option(
    "--list",
    "listed",
    type=click.Choice(list(LISTS)),
    help="one line each, fields between tabs, for scripts: models (name, version, state, ready, wanted, min, "
    "max, default or -, traffic), workers (name, host, state, draining or -, device), devices (host, device, "
    "bytes used, bytes, workers), agents (name, host, wanted, at most, running)",
)
@managed
def state(management: Management, as_json: bool, listed: str | None) -> None:
    """Print all that a running server knows. Without an option in short, as `headway top` shows it."""
    found = management.state()
    if as_json:
        click.echo(json.dumps(found, indent=2))
    elif listed:
        for row in found.get(listed, []):
            click.echo("\t".join(_field(value) for value in LISTS[listed](row)))
    else:
        console().print(view(found, {}))


def _field(value: Any) -> str:
    return " ".join(str(value).split()) or "-"


@click.command()
@click.argument("model")
@click.option("--version", default="", help="only this version")
@json_option
@managed
def describe(management: Management, model: str, version: str, as_json: bool) -> None:
    """Show MODEL's versions: copies, where they sit, queues and the last errors."""
    found = management.describe(model, version)
    if as_json:
        click.echo(json.dumps(found, indent=2))
    elif not found:
        click.echo("no versions")
    else:
        for one in found:
            _print(one)


def _print(model: Row) -> None:
    """One version: its facts, a line each, and its copies."""
    out = console()
    state_ = Text(str(model.get("state")), STYLES.get(str(model.get("state")), ""))
    default = ", default" if model.get("default") else ""
    out.print(Text(f"{model['name']} {model['version']}{default}: ", "bold") + state_)
    for label, value in _facts(model):
        out.print(Text(f"  {label:9} {value}"))
    if copies := model.get("copies"):
        out.print(_copies(copies))


def _facts(model: Row) -> list[tuple[str, str]]:
    stats = model.get("stats") or {}
    least, most = model.get("min"), model.get("max")
    bounds = "" if least is None else f" (from {least} to {most})"
    outcomes = ", ".join(f"{name} {count}" for name, count in (stats.get("outcomes") or {}).items())
    facts = [
        ("copies", f"{model.get('ready', 0)} ready of {model.get('wanted', 0)}{bounds}"),
        ("scaling", str(model.get("scaling") or "")),
        ("traffic", f"{model['traffic']:.0%}" if "traffic" in model else ""),
        (
            "queue",
            f"{stats['queue']} requests, {stats.get('queue_bytes', 0)} bytes" if "queue" in stats else "",
        ),
        ("outcomes", outcomes),
        ("batches", _batches(stats.get("batch_rows"))),
        ("backend", str(model.get("backend") or "")),
        ("error", last_line(str(model.get("error") or ""))),
    ]
    return [(label, value) for label, value in facts if value]


def _batches(rows: Row | None) -> str:
    count = sum(rows["counts"]) if rows else 0
    return f"{count}, {rows['sum'] / count:.1f} rows each" if rows and count else ""


def _copies(copies: list[Row]) -> Table:
    table = Table("worker", "state", "error", box=None, header_style="bold")
    for copy in copies:
        shown = Text(str(copy.get("state")), STYLES.get(str(copy.get("state")), ""))
        table.add_row(Text(str(copy.get("worker"))), shown, Text(last_line(str(copy.get("error") or ""))))
    return table
