"""The operators' scripts, run as they are against a management server of the tests' own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.common.control import TOKEN, Control, controlled, model, worker

SCRIPTS = Path(__file__).parents[2] / "scripts"
NAMES = ("scale-model", "add-workers", "drain-workers", "roll-forward", "roll-back", "rolling-restart",
         "support-bundle")  # fmt: skip
CHANGING = {
    "scale-model": ["m", "1", "2"],
    "add-workers": ["h1"],
    "drain-workers": ["--host", "h1"],
    "roll-forward": ["m", "2", "--steps", "10,50"],
    "roll-back": ["m", "1"],
    "rolling-restart": [],
}
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def control() -> Iterator[Control]:
    with controlled() as server:
        yield server


@pytest.fixture
def environment(control: Control, tmp_path: Path) -> dict[str, str]:
    """A `headway` that is found as an operator's is, and where it finds the server."""
    command = tmp_path / "bin" / "headway"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m headway "$@"\n')
    command.chmod(0o755)
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "token").write_text(TOKEN)
    (tmp_path / "run").mkdir()
    found = {k: v for k, v in os.environ.items() if not k.startswith("HEADWAY")}
    return {
        **found,
        "HEADWAY": str(command),
        "HEADWAY_GATEWAY_MANAGEMENT": control.address,
        "HEADWAY_STATE_DIR": str(tmp_path / "state"),
        "HEADWAY_RUN_DIR": str(tmp_path / "run"),
    }


@pytest.fixture
def run(environment: dict[str, str], tmp_path: Path) -> Run:
    def call(name: str, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        command = [str(SCRIPTS / name), *arguments]
        environment_ = {**environment, **more}
        return subprocess.run(
            command, capture_output=True, text=True, timeout=60, env=environment_, cwd=tmp_path
        )

    return call


def said(control: Control) -> list[str]:
    """What was ordered, in short."""
    shown = []
    for method, path, body in control.orders:
        facts = {k: v for k, v in (body or {}).items() if k not in ("wait", "timeout_ms")}
        shown.append(f"{method} {path.removeprefix('/admin')} {facts or ''}".strip())
    return shown


# ---- all of them


@pytest.mark.parametrize("name", NAMES)
def test_help_tells_usage_options_and_exit_codes(run, control, name):
    result = run(name, "--help")
    assert (result.returncode, result.stderr) == (0, "")
    for text in (f"scripts/{name}", "--management", "Exit codes: 0", "2 the command"):
        assert text in result.stdout
    assert ("--dry-run" in result.stdout) == (name in CHANGING)
    assert not result.stdout.startswith("#") and "_ops" not in result.stdout
    assert control.orders == [] and control.looks == 0


@pytest.mark.parametrize("name", CHANGING)
def test_a_dry_run_says_what_it_would_order_and_orders_nothing(run, control, name):
    control.state["models"].append(model("m", "2"))
    result = run(name, *CHANGING[name], "--dry-run")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith("would run: headway ")
    assert control.orders == []


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        *((name, ["--nonsense"]) for name in NAMES),
        *((name, [*CHANGING[name], "--timeout-s"]) for name in CHANGING),
        *((name, [*CHANGING[name], "--timeout-s", "soon"]) for name in CHANGING),
        ("scale-model", ["m"]),
        ("scale-model", ["m", "x"]),
        ("scale-model", ["m", "1", "2", "3"]),
        ("add-workers", []),
        ("add-workers", ["h1", "-1"]),
        ("drain-workers", []),
        ("drain-workers", ["w0", "--host", "h1"]),
        ("roll-forward", ["m"]),
        ("roll-forward", ["m", "2", "--steps", "10,x"]),
        ("roll-forward", ["m", "2", "--steps", "0"]),
        ("roll-forward", ["m", "2", "--steps", "100"]),
        ("roll-back", []),
        ("rolling-restart", ["w0"]),
        ("support-bundle", ["a", "b"]),
    ],
)
def test_a_line_that_means_nothing_ends_with_2_and_orders_nothing(run, control, name, arguments):
    result = run(name, *arguments)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith(f"{name}: ") and control.orders == []


@pytest.mark.parametrize("name", CHANGING)
def test_a_server_that_is_away_is_75_and_a_missing_token_78(run, control, tmp_path, name):
    away = run(name, *CHANGING[name], "--management", "127.0.0.1:1")
    assert (away.returncode, "127.0.0.1:1" in away.stderr) == (75, True)
    (tmp_path / "state" / "token").unlink()
    assert run(name, *CHANGING[name]).returncode == 78
    (tmp_path / "mine").write_text("wrong")
    assert run(name, *CHANGING[name], "--token-file", "mine").returncode == 1
    assert control.orders == []


# ---- each of them


def test_scale_model_sets_both_bounds(run, control):
    result = run("scale-model", "m", "1", "4", "--version", "1", "--wait", "--timeout-s", "7")
    assert (result.returncode, result.stdout) == (0, "m 1: 1 to 4 copies, 1 ready\n")
    body = {"min": 1, "max": 4, "version": "1", "wait": True, "timeout_ms": 7000}
    assert control.orders == [("POST", "/admin/models/m/scale", body)]
    assert run("scale-model", "m", "3").stdout == "m 1: 3 to 3 copies, 3 ready\n"


def test_add_workers_adds_to_what_the_agent_is_to_run(run, control):
    assert run("add-workers", "h1").returncode == 0
    assert run("add-workers", "h1", "3").returncode == 0
    assert said(control) == ["PUT /hosts/h1 {'workers': 3}", "PUT /hosts/h1 {'workers': 5}"]


def test_add_workers_needs_an_agent(run, control):
    result = run("add-workers", "h2")
    assert (result.returncode, "no agent on h2" in result.stderr, control.orders) == (1, True, [])


def test_add_workers_waits_until_they_have_joined(run, control):
    result = run("add-workers", "h1", "1", "--wait", "--timeout-s", "1")
    assert (result.returncode, "within 1 s" in result.stderr) == (1, True)
    control.state["workers"].append(worker("w2"))
    assert run("add-workers", "h1", "1", "--wait", "--timeout-s", "5").stdout.endswith("3 workers on h1\n")


def test_drain_workers_drains_those_that_are_named_in_their_order(run, control):
    assert run("drain-workers", "w1", "x0").returncode == 0
    assert said(control) == ["POST /workers/w1/drain", "POST /workers/x0/drain"]
    assert all(body["wait"] for *_, body in control.orders)


def test_drain_workers_of_a_host_first_tells_its_agent(run, control):
    assert run("drain-workers", "--host", "h1").returncode == 0
    assert said(control) == [
        "PUT /hosts/h1 {'workers': 0}", "POST /workers/w0/drain", "POST /workers/w1/drain",
    ]  # fmt: skip
    control.orders.clear()
    assert run("drain-workers", "--host", "h2").returncode == 0
    assert said(control) == ["POST /workers/x0/drain"]
    assert run("drain-workers", "--host", "h3").returncode == 1


def test_drain_workers_goes_on_when_the_agent_was_quicker(run, control):
    gone = (404, {"error": "UnknownModel", "message": "there is no worker 'w0'"})
    control.answers["POST /admin/workers/w0/drain"] = gone
    assert run("drain-workers", "--host", "h1").returncode == 1  # it is still there
    do = control.do

    def quicker(method: str, path: str, body: Any) -> Any:
        if path == "/admin/hosts/h1":
            control.state["workers"] = [w for w in control.state["workers"] if w["name"] != "w0"]
        return do(method, path, body)

    control.do = quicker  # type: ignore[method-assign]
    assert run("drain-workers", "--host", "h1").returncode == 0
    assert said(control)[-1] == "POST /workers/w1/drain"
    assert run("drain-workers", "w0").returncode == 1


FORWARD = [
    "POST /models/m/default {'version': '1'}",
    "POST /models {'path': 'm/2'}",
]


def test_roll_forward_registers_then_moves_all_traffic(run, control):
    result = run("roll-forward", "m", "2")
    assert result.returncode == 0 and "m 2 serves; scripts/roll-back m goes back to 1" in result.stdout
    assert said(control) == [
        *FORWARD,
        "POST /models/m/default {'version': '2'}",
        "POST /models/m/split {'weights': {}}",
    ]
    assert control.orders[1][2]["wait"] is True


def test_roll_forward_may_go_by_steps(run, control):
    result = run("roll-forward", "m", "2", "--steps", "10,50", "--pause-s", "0")
    assert result.returncode == 0
    assert said(control) == [
        *FORWARD,
        "POST /models/m/split {'weights': {'1': 90.0, '2': 10.0}}",
        "POST /models/m/split {'weights': {'1': 50.0, '2': 50.0}}",
        "POST /models/m/default {'version': '2'}",
        "POST /models/m/split {'weights': {}}",
    ]


def test_roll_forward_of_a_models_first_version_has_nothing_to_split(run, control):
    assert run("roll-forward", "new", "1", "--steps", "10").returncode == 0
    assert said(control)[:2] == [
        "POST /models {'path': 'new/1'}",
        "POST /models/new/default {'version': '1'}",
    ]


BACK = ["POST /models/m/split {'weights': {}}", "POST /models/m/default {'version': '1'}"]


def test_roll_forward_leaves_the_old_version_when_the_new_one_does_not_load(run, control):
    control.failing.add("m/2")
    result = run("roll-forward", "m", "2")
    assert result.returncode == 75 and "boom" in result.stderr and "going back to m 1" in result.stderr
    assert said(control) == [*FORWARD, *BACK]
    assert [m["version"] for m in control.versions("m") if m["default"]] == ["1"]


def test_roll_forward_goes_back_when_the_new_version_fails_under_traffic(run, control):
    do = control.do

    def failing(method: str, path: str, body: Any) -> Any:
        if path.endswith("/split") and body["weights"].get("2") == 50:
            control.versions("m")[-1].update(state="failed", ready=0)
        return do(method, path, body)

    control.do = failing  # type: ignore[method-assign]
    result = run("roll-forward", "m", "2", "--steps", "10,50", "--pause-s", "0")
    assert result.returncode == 1 and "not ready any more at 50 %" in result.stderr
    assert said(control)[-2:] == BACK
    assert "POST /models/m/default {'version': '2'}" not in said(control)


def test_roll_forward_goes_back_when_traffic_cannot_be_moved(run, control):
    do = control.do

    def refusing(method: str, path: str, body: Any) -> Any:
        if path.endswith("/default") and body["version"] == "2":
            raise_refused()
        return do(method, path, body)

    control.do = refusing  # type: ignore[method-assign]
    result = run("roll-forward", "m", "2")
    assert result.returncode == 1 and said(control)[-2:] == BACK


def raise_refused() -> None:
    from tests.common.control import Refused

    raise Refused(400, "InvalidInput", "no")


def test_roll_forward_that_is_interrupted_goes_back(control, environment):
    command = [str(SCRIPTS / "roll-forward"), "m", "2", "--steps", "10", "--pause-s", "60"]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
    until = time.monotonic() + 20
    while not any("'2': 10" in order for order in said(control)):
        assert time.monotonic() < until
        time.sleep(0.02)
    time.sleep(0.3)  # the script has the answer, and pauses
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=20)
    assert (process.returncode, b"told to stop" in stderr) == (1, True)
    assert said(control)[-2:] == BACK


def test_roll_forward_to_what_serves_already_ends_a_split(run, control):
    assert run("roll-forward", "m", "1").returncode == 0
    assert said(control) == ["POST /models/m/split {'weights': {}}"]


def test_roll_back_finds_the_newest_older_version_that_is_ready(run, control):
    for version, state in (("2", "ready"), ("9", "ready"), ("9.5", "failed"), ("11", "ready")):
        control.state["models"].append(model("m", version, state=state))
    control.versions("m")[0]["default"] = False
    control.versions("m")[-2]["default"] = True  # 9.5
    result = run("roll-back", "m")
    assert (result.returncode, "m 9 serves, in place of 9.5" in result.stdout) == (0, True)
    assert said(control)[0] == "POST /models/m/default {'version': '9'}"
    assert said(control)[1] == "POST /models/m/split {'weights': {}}"


def test_roll_back_to_nothing_is_said(run, control):
    result = run("roll-back", "m")
    assert (result.returncode, "older than 1" in result.stderr) == (1, True)
    assert run("roll-back", "nobody").returncode == 1
    assert control.orders == []


def test_rolling_restart_takes_one_after_the_other(run, control):
    result = run("rolling-restart")
    assert (result.returncode, "3 workers restarted" in result.stdout) == (0, True)
    assert said(control) == [f"POST /workers/{name}/drain" for name in ("w0", "w1", "x0")]
    control.orders.clear()
    assert run("rolling-restart", "--host", "h2").returncode == 0
    assert said(control) == ["POST /workers/x0/drain"]
    assert run("rolling-restart", "--host", "h3").returncode == 1


def test_rolling_restart_waits_for_the_place_to_be_filled_again(run, control):
    control.replaces = False

    def fill() -> None:
        for name in ("w0", "w1"):
            while not any(w == f"/admin/workers/{name}/drain" for _, w, _ in control.orders):
                time.sleep(0.02)
            time.sleep(0.7)
            filled.append(len(control.orders))
            control.state["workers"].append(worker(name))

    filled: list[int] = []
    filling = threading.Thread(target=fill)
    filling.start()
    result = run("rolling-restart", "--host", "h1", "--timeout-s", "10")
    filling.join()
    assert (result.returncode, filled) == (0, [1, 2])


def test_rolling_restart_stops_at_a_worker_that_does_not_come_back(run, control):
    control.replaces = False
    result = run("rolling-restart", "--timeout-s", "1")
    assert result.returncode == 1 and "after w0 was drained" in result.stderr
    assert "2 of 3 workers" in result.stderr
    assert said(control) == ["POST /workers/w0/drain"]


# ---- the support bundle


@pytest.fixture
def bundle(run, tmp_path) -> Callable[..., dict[str, str]]:
    def made(*arguments: str, **more: str) -> dict[str, str]:
        result = run("support-bundle", "out.tar.gz", *arguments, **more)
        assert (result.returncode, result.stderr) == (0, "")
        with tarfile.open(tmp_path / "out.tar.gz") as tar:
            files = [member for member in tar if member.isfile()]
            return {Path(m.name).name: tar.extractfile(m).read().decode() for m in files}

    return made


SETTINGS = """
run_dir = "/run/headway"
[gateway]
register_urls = "https://user:hidden@models.example/a?signature=hidden"
# curve_secret_key = "hidden"
#api_token='hidden'
"""


def test_a_support_bundle_has_the_state_and_no_secret(bundle, tmp_path):
    (tmp_path / "headway.toml").write_text(SETTINGS)
    (tmp_path / "run" / "broker.lock").touch()
    (tmp_path / "state" / "keys").mkdir()
    (tmp_path / "state" / "keys" / "broker.secret").write_text("hidden")
    files = bundle(HEADWAY_CONFIG="headway.toml", HEADWAY_SECRET_KEY="hidden", HEADWAY_LOG_LEVEL="info")
    assert '"uptime_s": 5.0' in files["state.json"] and "w0" in files["state.txt"]
    assert files["versions.txt"].startswith("headway ")
    assert "broker.lock" in files["run-dir.txt"] and "broker.secret" in files["state-dir.txt"]
    assert "HEADWAY_LOG_LEVEL=info" in files["environment.txt"]
    assert 'run_dir = "/run/headway"' in files["settings-headway.toml"]
    assert "models.example/a" in files["settings-headway.toml"]
    everything = "\n".join(files.values())
    assert "hidden" not in everything and TOKEN not in everything


def test_a_support_bundle_is_made_of_a_server_that_is_away(bundle):
    files = bundle("--management", "127.0.0.1:1", "--metrics", "127.0.0.1:1")
    assert "BrokerUnreachable" in files["state.json"] and "exit code 75" in files["state.json"]
    assert "host.txt" in files


def test_a_file_into_which_the_token_got_is_left_out(bundle, control):
    control.state["events"].append([1.0, "oops", {"token": TOKEN}])
    files = bundle()
    assert "left out" in files["state.json"] and TOKEN not in "".join(files.values())


def test_a_support_bundle_that_cannot_be_written_is_said_and_leaves_nothing(run, tmp_path):
    own = tmp_path / "tmp"
    own.mkdir()
    result = run("support-bundle", str(tmp_path / "none" / "out.tar.gz"), TMPDIR=str(own))
    assert result.returncode == 1 and "cannot write" in result.stderr
    assert list(own.iterdir()) == []
