"""`headway top`: the state of a server, again and again.

Knows: the terminal, the clock, two looks at the state. Must not know: what is drawn (`view`), the arithmetic
(`headway.rates`).
"""

from __future__ import annotations

import os
import select
import sys
import termios
import time
import tty
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import click
from rich.console import Group
from rich.live import Live
from rich.text import Text

from headway.cli.managed import managed
from headway.cli.output import console
from headway.cli.view import view
from headway.errors import HeadwayError
from headway.manage import Management
from headway.rates import Key, Traffic, traffic_between

ASK_TIMEOUT_S = 5.0
QUIT = set(b"qQ\x03\x04")  # or the end of the input


@click.command()
@click.option(
    "--interval",
    type=click.FloatRange(0.05, 3600),
    default=2.0,
    show_default=True,
    help="seconds between looks",
)
@click.option("--once", is_flag=True, help="print one view, of one interval, and end")
@managed
def command(management: Management, interval: float, once: bool) -> None:
    """Watch models, workers and devices. q or Ctrl-C ends it.

    Rates and latencies are those of the time between two looks: latencies are in the server, without HTTP.
    "*" marks default versions.
    """
    management.timeout_s = ASK_TIMEOUT_S
    looks = Looks(management)
    if once:
        looks.look()
        time.sleep(interval)
        looks.look()
        console().print(looks.picture())
        return
    with suppress(KeyboardInterrupt):
        _watch(looks, interval)


class Looks:
    """The last two looks at the state, and what is wrong if a look failed."""

    def __init__(self, management: Management) -> None:
        self._management = management
        self._state: dict[str, Any] = {}
        self._at = 0.0
        self._rates: Mapping[Key, Traffic] = {}
        self._away_since = 0.0
        self._wrong = ""

    def look(self) -> None:
        """Raises: HeadwayError."""
        state, at = self._management.state(), time.monotonic()
        self._rates = traffic_between(self._state or None, state, at - self._at)
        self._state, self._at = state, at
        self._away_since, self._wrong = 0.0, ""

    def try_look(self) -> None:
        """A server that is away is no reason to end: it may be on its way back."""
        try:
            self.look()
        except HeadwayError as error:
            self._away_since = self._away_since or time.monotonic()
            self._wrong = f"{type(error).__name__}: {error}"

    def picture(self) -> Group:
        note = ""
        if self._wrong:
            away_s = time.monotonic() - self._away_since
            note = f"no answer for {away_s:.0f} s; what is below is old: {self._wrong}"
        if not self._state:
            return Group(Text(f"waiting for {self._management.address}  {self._wrong}", "bold red"))
        return view(self._state, self._rates, note)


def _watch(looks: Looks, interval: float) -> None:
    with _keys() as pressed, Live(console=console(), screen=sys.stdout.isatty(), auto_refresh=False) as live:
        while True:
            looks.try_look()
            live.update(looks.picture(), refresh=True)
            if pressed(interval):
                return


@contextmanager
def _keys() -> Iterator[Any]:
    """A function that waits, and says whether somebody pressed q meanwhile."""
    if not sys.stdin.isatty():
        yield lambda seconds: time.sleep(seconds)
        return
    before = termios.tcgetattr(sys.stdin)
    try:
        tty.setcbreak(sys.stdin)
        yield _pressed
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def _pressed(seconds: float) -> bool:
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        ready, _, _ = select.select([sys.stdin], [], [], left)
        if ready:
            keys = os.read(sys.stdin.fileno(), 64)
            if not keys or set(keys) & QUIT:
                return True
    return False
