"""`headway torchserve`: TorchServe's command, with its options, its texts and its exit codes.

Knows: which files it looks at before anything is started, and what it says of them. Must not know: how a
server is run.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import click

from headway import __version__
from headway.cli._torchserve.arguments import Arguments, parse
from headway.cli._torchserve.background import in_background, tell
from headway.cli._torchserve.logfiles import SERVER
from headway.cli._torchserve.pidfile import PidFile
from headway.cli._torchserve.serving import planned, serve
from headway.cli.options import settings_errors
from headway.cli.up import check_installed
from headway.errors import SettingsError
from headway.exits import Exit
from headway.settings import Shared, read
from headway.torchserve import javaproperties, snapshots
from headway.torchserve.reading import CONFIG_FILE, LOGS, Given, Read, read_properties

VERSION = "0.12.0"  # what is spoken
ENDING_S = 30.0  # what the processes of a server that was killed need at most: they finish what they have


@click.command(
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@click.argument("words", nargs=-1, type=click.UNPROCESSED)
def command(words: tuple[str, ...]) -> None:
    """Serve TorchServe's archives and clients; takes TorchServe's command line."""
    arguments = parse(words)
    if arguments.version:
        click.echo(f"TorchServe Version is {VERSION} (Headway {__version__})")
        return
    pid_file = PidFile(Path(tempfile.gettempdir()))
    if arguments.stop:
        sys.exit(stop(pid_file))
    with settings_errors():
        sys.exit(start(arguments, words, pid_file))


def stop(pid_file: PidFile) -> int:
    """End the server that the file names, and wait for it."""
    if pid_file.is_orphan:
        click.echo("Removing orphan pid file.")
        pid_file.remove()
    pid = pid_file.running()
    if pid is None:
        click.echo("TorchServe is not currently running.")
        return Exit.OK
    try:
        ended = pid_file.end(pid)
    except OSError:
        click.echo("TorchServe already stopped.")
        return Exit.OK
    click.echo("TorchServe has stopped." if ended else "Stopping TorchServe took too long.")
    return Exit.OK if ended else Exit.FAILED


def start(arguments: Arguments, words: Sequence[str], pid_file: PidFile) -> int:
    """`words`: the arguments as they were given. Raises: SettingsError for properties that are wrong."""
    if pid_file.running() is not None:
        return _refused("TorchServe is already running, please use torchserve --stop to stop TorchServe.")
    patience_s = 0.0
    if pid_file.is_orphan:
        click.echo("Removing orphan pid file.")
        pid_file.remove()
        patience_s = ENDING_S
    if reason := _refusal(arguments):
        return _refused(reason)
    check_installed()
    found = found_properties(arguments)
    if reason := _refusal_of_stores(found):
        return _refused(reason)
    plan = planned(found, read(Shared), os.environ, patience_s)
    if arguments.tell >= 0:
        return serve(plan, pid_file, echo=False, on_ready=partial(tell, arguments.tell))
    if arguments.foreground:
        return serve(plan, pid_file, echo=True, on_ready=lambda: None)
    return in_background(words, Path(plan.properties.log_location) / SERVER)


def found_properties(arguments: Arguments) -> Read:
    """From the file that counts, the command line and the environment. Raises: SettingsError."""
    folder = Path.cwd()
    file = _file(arguments, folder)
    content = _content(file) if file else {}
    return read_properties(
        Given(
            folder=folder,
            file=content,
            line=arguments.properties,
            environment=os.environ,
            where=str(file or CONFIG_FILE),
            snapshots=not arguments.no_config_snapshots,
        )
    )


def _content(file: Path) -> dict[str, str]:
    try:
        content = javaproperties.parse(file.read_bytes())
    except OSError as error:
        raise SettingsError(f"{file}: {error.strerror}") from None
    except SettingsError as error:
        raise SettingsError(f"{file}: {error}") from None
    if snapshots.is_one(file):
        snapshots.check(file, content)
    return content


def _file(arguments: Arguments, folder: Path) -> Path | None:
    said = _said_config(arguments)
    if said:
        return folder / said
    logs = folder / (os.environ.get("LOG_LOCATION") or LOGS)
    last = None if arguments.no_config_snapshots else snapshots.latest(logs / snapshots.FOLDER)
    here = folder / CONFIG_FILE
    return last or (here if here.is_file() else None)


def _said_config(arguments: Arguments) -> str:
    return os.environ.get("TS_CONFIG_FILE", arguments.ts_config)


def _refusal(arguments: Arguments) -> str:
    """What is wrong with what the command line names, in TorchServe's words; "" for nothing."""
    temporary = os.environ.get("TEMP")
    if temporary and not Path(temporary).is_dir():
        return f"Invalid temp directory: {temporary}, please check TEMP environment variable."
    files = {"log-config": arguments.log_config, "ts-config": _said_config(arguments)}
    files["cpp-log-config"] = arguments.cpp_log_config
    for option, file in files.items():
        if file and not Path(file).is_file():
            return f"--{option} file not found: {file}"
    if arguments.plugins_path:
        return "--plugins-path: plugins of TorchServe are Java, and there is no Java here"
    return ""


def _refusal_of_stores(found: Read) -> str:
    stores = {"model": found.properties.model_store, "workflow": found.properties.workflow_store}
    if not stores["model"]:
        return "Missing mandatory parameter --model-store"
    for name, folder in stores.items():
        if not Path(folder).is_dir():
            return f"--{name}-store directory not found: {folder}"
    return ""


def _refused(reason: str) -> int:
    click.echo(reason)
    return Exit.FAILED
