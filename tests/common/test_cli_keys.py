"""`headway keys`: a pair is made, carried over, allowed, shown and revoked; no secret is ever printed."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from headway.cli.main import main
from headway.exits import Exit
from headway.keys import load_certificate


@pytest.fixture
def keys(tmp_path: Path):
    def run(*arguments: str, at: str = "keys") -> Result:
        return CliRunner().invoke(main, ["keys", *arguments, "--keys-dir", str(tmp_path / at)])

    return run


def test_what_an_operator_does_on_two_hosts(keys, tmp_path: Path) -> None:
    said = [keys("make", "--role", "broker"), keys("make", "--role", "worker", "gpu2", at="far")]
    said += [keys("allow", str(tmp_path / "far" / "gpu2.pub")), keys("list"), keys("list", at="far")]
    assert [result.exit_code for result in said] == [0] * 5
    assert "headway keys allow gpu2.pub" in said[1].output
    assert [line.split()[:3] for line in said[3].output.splitlines()[1:]] == [
        ["broker", "broker", "own"],
        ["gpu2", "worker", "allowed"],
    ]
    said.append(keys("revoke", "gpu2"))
    assert not list((tmp_path / "keys" / "workers").iterdir())
    for file in (tmp_path / "keys" / "broker.key", tmp_path / "far" / "gpu2.key"):
        _, secret = load_certificate(file)
        assert secret and not any(secret.decode() in result.output for result in said)


def test_the_list_of_an_empty_folder_says_so(keys) -> None:
    assert keys("list").output.startswith("no keys in ")


def test_the_list_ends_with_an_error_when_a_secret_is_open_to_others(keys, tmp_path: Path) -> None:
    keys("make", "web1")
    (tmp_path / "keys" / "web1.key").chmod(0o644)
    result = keys("list")
    assert result.exit_code == Exit.FAILED
    assert "others can read" in result.output


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["make"], Exit.USAGE, "needs a NAME"),
        (["make", "a/b"], Exit.CONFIG, "not a name"),
        (["make", "--role", "king", "x"], Exit.USAGE, "king"),
        (["revoke", "nobody"], Exit.CONFIG, "no key is allowed as nobody"),
        (["allow", "/nonexistent.pub"], Exit.CONFIG, "/nonexistent.pub: No such file"),
    ],
)
def test_mistakes_end_with_one_line(keys, arguments: list[str], code: Exit, said: str) -> None:
    result = keys(*arguments)
    assert result.exit_code == code
    assert said in result.stderr


def test_a_folder_that_cannot_be_made_is_a_wrong_setting(keys, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("a file")
    result = keys("make", "web1")
    assert result.exit_code == Exit.CONFIG
    assert "keys_dir: " in result.stderr
