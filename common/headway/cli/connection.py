"""The direct client for one command.

Knows: clients. Must not know: what is asked, how errors end (that is `output`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import click

from headway.cli.output import headway_errors
from headway.client import Client
from headway.settings import Shared

ASK_TIMEOUT_S = 2.0  # for questions to the broker itself, which answers at once or is not there


@contextmanager
def client_of(settings: Shared, address: str | None = None) -> Iterator[Client]:
    """A client; an error of Headway's inside the block ends the process with one line on stderr.

    Where a retry may help the exit code is `Exit.TEMPORARY`, else `Exit.FAILED`.
    """
    address = address or settings.callers_address
    with headway_errors(address), Client(address, settings=settings) as client:
        yield client


address_option = click.option("--address", help="the broker's address  [default: that in the run directory]")
