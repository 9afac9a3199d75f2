"""The broker's process as an operator knows it: its store, its token, its state file."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from headway.errors import Unauthorized
from headway.exits import Exit
from headway.messages import Answer, Command, Query
from tests.broker.test_router import MODEL, WAIT_S, Broker, until

pytestmark = pytest.mark.system


class Operator:
    """A broker with a state directory of its own."""

    def __init__(self, folder: Path) -> None:
        self.broker = Broker(folder)
        self.state_dir = folder / "state"

    def start(self, **keys: Any) -> Any:
        return self.broker.start(options=["--state-dir", str(self.state_dir)], **keys)

    def order(self, verb: str, token: str | None = None, **arguments: Any) -> dict[str, Any]:
        said = (self.state_dir / "token").read_text().strip() if token is None else token
        with self.broker.peer() as peer:
            peer.send(Command(1, said, verb, arguments))
            answer: dict[str, Any] = peer.hear(Answer).body
            return answer

    def state(self) -> dict[str, Any]:
        with self.broker.peer() as peer:
            peer.send(Query(1, "state"))
            answer: dict[str, Any] = peer.hear(Answer).body
            return answer

    def versions(self) -> list[str]:
        return [model["version"] for model in self.state()["models"]]

    def add(self, version: str) -> None:
        folder = self.broker.store / "m" / version
        folder.mkdir()
        (folder / "model.toml").write_text(MODEL)


@pytest.fixture
def operator() -> Iterator[Operator]:
    with TemporaryDirectory(prefix="hw-") as folder:
        made = Operator(Path(folder))
        try:
            yield made
        finally:
            made.broker.close()


def test_the_token_is_made_at_the_first_start_and_is_not_for_everybody(operator: Operator) -> None:
    operator.start()
    file = operator.state_dir / "token"
    assert not file.stat().st_mode & 0o007
    assert operator.order("scale", token="wrong", model="m", min=1)["code"] == Unauthorized.code
    assert operator.order("scale", model="m", min=1)["min"] == 1


def test_orders_survive_a_kill(operator: Operator) -> None:
    process = operator.start()
    assert operator.order("scale", model="m", min=2, max=3)["max"] == 3
    process.kill()
    process.wait()
    for socket in ("broker.sock", "workers.sock"):
        (operator.broker.run_dir / socket).unlink()
    operator.start()
    [model] = operator.state()["models"]
    assert (model["min"], model["max"]) == (2, 3)
    assert operator.state()["broker"]["restored"] == ""


def test_after_a_corrupt_state_file_the_last_good_one_counts_and_the_log_and_the_state_say_so(
    operator: Operator,
) -> None:
    process = operator.start()
    operator.order("scale", model="m", min=2)
    operator.order("scale", model="m", min=3)
    process.terminate()
    process.wait()
    [file] = operator.state_dir.glob("broker-*.json")
    file.write_text(file.read_text()[:-30])
    process = operator.start()
    state = operator.state()
    assert state["models"][0]["min"] == 2
    assert "are used" in state["broker"]["restored"]
    process.terminate()
    process.wait(WAIT_S)
    assert "orders were lost" in process.stderr.read()


def test_a_reload_looks_into_the_store_anew(operator: Operator) -> None:
    process = operator.start()
    assert operator.versions() == ["1"]
    operator.add("2")
    process.send_signal(signal.SIGHUP)
    until(lambda: operator.versions() == ["1", "2"])
    assert process.poll() is None


def test_a_command_reads_the_store_and_says_what_changed(operator: Operator) -> None:
    operator.start()
    operator.add("2")
    (operator.broker.store / "m" / "3").mkdir()
    assert operator.order("rescan")["added"] == ["m/2"]
    shutil.rmtree(operator.broker.store / "m" / "2")
    assert operator.order("rescan")["gone"] == ["m/2"]
    until(lambda: operator.versions() == ["1"])


def test_a_state_dir_that_cannot_be_made_is_a_wrong_setting(operator: Operator) -> None:
    operator.state_dir.write_text("a file")
    process = operator.start(wait=False)
    assert process.wait(WAIT_S) == Exit.CONFIG
    assert "state_dir" in process.stderr.read()
