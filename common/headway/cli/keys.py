"""`headway keys`: who may speak to a broker over TCP.

Knows: the terminal, which folder is meant. Must not know: what is in a key file (that is `headway.keys`).
Never prints a secret.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from rich.table import Table
from rich.text import Text

from headway import keys
from headway.cli.options import settings_options
from headway.cli.output import console
from headway.errors import SettingsError
from headway.exits import Exit
from headway.settings import Shared

ROLES = click.Choice([keys.CALLER, keys.WORKER, keys.BROKER])
SIDES = click.Choice(list(keys.FOLDERS))


@click.group(epilog="Every command takes --keys-dir, --state-dir, --run-dir and --config.")
def command() -> None:
    """Make, list, allow and revoke keys for TCP.

    \b
    on the broker's host    headway keys make --role broker
    on another host         headway keys make --role worker gpu2
    then copy               broker.pub to it, gpu2.pub to the broker's host
    on the broker's host    headway keys allow gpu2.pub

    Run it as the user whom the server runs as.
    """


@command.command()
@click.argument("name", default="")
@click.option("--role", type=ROLES, default=keys.CALLER, show_default=True, help="whose keys they are")
@settings_options(Shared)
def make(settings: Shared, name: str, role: str) -> None:
    """Make a key pair: NAME.key, which stays on this host, and NAME.pub, which others need."""
    if not name and role != keys.BROKER:
        raise click.UsageError("a pair needs a NAME, such as this host's")
    with _os_errors():
        pair, public = keys.make(settings.keys_path, name or keys.BROKER, role)
    click.echo(f"{pair}  secret, stays here")
    if role == keys.BROKER:
        click.echo(f"{public}  copy it to the keys folder of every other host")
    else:
        click.echo(f"{public}  on the broker's host: headway keys allow {public.name}")


@command.command(name="list")
@settings_options(Shared)
def list_(settings: Shared) -> None:
    """Show the keys in the folder: own pairs, others' public keys, and who is allowed. Never a secret.

    Ends with 1 if something is wrong with one of them.
    """
    entries = keys.listed(settings.keys_path)
    if not entries:
        click.echo(f"no keys in {settings.keys_path}")
        return
    console().print(table(entries))
    if any(entry.problem for entry in entries):
        raise SystemExit(int(Exit.FAILED))


@command.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--role", type=SIDES, help="caller or worker  [default: what the file says]")
@click.option("--name", default="", help="what it is called here  [default: the file's name]")
@settings_options(Shared)
def allow(settings: Shared, file: Path, role: str | None, name: str) -> None:
    """Let the owner of the public key in FILE speak to this host's broker, from now on."""
    with _os_errors():
        path = keys.allow(settings.keys_path, file, role or "", name)
    click.echo(f"{path}  allowed")


@command.command()
@click.argument("name")
@click.option("--role", type=SIDES, help="caller or worker  [default: both]")
@settings_options(Shared)
def revoke(settings: Shared, name: str, role: str | None) -> None:
    """Keep the owner of a key out, from now on: what it still says is dropped."""
    with _os_errors():
        paths = keys.revoke(settings.keys_path, name, role or "")
    for path in paths:
        click.echo(f"{path}  removed")


@contextmanager
def _os_errors() -> Iterator[None]:
    """A folder that cannot be written is a wrong setting."""
    try:
        yield
    except OSError as error:
        raise SettingsError(f"keys_dir: {error.filename}: {error.strerror}") from None


def table(entries: list[keys.Entry]) -> Table:
    """One row for each key."""
    shown = Table("name", "role", "what", "public key", "problem", box=None, header_style="bold")
    for entry in entries:
        what = "allowed" if entry.allowed else "own pair" if entry.pair else "public key"
        shown.add_row(
            Text(entry.name), entry.role, what, Text(entry.public), Text(entry.problem, style="red")
        )
    return shown
