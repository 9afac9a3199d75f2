"""Log lines: one event, one line, whatever is in the facts."""

from __future__ import annotations

import json
import logging
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway import logs
from headway.errors import SettingsError
from headway.logs import JsonFormatter, TextFormatter


def record(event: str, **facts: object) -> logging.LogRecord:
    made = logging.LogRecord("headway.test", logging.INFO, __file__, 1, event, (), None)
    made.facts = facts
    return made


@pytest.fixture
def root():
    """The root logger, put back as it was."""
    logger = logging.getLogger()
    handlers, level = logger.handlers[:], logger.level
    yield logger
    logger.handlers[:] = handlers
    logger.setLevel(level)


def test_a_line_of_text_ends_in_facts():
    line = TextFormatter().format(record("worker lost", worker="w1", reason="no heartbeat for 3.0 s"))
    assert line.endswith(' INFO headway.test worker lost worker=w1 reason="no heartbeat for 3.0 s"')


def test_a_line_of_json_is_an_object_with_the_facts():
    line = json.loads(JsonFormatter().format(record("worker lost", worker="w1", left=3)))
    assert {k: line[k] for k in ("level", "logger", "event", "worker", "left")} == {
        "level": "info",
        "logger": "headway.test",
        "event": "worker lost",
        "worker": "w1",
        "left": 3,
    }


@given(st.text())
def test_no_fact_breaks_a_line_or_speaks_to_the_terminal(value):
    for formatter in (TextFormatter(), JsonFormatter()):
        line = formatter.format(record("event", reason=value))
        assert len(line.splitlines()) == 1
        assert line.isprintable()


@given(st.text(min_size=1).filter(str.isprintable))
def test_a_quoted_fact_reads_back_as_it_was(value):
    text = TextFormatter().format(record("event", fact=value)).split(" fact=", 1)[1]
    assert (json.loads(text) if text.startswith('"') else text) == value


def test_a_fact_that_json_does_not_know_is_written_as_text():
    line = json.loads(JsonFormatter().format(record("event", path=b"\xff", error=ValueError("why"))))
    assert (line["path"], line["error"]) == ("b'\\xff'", "why")


def test_a_percent_sign_in_an_event_is_no_placeholder():
    assert "100% full %s" in TextFormatter().format(record("100% full %s"))


def test_an_exception_is_logged_with_its_traceback(root, capsys):
    logs.setup("info", "text")
    try:
        raise KeyError("gone")
    except KeyError:
        logs.get("headway.test").exception("defect", id=3)
    err = capsys.readouterr().err
    assert "ERROR headway.test defect id=3\nTraceback" in err
    assert err.endswith("KeyError: 'gone'\n")


def test_json_keeps_a_traceback_on_its_line():
    try:
        raise KeyError("gone")
    except KeyError:
        made = record("defect")
        made.exc_info = sys.exc_info()
    line = JsonFormatter().format(made)
    assert "\n" not in line
    assert json.loads(line)["exception"].endswith("KeyError: 'gone'")


@pytest.mark.parametrize("method", ["debug", "info", "warning", "error"])
def test_every_level_reaches_stderr(root, capsys, method):
    logs.setup("debug", "json")
    getattr(logs.get("headway.test"), method)("event", fact=1)
    line = json.loads(capsys.readouterr().err)
    assert (line["level"], line["fact"]) == (method, 1)


def test_what_is_below_the_level_is_not_written(root, capsys):
    logs.setup("warning", "text")
    logs.get("headway.test").info("event")
    assert capsys.readouterr().err == ""


def test_an_unknown_level_is_refused_by_name(root):
    with pytest.raises(SettingsError, match="log_level: 'loud'"):
        logs.setup("loud", "text")
