"""`headway top`: two looks become one view, live in a terminal or once for a script."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from headway.cli.top import Looks
from headway.errors import BrokerUnreachable, Unauthorized
from headway.manage import Management
from tests.common.control import TOKEN, Control, controlled, histogram

HEADWAY = [sys.executable, "-m", "headway", "top"]


@pytest.fixture
def control() -> Iterator[Control]:
    with controlled() as server:
        yield server


def environment(control: Control) -> dict[str, str]:
    return {
        **os.environ,
        "HEADWAY_TOKEN": TOKEN,
        "HEADWAY_GATEWAY_MANAGEMENT": control.address,
        "HEADWAY_CONFIG": "/dev/null",
        "TERM": "xterm",
        "COLUMNS": "200",
        "LINES": "60",
    }


def serve_between_looks(control: Control) -> None:
    """Requests that come after the first look."""
    while not control.looks:
        time.sleep(0.005)
    control.state["models"][0]["stats"] = {
        "queue": 3,
        "queue_bytes": 0,
        "outcomes": {"ok": 40, "ModelError": 10},
        "total_s": histogram(0, 50, 0, 0),
    }


def test_once_prints_one_view_with_the_rates_of_one_interval(control):
    serving = threading.Thread(target=serve_between_looks, args=(control,))
    serving.start()
    command = [*HEADWAY, "--once", "--interval", "0.5"]
    result = subprocess.run(command, env=environment(control), capture_output=True, text=True, timeout=30)
    serving.join()
    assert (result.returncode, result.stderr) == (0, "")
    lines = {line.split()[0]: line.split() for line in result.stdout.splitlines() if line.strip()}
    name, version, star, state, traffic, ready, queue, rate, failing, p50, p99 = lines["m"]
    assert [name, version, star, state, traffic, ready, queue] == ["m", "1", "*", "ready", "100%", "1/1", "3"]
    assert 50 < float(rate) <= 101 and 10 < float(failing) <= 20.1
    assert 1 <= float(p50) <= 10 and 9 < float(p99) <= 10
    assert lines["n"][-4:] == ["0.0", "0.0", "-", "-"]
    assert lines["w0"][:5] == ["w0", "h1", "idle", "cpu", "25%"]
    assert "model ready" in result.stdout and "a1" in result.stdout


def test_once_ends_as_any_command_when_the_server_is_away(control):
    away = {**environment(control), "HEADWAY_GATEWAY_MANAGEMENT": "127.0.0.1:1"}
    result = subprocess.run([*HEADWAY, "--once"], env=away, capture_output=True, text=True, timeout=30)
    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (75, "", 1)


class Terminal:
    """A `headway top` in a terminal of its own."""

    def __init__(self, control: Control) -> None:
        self.fd, end = pty.openpty()
        self.process = subprocess.Popen(
            [*HEADWAY, "--interval", "0.1"],
            stdin=end, stdout=end, stderr=end, env=environment(control), start_new_session=True,
            preexec_fn=_listens_to_interrupts,
        )  # fmt: skip
        os.close(end)
        self.seen = b""

    def see(self, text: bytes, after: int = 0) -> int:
        until = time.monotonic() + 20
        while text not in self.seen[after:]:
            assert time.monotonic() < until, self.seen[-2000:]
            try:
                self.seen += os.read(self.fd, 65536)
            except OSError:
                break
        assert text in self.seen[after:], self.seen[-2000:]
        return len(self.seen)

    def end(self) -> int:
        threading.Thread(target=self._drain, daemon=True).start()
        return self.process.wait(10)

    def _drain(self) -> None:
        try:
            while os.read(self.fd, 65536):
                pass
        except OSError:
            pass


def _listens_to_interrupts() -> None:
    """A shell has its background jobs ignore them, and so what they start."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.fixture
def terminal(control: Control) -> Iterator[Terminal]:
    shown = Terminal(control)
    yield shown
    if shown.process.poll() is None:
        shown.process.kill()
    shown.process.wait()
    os.close(shown.fd)


@pytest.mark.parametrize("way", ["q", "interrupt"])
def test_it_runs_until_somebody_ends_it_and_leaves_the_terminal_as_it_was(control, terminal, way):
    import termios

    before = termios.tcgetattr(terminal.fd)[3]
    terminal.see(b"model ready")
    assert termios.tcgetattr(terminal.fd)[3] != before
    if way == "q":
        os.write(terminal.fd, b"xq")
    else:
        terminal.process.send_signal(signal.SIGINT)
    assert terminal.end() == 0
    assert termios.tcgetattr(terminal.fd)[3] == before


def test_a_server_that_is_away_for_a_while_is_said_and_waited_for(control, terminal):
    seen = terminal.see(b"model ready")
    answer = {"error": "BrokerUnreachable", "message": "no broker answered"}
    control.answers["GET /state"] = (503, answer)
    seen = terminal.see(b"no answer for", seen)
    terminal.see(b"model ready", seen)  # the last that is known
    del control.answers["GET /state"]
    control.state["broker"]["version"] = "9.9.9"
    terminal.see(b"9.9.9", seen)
    os.write(terminal.fd, b"q")
    assert terminal.end() == 0


class Said:
    """A management that says what it is given, errors raised."""

    address = "h:1"

    def __init__(self, *answers: Any) -> None:
        self._answers = list(answers)

    def state(self) -> Any:
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def drawn(looks: Looks) -> str:
    from rich.console import Console

    console = Console(width=200)
    with console.capture() as captured:
        console.print(looks.picture())
    return captured.get()


def test_before_the_first_answer_it_says_whom_it_waits_for():
    looks = Looks(Said(BrokerUnreachable("nobody"), Unauthorized("wrong")))  # type: ignore[arg-type]
    assert "waiting for h:1" in drawn(looks)
    looks.try_look()
    assert "BrokerUnreachable: nobody" in drawn(looks)
    looks.try_look()
    assert "Unauthorized: wrong" in drawn(looks)


def test_looks_are_what_a_management_can_answer():
    assert callable(Management.state)
