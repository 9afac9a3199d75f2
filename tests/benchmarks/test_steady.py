"""What the steady load counts as an answer, and as a failure."""

from __future__ import annotations

from http.client import HTTPException

import pytest

from benchmarks.steady import Phase, Question, table, version_of

FREE = Question(x=21, size=1, version="", sticky="")
NAMED, KEYED = FREE._replace(version="1"), FREE._replace(sticky="user-1")
MS = 1_000_000


def phase(*versions: str) -> Phase:
    return Phase("here", frozenset(versions), 0.0)


def test_an_answer_tells_its_version_or_is_wrong() -> None:
    assert version_of(FREE, [43.0]) == "1"
    assert version_of(FREE, [44.0]) == "2"
    for wrong in ([41.0], [45.0], [43.0, 43.0], []):
        with pytest.raises(ValueError, match="wrong answer"):
            version_of(FREE, wrong)


def test_a_version_that_should_not_have_answered_is_a_failure() -> None:
    now = phase("2")
    now.add("oip", FREE, "2", MS)
    now.add("oip", NAMED, "1", MS)
    assert now.failures == []
    now.add("oip", FREE, "1", MS)
    now.add("oip", NAMED, "2", MS)
    now.add("oip", FREE, HTTPException("503"), MS)
    assert len(now.failures) == 3
    assert now.failures[2] == "here, oip: HTTPException: 503"


def test_the_share_counts_only_those_that_may_go_anywhere() -> None:
    now = phase("1", "2")
    now.add("oip", NAMED, "1", MS)
    now.add("direct", KEYED, "2", MS)
    now.add("direct", FREE, "1", MS)
    assert now.free == {"1": 1}
    assert now.sticky == {"user-1": {"2"}}
    assert now.asked == {"oip": 1, "direct": 2}


def test_phases_of_one_name_are_one_line() -> None:
    phases = [phase("1"), Phase("there", frozenset("1"), 2.0), Phase("here", frozenset("1"), 3.0)]
    for each in phases:
        each.add("oip", FREE, "1", 3 * MS)
    phases[2].add("direct", FREE, "2", 9 * MS)
    lines = [line.split() for line in table(phases, 10.0).splitlines()]
    assert lines[1] == ["here", "9.0", "3", "1", "2", "1", "3.0", "9"]
    assert lines[2] == ["there", "1.0", "1", "0", "1", "0", "3.0", "3"]
    assert lines[3][:4] == ["all", "10.0", "4", "1"]
    assert lines[4] == ["direct:", "1", "requests,", "oip:", "3", "requests"]
