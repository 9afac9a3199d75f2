"""Options of every command that speaks to the management address, and how it answers.

    @click.command()
    @managed
    @json_option
    def rescan(management: Management, as_json: bool) -> None: ...

Knows: where address and token are found, exit codes. Must not know: what is ordered.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

import click

from headway.cli.options import settings_options
from headway.cli.output import headway_errors
from headway.errors import SettingsError
from headway.manage import Management
from headway.settings import GatewaySettings, Shared, find_token, read

F = TypeVar("F", bound=Callable[..., Any])


def managed(command: F) -> F:
    """The command is called with `management=`. Its errors end the process with one line on stderr, and exit
    code 75 where trying again may help, 78 for a setting or token that is wrong or missing here, else 1."""

    @settings_options(Shared)
    @click.option("--management", "address", metavar="HOST:PORT", help="the management address")
    @click.option(
        "--token-file",
        type=click.Path(dir_okay=False, path_type=Path),
        help="file with the management token  [default: HEADWAY_TOKEN, else STATE_DIR/token]",
    )
    @wraps(command)
    def called(settings: Shared, address: str | None, token_file: Path | None, **options: Any) -> Any:
        address = address or read(GatewaySettings).management
        if not address:
            raise SettingsError("management: it is switched off; name --management HOST:PORT")
        management = Management(address, find_token(settings, token_file))
        with headway_errors(address):
            return command(management=management, **options)

    decorated: Any = called
    return decorated  # type: ignore[no-any-return]


def waiting(command: F) -> F:
    """`--wait` and `--timeout-s`, as the argument `wait_s`: None where it shall not wait."""

    @click.option("--wait", is_flag=True, help="come back when it is so")
    @click.option("--timeout-s", type=click.FloatRange(0.001, 86400), help="with --wait  [default: 60]")
    @wraps(command)
    def called(wait: bool, timeout_s: float | None, **options: Any) -> Any:
        if timeout_s is not None and not wait:
            raise click.UsageError("--timeout-s goes with --wait")
        return command(wait_s=(timeout_s or 60.0) if wait else None, **options)

    decorated: Any = called
    return decorated  # type: ignore[no-any-return]


json_option = click.option("--json", "as_json", is_flag=True, help="the answer as JSON")


def say(answer: dict[str, Any], line: str, as_json: bool) -> None:
    """The answer for a machine, or what it means in one line."""
    click.echo(json.dumps(answer, indent=2) if as_json else line)
