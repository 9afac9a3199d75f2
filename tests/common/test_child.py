"""One child process: tied to its parent, or not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from headway.child import Child

PARENT = """
import os, sys
from headway.child import Child
child = Child(["sleep", "60"], tied=sys.argv[1] == "tied", environment={**os.environ, "MARK": "1"})
print(child.pid, flush=True)
child._process.wait()
"""


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("how", ["tied", "loose"])
def test_a_child_dies_with_its_parent_only_if_it_is_tied(how: str) -> None:
    path = ":".join(p for p in sys.path if p)
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, how], stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": path}
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    until = time.monotonic() + 10.0  # between fork and exec there is none to be read
    while b"MARK=1" not in (environ := Path(f"/proc/{pid}/environ").read_bytes()):
        assert time.monotonic() < until, environ
        time.sleep(0.02)
    assert os.getpgid(pid) == pid
    parent.kill()
    parent.wait()
    parent.stdout.close()
    until = time.monotonic() + (5.0 if how == "tied" else 0.3)
    while lives(pid) and time.monotonic() < until:
        time.sleep(0.02)
    assert lives(pid) == (how == "loose")
    if how == "loose":
        os.kill(pid, signal.SIGKILL)


def test_a_command_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="nothing"):
        Child([str(tmp_path / "nothing")], tied=False)
