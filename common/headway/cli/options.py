"""Command-line options made from a settings dataclass, for every door.

    @click.command()
    @settings_options(BrokerSettings)
    def main(settings: BrokerSettings) -> None: ...

gives `--run-dir`, `--model-store` and so on, one for each field, and `--config FILE`; reads the settings
(command line over environment over file over default), sets up the logs, and calls `main` with the
result. A `SettingsError`, from there or from inside `main`, ends the process with one line and `Exit.CONFIG`.

Knows: click, how a field becomes an option. Must not know: what a setting is for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import MISSING, Field, fields
from functools import wraps
from pathlib import Path
from typing import Any, NoReturn, TypeVar, get_type_hints

import click

from headway import logs
from headway.errors import SettingsError
from headway.exits import Exit
from headway.settings import Shared, read

F = TypeVar("F", bound=Callable[..., Any])


def settings_options(cls: type[Shared]) -> Callable[[F], F]:
    """Options for every field of `cls`, and `--config`; the command is called with `settings=`."""
    names = [f.name for f in fields(cls)]

    def decorate(command: F) -> F:
        @wraps(command)
        def called(config: Path | None, **options: Any) -> Any:
            given = {name: options.pop(name) for name in names}
            with settings_errors():
                settings = read(cls, given, config)
                logs.setup(settings.log_level, settings.log_format)
                return command(settings=settings, **options)

        decorated: Any = called
        for name in reversed(names):
            decorated = setting_option(cls, name)(decorated)
        return config_option(decorated)  # type: ignore[no-any-return]

    return decorate


def setting_option(
    cls: type[Shared], name: str, *, flag: str | None = None, help: str | None = None
) -> Callable[[F], F]:
    """The option for one field; its value is None where the command line does not name it."""
    field: Field[Any] = next(f for f in fields(cls) if f.name == name)
    return click.option(
        flag or f"--{name.replace('_', '-')}",
        name,
        type=_click_type(get_type_hints(cls)[name]),
        default=None,  # "not said", so that the environment and the file get a word
        help=_help(field, help),
    )


def config_option(command: F) -> F:
    """`--config FILE`, as the argument `config`."""
    return click.option(
        "--config",
        type=click.Path(dir_okay=False, path_type=Path),
        default=None,
        help="settings file  [default: headway.toml, else /etc/headway/headway.toml]",
    )(command)


@contextmanager
def settings_errors() -> Iterator[None]:
    """Makes a SettingsError the end of the process: one line on stderr, `Exit.CONFIG`."""
    try:
        yield
    except SettingsError as error:
        end(Exit.CONFIG, str(error))


def end(code: Exit, reason: str) -> NoReturn:
    """Ends the process with one line on stderr that begins with the command's name."""
    context = click.get_current_context(silent=True)
    click.echo(f"{context.command_path if context else 'headway'}: {reason}", err=True)
    raise SystemExit(int(code))


def _click_type(wanted: type) -> Any:
    return click.Path(path_type=Path) if wanted is Path else wanted


def _help(field: Field[Any], help: str | None) -> str:
    default = field.default if field.default_factory is MISSING else field.default_factory()
    shown = f"  [default: {default}]" if str(default) else ""
    return (help or field.metadata["help"]) + shown
