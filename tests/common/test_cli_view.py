"""headway.cli.view: whatever a state has in it, or lacks, becomes a picture."""

from __future__ import annotations

from typing import Any

import pytest
from rich.console import Console

from headway.cli.view import _ms, _rate, _span, view
from headway.rates import Traffic
from tests.common.control import model, worker


def drawn(state: dict[str, Any], rates: Any = None, note: str = "") -> str:
    console = Console(width=250)
    with console.capture() as captured:
        console.print(view(state, rates or {}, note))
    return captured.get()


def row(text: str, first: str) -> str:
    return next(line for line in text.splitlines() if line.startswith(first))


def test_a_broker_that_says_little_is_drawn_with_what_it_says():
    assert "on ?" in drawn({})
    assert "bare" in drawn({"models": [{"name": "bare", "version": "1"}], "workers": [{"name": "w"}]})


def test_a_model_is_a_row_with_its_traffic():
    state = {"models": [model("m", "2", default=True, traffic=0.1, ready=1, wanted=3, scaling="queue")]}
    rates = {("m", "2"): Traffic(12345.6, 0.04, 0.00123, 0.0456)}
    words = row(drawn(state, rates), "m ").split()
    assert words == ["m", "2", "*", "ready", "10%", "1/3", "0", "12,346", "0.0", "1.23", "45.6", "queue"]


def test_the_last_line_of_an_error_is_enough():
    text = drawn({"models": [model("m", "1", error="Traceback\n  x\nOSError: [Errno 2] gone")]})
    assert "OSError: [Errno 2] gone" in text and "Traceback" not in text


def test_a_worker_shows_its_share_its_memory_and_that_it_leaves():
    state = {
        "workers": [
            worker("w0", device="cuda:0", share=40, cuda_mps="client", draining=True,
                   memory_bytes=8 << 30, memory_used_bytes=3 << 29),
            worker("w1", share=100, cuda_mps=""),
        ]
    }  # fmt: skip
    text = drawn(state)
    assert "draining" in row(text, "w0") and "cuda:0 40% CUDA MPS" in row(text, "w0")
    assert "1.5 of 8.0 GiB" in row(text, "w0")
    assert "%" not in row(text, "w1").replace("25%", "") and "MPS" not in row(text, "w1")


def test_names_with_markup_are_names():
    text = drawn({"models": [model("[red]m[/red]", "1", error="[/nothing]")]})
    assert "[red]m[/red]" in text and "[/nothing]" in text


def test_what_is_wrong_is_said_above_the_tables():
    assert drawn({}, note="no answer for 3 s").splitlines()[2] == "no answer for 3 s"
    state = {"broker": {"host": "h", "restored": "state.json was damaged"}}
    assert "state.json was damaged" in drawn(state).splitlines()[0]


def test_an_agent_shows_why_its_workers_ended():
    ended = {"name": "w3", "state": "ended", "reason": "killed: out of memory"}
    agents = [{"name": "a", "host": "h", "wanted": 2, "workers_max": 4, "workers": [{"name": "w2"}, ended]}]
    line = row(drawn({"agents": agents}), "a ")
    assert "1 of 2, at most 4" in line and "w3: killed: out of memory" in line


def test_only_the_last_events_are_shown():
    text = drawn({"events": [[1e9 + i, f"event-{i}", {"n": i}] for i in range(30)]})
    assert "event-29" in text and "event-21" not in text


@pytest.mark.parametrize(
    ("seconds", "text"), [(5.4, "5 s"), (65, "1 min"), (7300, "2 h 1 min"), (400_000, "4 days")]
)
def test_a_span_is_said_as_people_do(seconds, text):
    assert _span(seconds) == text


def test_numbers_have_as_many_digits_as_matter():
    assert [_ms(s) for s in (None, 0.0001234, 0.0123, 1.5)] == ["-", "0.12", "12.3", "1,500"]
    assert [_rate(r) for r in (None, 0.0, 99.94, 12345.6)] == ["-", "0.0", "99.9", "12,346"]
