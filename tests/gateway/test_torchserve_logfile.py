"""headway_gateway.torchserve.logfile: whole lines, one rotation, five old files."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

import pytest

from headway_gateway.torchserve.logfile import KEPT, LogFile, Stamp

DAY_S = 86400.0


@pytest.fixture
def now() -> float:
    return time.time()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.log"))


def test_the_file_is_there_when_it_is_opened_with_its_folder(tmp_path: Path, now: float) -> None:
    LogFile(tmp_path / "logs" / "deep", "access_log").open(now)
    assert names(tmp_path / "logs" / "deep") == ["access_log.log"]


def test_two_writers_append_to_one_file(tmp_path: Path, now: float) -> None:
    writers = [LogFile(tmp_path, "a"), LogFile(tmp_path, "a")]
    for i in range(4):
        writers[i % 2].write(f"line {i}\n", now)
    assert (tmp_path / "a.log").read_text() == "line 0\nline 1\nline 2\nline 3\n"


def test_a_full_file_is_renamed_once_and_the_other_writer_follows(tmp_path: Path, now: float) -> None:
    one, other = LogFile(tmp_path, "a", bytes_max=20), LogFile(tmp_path, "a", bytes_max=20)
    one.write("old line 1\n", now)
    other.write("old line 2\n", now)
    one.write("new line 1\n", now + 2)
    other.write("new 2\n", now + 2)
    day = time.strftime("%Y-%m-%d", time.localtime(now))
    assert names(tmp_path) == [f"a.{day}.log", "a.log"]
    assert (tmp_path / f"a.{day}.log").read_text() == "old line 1\nold line 2\n"
    assert sorted((tmp_path / "a.log").read_text().split("\n")) == ["", "new 2", "new line 1"]


def test_a_file_of_yesterday_is_renamed_after_its_day(tmp_path: Path, now: float) -> None:
    path = tmp_path / "a.log"
    path.write_text("yesterday\n")
    os.utime(path, (now - DAY_S, now - DAY_S))
    log = LogFile(tmp_path, "a")
    log.write("today\n", now)
    day = time.strftime("%Y-%m-%d", time.localtime(now - DAY_S))
    assert (tmp_path / f"a.{day}.log").read_text() == "yesterday\n"
    assert path.read_text() == "today\n"


def test_an_empty_file_is_not_renamed(tmp_path: Path, now: float) -> None:
    log = LogFile(tmp_path, "a")
    log.open(now)
    log.write("tomorrow\n", now + DAY_S)
    assert names(tmp_path) == ["a.log"]


def test_only_the_newest_old_files_stay(tmp_path: Path, now: float) -> None:
    log = LogFile(tmp_path, "a", bytes_max=1)
    for i in range(KEPT + 4):
        log.write(f"{i}\n", now + 2 * i)
    old = list(tmp_path.glob("a.*.log"))
    assert len(old) == KEPT
    assert {path.read_text() for path in old} == {f"{i}\n" for i in range(3, KEPT + 3)}


def test_a_file_that_was_moved_away_is_made_again(tmp_path: Path, now: float) -> None:
    log = LogFile(tmp_path, "a")
    log.write("1\n", now)
    (tmp_path / "a.log").rename(tmp_path / "gone")
    log.write("2\n", now + 2)
    assert (tmp_path / "a.log").read_text() == "2\n"


def test_a_file_that_cannot_be_written_costs_lines_and_is_told_once(
    tmp_path: Path, now: float, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    log = LogFile(tmp_path / "file", "a")
    log.open(now)
    log.write("x\n", now)
    assert [record.message for record in caplog.records] == ["cannot write a log file (told once)"]
    log.close()


def test_lines_begin_as_torchserves_do(now: float) -> None:
    stamp = Stamp()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d,\d{3} - ", stamp.at(now))
    assert stamp.at(1000.5)[19:] == ",500 - "
    assert stamp.at(1000.75)[:19] == time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(1000))
