"""`headway models`: what is loaded where.

Knows: the broker's answer to `models`, the terminal. Must not know: how models get loaded.
"""

from __future__ import annotations

import json
from typing import Any

import click
from rich.table import Table
from rich.text import Text

from headway.cli.connection import ASK_TIMEOUT_S, address_option, client_of
from headway.cli.options import settings_options
from headway.cli.output import console
from headway.cli.view import STYLES
from headway.settings import Shared
from headway.tracebacks import last_line


@click.command()
@settings_options(Shared)
@address_option
@click.option("--json", "as_json", is_flag=True, help="all that is known, as JSON")
def command(settings: Shared, address: str | None, as_json: bool) -> None:
    """Show the models of a running server: versions, states, copies. "*" marks default versions."""
    with client_of(settings, address) as client:
        models = client.models(ASK_TIMEOUT_S)
    if as_json:
        click.echo(json.dumps(models, indent=2, default=str))
    elif models:
        console().print(table(models))
    else:
        click.echo("no models")


def table(models: list[dict[str, Any]]) -> Table:
    """One row for each version."""
    shown = Table("model", "version", "state", "copies", "backend", "error", box=None, header_style="bold")
    for model in models:
        shown.add_row(
            Text(model["name"]),
            f"{model['version']} *" if model["default"] else model["version"],
            Text(model["state"], STYLES.get(model["state"], "")),
            f"{model['ready']}/{model['wanted']}",
            Text(model["backend"]),
            Text(last_line(model["error"])),
        )
    return shown
