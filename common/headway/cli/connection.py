"""The direct client for one command, and how its errors end the command.

Knows: clients, errors, exit codes. Must not know: what is asked.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click
from rich.console import Console

from headway.client import Client
from headway.errors import BrokerUnreachable, HeadwayError, SettingsError
from headway.exits import Exit
from headway.settings import Shared

ASK_TIMEOUT_S = 2.0  # for questions to the broker itself, which answers at once or is not there


@contextmanager
def client_of(settings: Shared, address: str | None = None) -> Iterator[Client]:
    """A client; an error of Headway's inside the block ends the process with one line on stderr.

    Where a retry may help the exit code is `Exit.TEMPORARY`, else `Exit.FAILED`.
    """
    address = address or settings.callers_address
    with headway_errors(address), Client(address) as client:
        yield client


@contextmanager
def headway_errors(address: str) -> Iterator[None]:
    """Ends the process as `client_of` does."""
    try:
        yield
    except SettingsError:
        raise  # that is for `options`
    except HeadwayError as error:
        where = f" ({address})" if isinstance(error, BrokerUnreachable) and address not in str(error) else ""
        click.echo(f"{type(error).__name__}: {error}{where}", err=True)
        raise SystemExit(int(Exit.TEMPORARY if error.retryable else Exit.FAILED)) from None


def console() -> Console:
    """Stdout with colours; as wide as it takes where it is no terminal, so that nothing is cut."""
    return Console(width=None if sys.stdout.isatty() else 10_000)


address_option = click.option("--address", help="the broker's address  [default: that in the run directory]")
