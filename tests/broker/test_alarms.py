"""When to look again."""

from __future__ import annotations

import math

from headway_broker.alarms import Alarms


def test_an_alarm_goes_off_once_and_not_before_its_time() -> None:
    alarms: Alarms[str] = Alarms()
    alarms.set("a", 5.0)
    alarms.set("b", 3.0)
    assert (alarms.next, alarms.due(2.9)) == (3.0, [])
    assert alarms.due(5.0) == ["b", "a"]
    assert (alarms.next, alarms.due(9.0), "a" in alarms) == (math.inf, [], False)


def test_of_two_alarms_for_one_name_the_earlier_counts() -> None:
    alarms: Alarms[str] = Alarms()
    alarms.set("a", 5.0)
    alarms.set("a", 3.0)
    alarms.set("a", 4.0)
    assert alarms.due(3.0) == ["a"]
    assert alarms.due(9.0) == [], "the later ones went with it"
    alarms.set("a", 10.0)
    assert alarms.due(10.0) == ["a"]


def test_an_alarm_for_never_is_none() -> None:
    alarms: Alarms[str] = Alarms()
    alarms.set("a", math.inf)
    assert ("a" in alarms, alarms.next) == (False, math.inf)


def test_names_that_cannot_be_compared_may_share_a_time() -> None:
    alarms: Alarms[object] = Alarms()
    names = [object(), object()]
    for name in names:
        alarms.set(name, 1.0)
    assert alarms.due(1.0) == names
