"""The commands over the management address: what they order, what they print, how they end."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from headway.cli.main import main
from tests.common.control import TOKEN, Control, controlled

Run = Callable[..., Result]


@pytest.fixture
def control() -> Iterator[Control]:
    with controlled() as server:
        yield server


@pytest.fixture
def run(control: Control, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("HEADWAY_TOKEN", TOKEN)
    monkeypatch.setenv("HEADWAY_GATEWAY_MANAGEMENT", control.address)
    monkeypatch.setenv("HEADWAY_STATE_DIR", str(tmp_path))
    monkeypatch.setenv("HEADWAY_CONFIG", "/dev/null")
    return lambda *arguments: CliRunner().invoke(main, arguments, catch_exceptions=False)


ORDERS = [
    (
        "scale m --min 2",
        ("POST", "/admin/models/m/scale", {"min": 2, "max": 2}),
        "m 1: 2 to 2 copies, 2 ready",
    ),
    (
        "scale m --min 1 --max 4 --version 2 --wait --timeout-s 1.5",
        (
            "POST",
            "/admin/models/m/scale",
            {"min": 1, "max": 4, "version": "2", "wait": True, "timeout_ms": 1500},
        ),
        "m 2: 1 to 4 copies, 1 ready",
    ),
    ("default m 2", ("POST", "/admin/models/m/default", {"version": "2"}), "m 2: serves"),
    (
        "split m 1=90 2=10",
        ("POST", "/admin/models/m/split", {"weights": {"1": 90.0, "2": 10.0}}),
        "m: split 1=90 2=10",
    ),
    ("split m", ("POST", "/admin/models/m/split", {"weights": {}}), "m: no split"),
    (
        "register m/2/ --wait",
        ("POST", "/admin/models", {"path": "m/2", "wait": True, "timeout_ms": 60000}),
        "m: registered 2",
    ),
    (
        "register https://x/m.zip --name n --version 3",
        ("POST", "/admin/models", {"url": "https://x/m.zip", "name": "n", "version": "3"}),
        "n: registered 3",
    ),
    ("unregister m", ("DELETE", "/admin/models/m", None), "m: unregistered 1"),
    ("unregister m --version 2", ("DELETE", "/admin/models/m/versions/2", None), "m: unregistered 2"),
    ("rescan", ("POST", "/admin/rescan", {}), "added: m/2\nbroken: o/1: no TOML"),
    ("drain w0", ("POST", "/admin/workers/w0/drain", {}), "w0: gone"),
    ("workers h1 3", ("PUT", "/admin/hosts/h1", {"workers": 3}), "h1: 3 workers"),
    ("workers h1 auto", ("PUT", "/admin/hosts/h1", {"workers": None}), "h1: as many workers as it says"),
]


@pytest.mark.parametrize(("line", "order", "said"), ORDERS)
def test_a_command_orders_one_thing_and_says_it_in_words_or_as_json(run, control, line, order, said):
    result = run(*line.split())
    assert (result.exit_code, result.output) == (0, said + "\n")
    assert control.orders == [order]
    assert isinstance(json.loads(run(*line.split(), "--json").output), dict)


@pytest.mark.parametrize(
    "line",
    ["scale m", "scale m --min -1", "scale m --min 2 --max 1", "split m 1", "split m 1=x", "split m =1",
     "split m 1=-1", "split m 1=inf", "register m --name n", "workers h1 many", "workers h1 -1",
     "drain w0 --timeout-s 3", "default m", "top --interval 0", "state --list everything"],
)  # fmt: skip
def test_a_line_that_means_nothing_is_a_usage_error_and_orders_nothing(run, control, line):
    assert run(*line.split()).exit_code == 2
    assert control.orders == []


@pytest.mark.parametrize(
    ("status", "error", "code"),
    [(404, "UnknownModel", 1), (400, "InvalidInput", 1), (503, "NotReady", 75),
     (503, "BrokerUnreachable", 75), (504, "DeadlineExceeded", 75), (401, "Unauthorized", 1),
     (500, "InternalError", 1)],
)  # fmt: skip
def test_an_error_is_one_line_and_its_exit_code_says_whether_to_try_again(run, control, status, error, code):
    control.answers["POST /admin/workers/w0/drain"] = (status, {"error": error, "message": "because"})
    result = run("drain", "w0")
    assert (result.exit_code, result.stdout) == (code, "")
    assert result.stderr.startswith(f"{error}: because") and result.stderr.count("\n") == 1


def test_nobody_there_is_75_and_names_the_address(run, control):
    result = run("state", "--management", "127.0.0.1:1")
    assert (result.exit_code, result.stderr.count("\n")) == (75, 1)
    assert "127.0.0.1:1" in result.stderr


# ---- the token


def test_the_token_is_in_the_state_directory_unless_something_else_is_said(run, tmp_path, monkeypatch):
    (tmp_path / "mine").write_text("wrong\n")
    assert run("rescan", "--token-file", str(tmp_path / "mine")).exit_code == 1
    monkeypatch.setenv("HEADWAY_TOKEN", "wrong")
    assert run("rescan").exit_code == 1
    (tmp_path / "mine").write_text(f"{TOKEN}\n")
    assert run("rescan", "--token-file", str(tmp_path / "mine")).exit_code == 0
    monkeypatch.delenv("HEADWAY_TOKEN")
    missing = run("rescan")
    assert (missing.exit_code, missing.stderr.count("\n")) == (78, 1)
    assert str(tmp_path / "token") in missing.stderr
    (tmp_path / "token").write_text(TOKEN)
    assert run("rescan").exit_code == 0
    assert run("rescan", "--state-dir", str(tmp_path / "none")).exit_code == 78


@pytest.mark.parametrize("content", [b"", b"\n", b"two words", b"\xff\xfe", "\u0142".encode()])
def test_a_file_without_a_token_is_named(run, tmp_path, content):
    (tmp_path / "mine").write_bytes(content)
    result = run("rescan", "--token-file", str(tmp_path / "mine"))
    assert (result.exit_code, str(tmp_path / "mine") in result.stderr) == (78, True)


def test_a_management_address_that_is_switched_off_is_said(run, monkeypatch):
    monkeypatch.setenv("HEADWAY_GATEWAY_MANAGEMENT", "")
    result = run("rescan")
    assert (result.exit_code, "switched off" in result.stderr) == (78, True)


# ---- state and describe


def test_the_state_is_printed_whole_in_lists_or_in_short(run, control):
    assert json.loads(run("state", "--json").output) == control.state
    assert run("state", "--list", "models").output.splitlines()[0].split("\t") == [
        "m", "1", "ready", "1", "1", "1", "1", "default", "1.0",
    ]  # fmt: skip
    assert run("state", "--list", "workers").output.splitlines()[2].split("\t") == [
        "x0", "h2", "idle", "-", "cpu",
    ]  # fmt: skip
    assert run("state", "--list", "agents").output == "a1\th1\t2\t8\t0\n"
    assert run("state", "--list", "devices").output == "h1\tcpu\t0\t0\tw0\n"
    assert "w1" in run("state").output and control.orders == []


def test_a_list_has_its_fields_whatever_a_name_has_in_it(run, control):
    control.state["workers"] = [{"name": "a\tb\nc", "host": "", "state": "idle", "device": "cpu"}]
    assert run("state", "--list", "workers").output == "a b c\t-\tidle\t-\tcpu\n"


def test_a_model_is_described_with_its_copies_and_errors(run, control):
    copies = [{"worker": "w0", "state": "failed", "error": "T\nOSError: x"}]
    more = {"copies": copies, "scaling": "queue waits 2 s", "error": "T\nOSError: x"}
    control.state["models"] = [{**control.versions("m")[0], **more}]
    output = run("describe", "m").output
    for text in (
        "m 1, default: ready",
        "1 ready of 1 (from 1 to 1)",
        "queue waits 2 s",
        "100%",
        "OSError: x",
    ):
        assert text in output
    assert "\nT\n" not in output
    assert json.loads(run("describe", "m", "--json").output)[0]["name"] == "m"
    assert run("describe", "nobody").output == "no versions\n"
