"""The picture that `headway top` draws: models, workers, devices and events as tables.

A state and its rates in, something for rich to print out. Knows: the fields of PROTOCOL.md's `state`.
Must not know: who asked, when, the terminal.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from headway.rates import UNKNOWN, Key, Traffic
from headway.tracebacks import last_line

Row = Mapping[str, Any]
EVENTS_SHOWN = 8
NUMBERS = ("traffic", "ready", "queue", "rate/s", "fail/s", "p50 ms", "p99 ms", "batches", "memory", "busy")
STYLES = {"ready": "green", "loading": "yellow", "waiting": "yellow", "failed": "red"}
WORKER_STYLES = {"busy": "green", "idle": "green", "spare": "green", "loading": "yellow", "leaving": "yellow"}


def view(state: Row, rates: Mapping[Key, Traffic], note: str = "") -> Group:
    """All of it. `note` is a line for what is wrong just now."""
    parts: list[Any] = [_head(state)]
    if note:
        parts.append(Text(note, "bold red"))
    parts.append(_models(state.get("models", []), rates))
    parts.append(_workers(state.get("workers", [])))
    if state.get("devices"):
        parts.append(_devices(state["devices"]))
    if state.get("agents"):
        parts.append(_agents(state["agents"]))
    if state.get("events"):
        parts.append(_events(state["events"][-EVENTS_SHOWN:]))
    return Group(*[item for part in parts for item in (part, Text())][:-1])


def _head(state: Row) -> Text:
    broker = state.get("broker", {})
    up = _span(broker["uptime_s"]) if "uptime_s" in broker else "?"
    words = [f"headway {broker.get('version', '')}".strip(), f"on {broker.get('host', '?')}", f"up {up}"]
    words.append(f"{broker.get('callers', 0)} callers")
    restored = last_line(str(broker.get("restored") or ""))
    return Text("  ".join(words), "bold") + (Text(f"  {restored}", "yellow") if restored else Text())


def _table(*columns: str) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(column, justify="right" if column in NUMBERS else "left", no_wrap=column != "notes")
    return table


def _models(models: list[Row], rates: Mapping[Key, Traffic]) -> Table:
    table = _table(
        "model", "state", "traffic", "ready", "queue", "rate/s", "fail/s", "p50 ms", "p99 ms", "notes"
    )
    for model in models:
        found = rates.get((model["name"], model["version"]), UNKNOWN)
        table.add_row(
            Text(f"{model['name']} {model['version']}{' *' if model.get('default') else ''}"),
            _state(model.get("state"), STYLES),
            _percent(model.get("traffic")),
            _copies(model),
            _number((model.get("stats") or {}).get("queue")),
            _rate(found.rate),
            Text(_rate(found.failing), "red" if found.failing else ""),
            _ms(found.p50_s),
            _ms(found.p99_s),
            Text(last_line(str(model.get("error") or model.get("scaling") or ""))[:100]),
        )
    return table


def _copies(model: Row) -> Text:
    ready, wanted = model.get("ready", 0), model.get("wanted", 0)
    return Text(f"{ready}/{wanted}", "" if ready >= wanted else "yellow")


def _workers(workers: list[Row]) -> Table:
    table = _table("worker", "host", "state", "device", "busy", "batches", "memory", "copies")
    for worker in workers:
        state = "draining" if worker.get("draining") else worker.get("state")
        table.add_row(
            Text(str(worker.get("name"))),
            Text(str(worker.get("host", ""))),
            _state(state, WORKER_STYLES),
            Text(_device(worker)),
            _percent(worker.get("busy")),
            _number(worker.get("batches")),
            _memory(worker.get("memory_used_bytes"), worker.get("memory_bytes")),
            Text(" ".join(map(str, worker.get("copies", [])))),
        )
    return table


def _device(worker: Row) -> str:
    """With the share, and whether it is a client of CUDA MPS."""
    words = [str(worker.get("device", ""))]
    if worker.get("share") not in (None, 0, 100):
        words.append(f"{worker['share']}%")
    if worker.get("cuda_mps") == "client":
        words.append("CUDA MPS")
    return " ".join(words)


def _devices(devices: list[Row]) -> Table:
    table = _table("device", "host", "name", "memory", "workers")
    for device in devices:
        table.add_row(
            Text(str(device.get("device_id") or device.get("device"))),
            Text(str(device.get("host", ""))),
            Text(str(device.get("name") or "")),
            _memory(device.get("memory_used_bytes"), device.get("memory_bytes")),
            Text(" ".join(map(str, device.get("workers", [])))),
        )
    return table


def _agents(agents: list[Row]) -> Table:
    table = _table("agent", "host", "workers", "notes")
    for agent in agents:
        workers = agent.get("workers", [])
        reasons = [f"{w['name']}: {w['reason']}" for w in workers if w.get("reason")]
        running = sum(w.get("state") not in ("ended", "gone", "failed") for w in workers)
        table.add_row(
            Text(str(agent.get("name"))),
            Text(str(agent.get("host", ""))),
            f"{running} of {agent.get('wanted', '?')}, at most {agent.get('workers_max', '?')}",
            Text("; ".join(reasons)[:100]),
        )
    return table


def _events(events: list[Any]) -> Table:
    table = _table("time", "event", "notes")
    for at, event, facts in events:
        shown = "  ".join(f"{key}={value}" for key, value in dict(facts).items())
        table.add_row(time.strftime("%H:%M:%S", time.localtime(at)), Text(str(event)), Text(shown[:150]))
    return table


def _state(state: Any, styles: Mapping[str, str]) -> Text:
    return Text(str(state or ""), styles.get(str(state), ""))


def _number(value: Any) -> str:
    return "" if value is None else str(value)


def _percent(part: float | None) -> str:
    return "" if part is None else f"{part:.0%}"


def _rate(rate: float | None) -> str:
    return "-" if rate is None else f"{rate:.1f}" if rate < 100 else f"{rate:,.0f}"


def _ms(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    ms = seconds * 1000
    return f"{ms:.2f}" if ms < 10 else f"{ms:.1f}" if ms < 100 else f"{ms:,.0f}"


def _memory(used: float | None, whole: float | None) -> str:
    if not whole:
        return ""
    return f"{(used or 0) / (1 << 30):.1f} of {whole / (1 << 30):.1f} GiB"


def _span(seconds: float) -> str:
    minutes, hours = int(seconds) // 60, int(seconds) // 3600
    if hours >= 48:
        return f"{hours // 24} days"
    return f"{hours} h {minutes % 60} min" if hours else f"{minutes} min" if minutes else f"{seconds:.0f} s"
