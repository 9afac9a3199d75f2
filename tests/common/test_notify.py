"""headway.notify: what a real datagram socket hears, in the place of systemd's."""

from __future__ import annotations

import itertools
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from headway.notify import VARIABLES, Notifier
from tests.ear import Ear


@pytest.fixture
def ear(tmp_path: Path) -> Iterator[Ear]:
    listening = Ear(tmp_path / "notify")
    yield listening
    listening.close()


def test_ready_comes_with_its_status_in_one_message(ear):
    ear.notifier().ready("serving")
    assert ear.heard() == ["READY=1\nSTATUS=serving\n"]


def test_each_word_is_said_as_systemd_reads_it(ear):
    notifier = ear.notifier()
    notifier.ready()
    notifier.status("3 models")
    notifier.extend(2.5)
    notifier.stopping()
    assert ear.heard() == ["READY=1\n", "STATUS=3 models\n", "EXTEND_TIMEOUT_USEC=2500000\n", "STOPPING=1\n"]


def test_an_abstract_socket_is_reached_by_its_name():
    abstract = Ear("@headway-" + secrets.token_hex(8))
    abstract.notifier().ready()
    assert abstract.heard() == ["READY=1\n"]
    abstract.close()


def test_a_status_is_one_line_and_is_said_once(ear):
    notifier = ear.notifier()
    notifier.status("two\nlines\0MAINPID=1")
    notifier.status("two\nlines\0MAINPID=1")
    notifier.status("x" * 100_000)
    first, second = ear.heard()
    assert first == "STATUS=two lines MAINPID=1\n"
    assert len(second) < 1000


def test_a_status_that_was_said_with_ready_is_not_said_again(ear):
    notifier = ear.notifier()
    notifier.ready("serving")
    notifier.status("serving")
    assert len(ear.heard()) == 1


def test_the_watchdog_is_fed_once_in_half_of_its_interval_however_often_it_is_called(ear):
    notifier = ear.notifier(watchdog_s=2.0)
    for tenth in range(31):  # from 10.0 to 13.0
        notifier.watchdog(10.0 + tenth / 10)
    assert ear.heard() == ["WATCHDOG=1\n"] * 4


def test_a_loop_that_waits_as_long_as_it_may_is_never_silent_for_the_whole_interval(ear):
    notifier = ear.notifier(watchdog_s=8.0)
    fed: list[float] = []
    for turn in range(200):
        now = turn * notifier.wait_s * 0.999
        notifier.watchdog(now)
        fed += [now] * len(ear.heard())
    assert max(b - a for a, b in itertools.pairwise(fed)) <= 0.75 * 8.0


def test_without_a_clock_of_its_caller_it_looks_itself(ear):
    notifier = ear.notifier(watchdog_s=60.0)
    notifier.watchdog()
    notifier.watchdog()
    assert ear.heard() == ["WATCHDOG=1\n"]


@pytest.mark.parametrize("address", ["", "@", "/", "vsock:2:1234", "relative/path"])
def test_without_an_address_nothing_is_said_and_nobody_waits_for_a_word(address):
    notifier = Notifier(address, watchdog_s=5.0)
    for call in (notifier.ready, notifier.stopping, notifier.watchdog, notifier.close):
        call()
    notifier.status("busy")
    notifier.extend(1.0)
    if address != "/":
        assert (notifier.watchdog_s, notifier.wait_s, notifier.is_heard) == (None, None, False)


def test_a_socket_that_is_gone_is_no_error_and_ready_is_said_when_it_is_back(tmp_path):
    notifier = Notifier(str(tmp_path / "later"), watchdog_s=4.0)
    notifier.ready("serving")
    later = Ear(tmp_path / "later")
    notifier.watchdog(1.0)
    notifier.watchdog(5.0)
    assert later.heard() == ["READY=1\nWATCHDOG=1\n", "WATCHDOG=1\n"]
    notifier.close()
    later.close()


def test_a_reader_that_does_not_read_never_blocks_and_gets_what_it_must_know_later(ear):
    notifier = ear.notifier(watchdog_s=1.0)
    for second in range(10_000):  # far more than a socket's queue takes
        notifier.watchdog(float(second))
    notifier.ready("serving")
    assert not any("READY" in word for word in ear.heard())
    notifier.watchdog(20_000.0)
    assert ear.heard() == ["READY=1\nWATCHDOG=1\n"]


def test_after_close_nothing_is_said(ear):
    notifier = ear.notifier(watchdog_s=1.0)
    notifier.close()
    notifier.ready()
    notifier.watchdog(1.0)
    assert ear.heard() == [] and notifier.watchdog_s is None


def test_the_environment_is_read_once_and_taken_away_from_children(ear, monkeypatch):
    for name, value in zip(VARIABLES, (ear.address, "3000000", str(os.getpid())), strict=True):
        monkeypatch.setenv(name, value)
    notifier = Notifier.from_environment()
    assert (notifier.watchdog_s, notifier.wait_s) == (3.0, 0.75)
    assert not any(name in os.environ for name in VARIABLES)
    tell = "from headway.notify import Notifier; Notifier.from_environment().ready()"
    subprocess.run([sys.executable, "-c", tell], check=True, timeout=60)
    assert ear.heard() == []
    assert Notifier.from_environment().watchdog_s is None
    notifier.close()


@pytest.mark.parametrize(
    ("usec", "pid"),
    [("3000000", "1"), ("0", ""), ("", ""), ("soon", ""), ("-5", ""), ("²", ""), ("1.5", "")],
)
def test_a_watchdog_of_another_process_or_of_no_length_is_none(ear, monkeypatch, usec, pid):
    for name, value in zip(VARIABLES, (ear.address, usec, pid), strict=True):
        monkeypatch.setenv(name, value)
    notifier = Notifier.from_environment()
    assert notifier.watchdog_s is None and notifier.is_heard
    notifier.close()
