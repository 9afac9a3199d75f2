"""What systemd says of a unit, read."""

from __future__ import annotations

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway_worker.agent import unit_state


def said(**properties: str) -> unit_state.Properties:
    text = "".join(f"{key}={value}\n" for key, value in properties.items())
    return unit_state.parse(text)


@pytest.mark.parametrize(
    ("state", "job", "is_over"),
    [
        ("active", "", False),
        ("activating", "", False),
        ("deactivating", "", False),
        ("inactive", "17", False),  # about to be started
        ("inactive", "", True),
        ("failed", "0", True),
    ],
)
def test_a_unit_is_over_when_nothing_runs_and_nothing_is_on_its_way(
    state: str, job: str, is_over: bool
) -> None:
    assert unit_state.is_over(said(ActiveState=state, Job=job)) == is_over


@pytest.mark.parametrize(
    ("code", "status", "result", "how"),
    [
        ("1", "0", "success", "ended with exit code 0 (OK)"),
        ("1", "70", "exit-code", "ended with exit code 70 (STUCK)"),
        ("2", "9", "signal", "was killed by SIGKILL"),
        ("3", "11", "core-dump", "was killed by SIGSEGV"),
        ("2", "9", "oom-kill", "was killed by SIGKILL (out of memory: systemd says oom-kill)"),
        ("2", "6", "watchdog", "was killed by SIGABRT (systemd: watchdog)"),
        ("2", "9", "timeout", "was killed by SIGKILL (systemd: timeout)"),
        ("0", "0", "resources", "did not start: systemd says resources"),
    ],
)
def test_how_a_unit_ended_is_said(code: str, status: str, result: str, how: str) -> None:
    found = said(ExecMainCode=code, ExecMainStatus=status, Result=result)
    assert unit_state.how(found) == how
    assert not unit_state.is_fault(found)


def test_a_fatal_fault_is_an_exit_code_and_not_a_signal() -> None:
    assert unit_state.is_fault(said(ExecMainCode="1", ExecMainStatus="71"))
    assert not unit_state.is_fault(said(ExecMainCode="2", ExecMainStatus="71"))


def test_of_a_unit_that_ended_well_systemd_knows_nothing_more() -> None:
    forgotten = said(ActiveState="inactive", Result="success", ExecMainCode="0", ExecMainStatus="0")
    assert unit_state.how(forgotten, was_up=True) == "ended well, as systemd says"
    assert unit_state.how(forgotten) == "did not start: systemd says success"


def test_what_is_missing_or_odd_is_no_error() -> None:
    assert unit_state.parse("") == {}
    assert unit_state.how({}) == "did not start: systemd says nothing"
    assert (unit_state.main_pid({}), unit_state.main_pid({"MainPID": "x"})) == (0, 0)
    assert unit_state.main_pid({"MainPID": "7"}) == 7
    assert unit_state.parse("Id=a=b\nnonsense") == {"Id": "a=b", "nonsense": ""}


@given(st.text().filter(str.isprintable))
def test_an_environment_file_gives_back_what_was_written(value: str) -> None:
    line = unit_state.environment_file({"K": value}).removesuffix("\n")
    assert shlex.split(line.replace("\\$", "$").replace("\\`", "`")) == [f"K={value}"]


@pytest.mark.parametrize("value", ["a\nb", "\0", "a\tb"])
def test_a_value_that_no_file_can_hold_is_refused_by_its_key(value: str) -> None:
    with pytest.raises(ValueError, match="KEY has a value"):
        unit_state.environment_file({"KEY": value})
