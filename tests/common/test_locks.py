"""A lock file that says whether its owner lives."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from headway import locks

OWNER = "import sys, signal; from headway import locks; from pathlib import Path;"
OWNER += "locks.take(Path(sys.argv[1])); print(flush=True); signal.pause()"


def owner(path: Path) -> subprocess.Popen[bytes]:
    where = ":".join(p for p in sys.path if p)
    process = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(path)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": where},
    )
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    return process


def test_a_lock_is_held_until_its_owner_ends_in_whatever_way(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    assert not locks.is_held(path)
    process = owner(path)
    assert locks.is_held(path)
    with pytest.raises(locks.LockHeld):
        locks.take(path)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not locks.is_held(path)
    mine = locks.take(path)
    assert locks.is_held(path)
    os.close(mine)
    assert not locks.is_held(path)


def test_a_child_of_the_owner_does_not_hold_it(tmp_path: Path) -> None:
    lock = locks.take(tmp_path / "x.lock")
    child = subprocess.Popen(["sleep", "60"], close_fds=False)
    os.close(lock)
    assert not locks.is_held(tmp_path / "x.lock")
    child.kill()
    child.wait()


def test_somebody_who_only_looks_does_not_keep_anybody_from_taking_it(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    looking = os.open(path, os.O_RDWR | os.O_CREAT)
    fcntl.flock(looking, fcntl.LOCK_SH)
    looked = threading.Timer(0.05, os.close, [looking])
    looked.start()
    os.close(locks.take(path))
    looked.join()


def test_what_cannot_be_told_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError):
        locks.is_held(tmp_path / ("y" * 300))
    with pytest.raises(OSError):
        locks.take(tmp_path / "nowhere" / "x.lock")
