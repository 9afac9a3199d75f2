"""`headway models` and `headway infer`: what they print, and how they end without a broker."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from rich.console import Console

from headway.body import Body
from headway.cli import infer, models
from headway.cli.main import main


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (infer, models):
        monkeypatch.setattr(module, "ASK_TIMEOUT_S", 0.1)


def model(**facts: Any) -> dict[str, Any]:
    plain = {"name": "m", "version": "1", "default": True, "state": "ready", "ready": 1, "wanted": 2}
    return {**plain, "backend": "python", "error": "", **facts}


def test_the_table_marks_the_default_and_shows_the_last_line_of_an_error() -> None:
    output = io.StringIO()
    shown = [
        model(),
        model(version="2", default=False, state="failed", error="Traceback\nOSError: [Errno 2]"),
    ]
    Console(file=output, width=200).print(models.table(shown))
    rows = [line.split() for line in output.getvalue().splitlines()]
    assert rows[1] == ["m", "1", "*", "ready", "1/2", "python"]
    assert rows[2] == ["m", "2", "failed", "1/2", "python", "OSError:", "[Errno", "2]"]


@pytest.mark.parametrize("command", [["models"], ["infer", "m", "--json", "[1]"]])
def test_without_a_broker_a_command_says_so_and_that_a_retry_may_help(
    command: list[str], tmp_path: Path
) -> None:
    address = f"ipc://{tmp_path}/none.sock"
    result = CliRunner().invoke(main, [*command, "--address", address])
    assert result.exit_code == 75
    assert result.stderr.startswith("BrokerUnreachable: ")
    assert result.stderr.endswith(f"({address})\n")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--json", "1", "--image", __file__],
        ["--json", "1", "--batched"],
        ["--input", "x"],
        ["--input", "x=/no/such.npy"],
        ["--input", f"x={__file__}"],
    ],
)
def test_a_request_that_cannot_be_made_is_a_usage_error(options: list[str]) -> None:
    assert CliRunner().invoke(main, ["infer", "m", *options]).exit_code == 2


def test_a_json_answer_is_indented(capsys: pytest.CaptureFixture[str]) -> None:
    infer.show_body(Body(b'{"cat":0.5}', "application/json"), raw=False)
    output = capsys.readouterr().out
    assert json.loads(output) == {"cat": 0.5}
    assert output == '{\n  "cat": 0.5\n}\n'


def test_a_raw_answer_is_printed_as_it_came(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    infer.show_body(Body(b'{"cat":0.5}', "application/json"), raw=True)
    assert capfdbinary.readouterr().out == b'{"cat":0.5}'


def test_an_answer_that_is_no_text_is_printed_as_it_came(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    infer.show_body(Body(b"\xff\x00", "image/png"), raw=False)
    assert capfdbinary.readouterr().out == b"\xff\x00"


def test_arrays_are_shown_with_dtype_and_shape(capsys: pytest.CaptureFixture[str]) -> None:
    infer.show_tensors({"y": np.array([1, 2], np.int32), "large": np.zeros((100, 100), np.float32)})
    output = capsys.readouterr().out
    assert output.startswith("y  int32 [2]\n  [1 2]\nlarge  float32 [100, 100]\n")
    assert len(output) < 1000
