"""What ties a worker to its agent, with a clock of the test's."""

from __future__ import annotations

import os
from pathlib import Path

from headway import locks
from headway_worker.leash import Leash


def test_a_leash_is_cut_when_nobody_has_held_the_lock_for_long_enough(tmp_path: Path) -> None:
    path = tmp_path / "agent.lock"
    lock = locks.take(path)
    leash = Leash(path, 60.0, now=0.0)
    assert not any(leash.is_cut(float(t)) for t in range(200))
    os.close(lock)
    cut = next(t for t in range(200, 300) if leash.is_cut(float(t)))
    assert 57 <= cut - 199 <= 63


def test_an_agent_that_comes_back_in_time_has_its_workers_again(tmp_path: Path) -> None:
    path = tmp_path / "agent.lock"
    leash = Leash(path, 60.0, now=0.0)  # no file: no agent
    assert not any(leash.is_cut(float(t)) for t in range(55))
    lock = locks.take(path)
    assert not any(leash.is_cut(float(t)) for t in range(55, 200))
    os.close(lock)
    assert any(leash.is_cut(float(t)) for t in range(200, 270))


def test_it_looks_rarely(tmp_path: Path) -> None:
    path = tmp_path / "agent.lock"
    leash = Leash(path, 60.0, now=0.0)
    assert not leash.is_cut(0.0)
    asked = [leash.is_cut(59.0), leash.is_cut(60.5), leash.is_cut(61.9)]
    assert asked == [False, False, False]  # the last look was at 59
    assert leash.is_cut(62.1)


def test_what_cannot_be_told_cuts_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    leash = Leash(tmp_path / "file" / "agent.lock", 1.0, now=0.0)
    assert not any(leash.is_cut(float(t)) for t in range(100))
