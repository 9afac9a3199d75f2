"""What people are told while models load."""

from __future__ import annotations

from typing import Any

from headway.cli.progress import Progress, settled
from headway.tracebacks import last_line


def model(state: str, ready: int = 0, wanted: int = 1, error: str = "", name: str = "m") -> dict[str, Any]:
    return {"name": name, "version": "1", "state": state, "ready": ready, "wanted": wanted, "error": error}


def test_each_change_is_said_once() -> None:
    progress = Progress(started=10.0)
    assert progress.news([model("loading")], 10.5) == ["m 1: loading"]
    assert progress.news([model("loading")], 10.7) == []
    assert progress.news([model("ready", 1)], 12.0) == ["m 1: ready after 2.0 s"]
    assert progress.news([model("ready", 1)], 13.0) == []


def test_copies_are_counted_where_there_are_several() -> None:
    progress = Progress(started=0.0)
    assert progress.news([model("ready", 1, 2)], 1.0) == ["m 1: ready, 1 of 2 copies after 1.0 s"]
    assert progress.news([model("ready", 2, 2)], 2.0) == ["m 1: ready, 2 of 2 copies"]


def test_a_failure_comes_with_the_last_line_of_its_error() -> None:
    failed = model("failed", error="Traceback:\n  File x\nModuleNotFoundError: no y\n")
    assert Progress(0.0).news([failed], 1.0) == ["m 1: failed: ModuleNotFoundError: no y"]


def test_a_model_that_waits_is_no_news_until_all_workers_are_there() -> None:
    progress, waits = Progress(0.0), model("waiting", error="no worker has a device cuda")
    assert progress.news([waits], 1.0, joined=False) == []
    assert progress.news([waits], 2.0, joined=True) == ["m 1: waiting: no worker has a device cuda"]


def test_a_model_that_is_lost_and_comes_back_is_said() -> None:
    progress = Progress(0.0)
    progress.news([model("ready", 1)], 1.0)
    assert progress.news([model("waiting")], 2.0) == ["m 1: waiting"]
    assert progress.news([model("ready", 1)], 3.0) == ["m 1: ready"]


def test_a_removed_model_is_said() -> None:
    progress = Progress(0.0)
    progress.news([model("ready", 1), model("ready", 1, name="n")], 1.0)
    assert progress.news([model("ready", 1)], 2.0) == ["n 1: removed"]


def test_a_server_is_settled_when_no_model_can_change_by_waiting() -> None:
    assert settled([], joined=False)
    assert settled([model("ready", 1), model("failed")], joined=False)
    assert settled([model("asleep", wanted=0)], joined=False)
    assert not settled([model("ready", 1), model("loading")], joined=True)
    assert not settled([model("waiting")], joined=False)
    assert settled([model("waiting")], joined=True)


def test_an_error_of_one_line_is_its_own_last_line() -> None:
    assert last_line("what") == "what"
    assert last_line("") == ""
