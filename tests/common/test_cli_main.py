"""The door: quick, complete, and lazy."""

from __future__ import annotations

import subprocess
import sys

import pytest
from click.testing import CliRunner

from headway import __version__
from headway.cli.main import COMMANDS, main

HEAVY = ("numpy", "zmq", "rich", "torch", "msgpack", "headway_broker", "headway_worker", "headway_gateway")
IMPORTED = """
import runpy, sys
sys.argv = ["headway", *sys.argv[1:]]
try:
    runpy.run_module("headway.cli.main", run_name="__main__")
except SystemExit as end:
    assert not end.code
print("imported:", *sorted({name.partition(".")[0] for name in sys.modules}))
"""


def imported_by(*arguments: str) -> set[str]:
    command = [sys.executable, "-c", IMPORTED, *arguments]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return set(output.rpartition("imported:")[2].split())


@pytest.mark.parametrize("option", ["--version", "--help"])
def test_version_and_help_import_nothing_heavy(option: str) -> None:
    assert not imported_by(option) & set(HEAVY)


def test_up_imports_no_room_and_no_torch() -> None:
    rooms = {"torch", "falcon", "headway_broker", "headway_worker", "headway_gateway"}
    assert not imported_by("up", "--help") & rooms


def test_the_version_is_that_of_the_package() -> None:
    assert CliRunner().invoke(main, ["--version"]).output == f"headway {__version__}\n"


def test_help_names_every_command_with_its_purpose() -> None:
    words = " ".join(CliRunner().invoke(main, ["--help"]).output.split())
    for name, purpose in COMMANDS.items():
        assert f"{name} {purpose}" in words
    assert CliRunner().invoke(main, []).output.startswith("Usage:")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_there_and_has_help(name: str) -> None:
    result = CliRunner().invoke(main, [name, "--help"])
    assert result.exit_code == 0
    assert "--run-dir" in result.output or name == "torchserve"  # which takes TorchServe's options alone


def test_an_unknown_command_is_a_usage_error() -> None:
    result = CliRunner().invoke(main, ["downwards"])
    assert result.exit_code == 2
    assert "downwards" in result.stderr
