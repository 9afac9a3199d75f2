"""Options made from settings: where a value may come from, and how a wrong one ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from headway.cli.options import settings_options
from headway.errors import SettingsError
from headway.settings import BrokerSettings

Run = Callable[..., Result]


@click.command("headway-broker")
@settings_options(BrokerSettings)
@click.option("--wrong", is_flag=True)
def door(settings: BrokerSettings, wrong: bool) -> None:
    if wrong:
        raise SettingsError("model_store: is not there")
    click.echo(f"{settings.heartbeat_ms} {settings.model_store} {settings.run_dir}")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept_logs: None) -> Run:
    """Calls the door in a folder without a settings file."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HEADWAY_CONFIG", "/dev/null")
    return lambda *arguments: CliRunner().invoke(door, arguments, catch_exceptions=False)


@pytest.fixture
def kept_logs() -> Iterator[None]:
    """The door sets up the root logger; pytest wants its own back."""
    import logging

    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    yield
    root.handlers[:] = before
    root.setLevel(level)


def test_the_command_line_beats_the_environment_beats_the_file_beats_the_default(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("--run-dir", "r").output == "500 models r\n"
    (tmp_path / "mine.toml").write_text('run_dir = "f"\n[broker]\nheartbeat_ms = 3\nmodel_store = "f"\n')
    assert run("--config", "mine.toml").output == "3 f f\n"
    monkeypatch.setenv("HEADWAY_BROKER_HEARTBEAT_MS", "2")
    monkeypatch.setenv("HEADWAY_RUN_DIR", "e")
    assert run("--config", "mine.toml").output == "2 f e\n"
    assert run("--config", "mine.toml", "--heartbeat-ms", "1").output == "1 f e\n"


def test_every_option_shows_its_purpose_and_its_default(run: Run) -> None:
    words = " ".join(run("--help").output.split())
    assert "--heartbeat-ms INTEGER a worker says something at least this often [default: 500]" in words
    assert "--config FILE" in words


def test_a_wrong_setting_ends_with_one_line_that_names_its_key(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADWAY_BROKER_HEARTBEET_MS", "2")
    result = run()
    assert result.exit_code == 78
    assert result.stderr == "headway-broker: HEADWAY_BROKER_HEARTBEET_MS is not a setting\n"


def test_a_settings_error_from_inside_the_command_ends_the_same_way(run: Run) -> None:
    result = run("--wrong")
    assert (result.exit_code, result.stderr) == (78, "headway-broker: model_store: is not there\n")


def test_an_unknown_log_level_is_a_wrong_setting(run: Run) -> None:
    result = run("--log-level", "loud")
    assert (result.exit_code, result.stderr.count("\n")) == (78, 1)
    assert "log_level" in result.stderr


def test_a_settings_file_that_is_not_there_is_named(run: Run) -> None:
    result = run("--config", "none.toml")
    assert (result.exit_code, result.stderr.count("\n")) == (78, 1)
    assert "none.toml" in result.stderr


def test_a_command_line_that_cannot_be_parsed_is_a_usage_error(run: Run) -> None:
    assert run("--heartbeat-ms", "soon").exit_code == 2
