"""How a command speaks: its terminal, and how an error ends it.

Knows: errors, exit codes. Must not know: which command, whom it asks. Imports no client: a script that calls
`headway` twenty times waits for each import twenty times.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click
from rich.console import Console

from headway.errors import BrokerUnreachable, HeadwayError, SettingsError
from headway.exits import Exit


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
