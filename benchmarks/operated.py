"""An operator at work while the load goes on: how many requests fail. None should.

    python -m benchmarks.operated [--seconds 300] [--rate 60] [--workers 4]

Starts `headway up --agent` in a folder of its own, puts steady load on it over HTTP and through the direct
client (`benchmarks.steady`), and orders what operators order: a new version, a split of the traffic, all of
it, back again, copies up and down; then it kills and restarts the broker, the agent and every worker, and
begins again until the time is over (one round at least). Prints requests, failures and latencies by what was
going on, and ends with 1 when a request failed. `tests/system/test_operated.py` is one round of it.

Knows: the orders and what must be so after each. Must not know: how requests are asked and checked.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.steady import CODE, MODEL, TOML, Load, Phase, table
from headway.errors import HeadwayError
from headway.manage import Management
from tests.system.stack import HEADWAY, Up, add_model

WAIT_S = 60.0
SCRIPTS = Path(__file__).parents[1] / "scripts"


class Operator:
    """One server's. `hold_s`: how long each state of things is left alone, `split_s` for the split: there the
    answers are counted. `split`: the phases with one."""

    def __init__(self, up: Up, state_dir: Path, load: Load, hold_s: float, split_s: float) -> None:
        self.up, self.state_dir, self.load = up, state_dir, load
        self.hold_s, self.split_s = hold_s, split_s
        self.management = management_of(up, state_dir)
        self.split: list[Phase] = []

    # ---- a round ----

    def round(self, most: int, workers: int) -> None:
        """Everything once: up to so many copies, and then so many workers, two copies, and all that can end
        ends. Version 2 must not be served when it begins."""
        self.hold("before", "1")
        self.versions()
        self.copies(most)
        self.restarts(workers)

    def versions(self) -> None:
        orders = self.management
        orders.default(MODEL, "1", wait_s=WAIT_S)  # the latest would have all traffic at once otherwise
        self.load.phase("deploy version 2", "1")
        if not (self.up.folder / "models" / MODEL / "2").exists():
            add_model(self.up.folder / "models", MODEL, TOML, CODE % 2, "2")
        orders.register(f"{MODEL}/2", wait_s=WAIT_S)
        self.load.phase("order a split", "1", "2")
        orders.split(MODEL, {"1": 90, "2": 10}, wait_s=WAIT_S)
        self.split.append(self.hold("split 10 %", "1", "2", seconds=self.split_s))
        self.split.append(self.load.phase("split, broker by SIGTERM", "1", "2"))
        self.restart("headway_broker", signal.SIGTERM)
        self.load.phase("move to 100 %", "1", "2")
        orders.default(MODEL, "2", wait_s=WAIT_S)
        orders.split(MODEL, {}, wait_s=WAIT_S)
        self.hold("all on version 2", "2")
        self.load.phase("roll back", "1", "2")
        orders.default(MODEL, "1", wait_s=WAIT_S)
        self.hold("all on version 1", "1")
        orders.unregister(MODEL, "2")

    def copies(self, most: int) -> None:
        self.load.phase(f"scale 1 to {most}", "1")
        self.management.scale(MODEL, most, version="1", wait_s=WAIT_S)
        self.hold(f"{most} copies", "1")
        self.load.phase(f"scale {most} to 1", "1")
        self.management.scale(MODEL, 1, version="1", wait_s=WAIT_S)
        self.wait_for(lambda: len(self.state()["workers"]) == most and self.is_whole(1, most))
        self.hold("1 copy", "1")
        self.load.phase("kill the only copy's worker", "1")
        self.kill_worker(next(w["name"] for w in self.state()["workers"] if w["copies"]), 1, most)

    def restarts(self, workers: int) -> None:
        """Broker, agent, each worker by SIGKILL, drained, and all in turn."""
        copies = 2
        self.load.phase(f"{copies} copies, {workers} workers", "1")
        self.management.workers(self.host, workers)
        self.management.scale(MODEL, copies, version="1", wait_s=WAIT_S)
        self.wait_for(lambda: self.is_whole(copies, workers))
        self.load.phase("kill the broker", "1")
        self.restart("headway_broker", signal.SIGKILL)
        self.wait_for(lambda: self.is_whole(copies, workers))
        self.hold("after the broker", "1")
        self.load.phase("kill the agent", "1")
        self.kill_agent()
        for name in self.names():
            self.load.phase("kill each worker in turn", "1")
            self.kill_worker(name, copies, workers)
        for name in self.names():
            self.load.phase("drain each worker in turn", "1")
            self.headway("drain", name, "--wait")
            self.wait_for(lambda: self.is_whole(copies, workers))
        self.load.phase("rolling restart", "1")
        self.rolling_restart()
        self.wait_for(lambda: self.is_whole(copies, workers))
        self.hold("after all", "1")

    # ---- what it does ----

    def hold(self, name: str, *versions: str, seconds: float | None = None) -> Phase:
        phase = self.load.phase(name, *versions)
        time.sleep(self.hold_s if seconds is None else seconds)
        return phase

    def restart(self, word: str, number: int) -> None:
        """End the process with `word` in its command line; `up` starts it again."""
        [pid] = self.up.pids(word)
        os.kill(pid, number)
        self.wait_for(lambda: self.up.pids(word) not in ([], [pid]))
        self.wait_for(lambda: bool(self.state()["workers"]))

    def kill_agent(self) -> None:
        """Its workers must live on, and the next agent know them."""
        before = {w["name"]: w["pid"] for w in self.state()["workers"] if not w["draining"]}
        self.restart("headway_worker.agent", signal.SIGKILL)
        self.wait_for(lambda: self.running() == before)  # those that had left the roster take a while to end

    def kill_worker(self, name: str, copies: int, workers: int) -> None:
        [pid] = [w["pid"] for w in self.state()["workers"] if w["name"] == name]
        os.kill(pid, signal.SIGKILL)
        self.wait_for(lambda: all(w["pid"] != pid for w in self.state()["workers"]))
        self.wait_for(lambda: self.is_whole(copies, workers))

    def rolling_restart(self) -> None:
        command = self.up.folder / "headway"
        command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m headway "$@"\n')
        command.chmod(0o755)
        called([str(SCRIPTS / "rolling-restart"), *self._where], HEADWAY=str(command))

    def headway(self, *arguments: str) -> None:
        called([*HEADWAY, *arguments, *self._where])

    @property
    def _where(self) -> list[str]:
        return ["--management", self.up.management, "--token-file", str(self.state_dir / "token")]

    # ---- what is so ----

    @property
    def host(self) -> str:
        return str(self.state()["broker"]["host"])

    def running(self) -> dict[str, int]:
        """The agent's worker processes."""
        return {
            worker["name"]: worker["pid"]
            for agent in self.state()["agents"]
            for worker in agent["workers"]
            if worker["state"] == "running"
        }

    def names(self) -> list[str]:
        return sorted(w["name"] for w in self.state()["workers"])

    def state(self) -> dict[str, Any]:
        return self.management.state()

    def is_whole(self, copies: int, workers: int) -> bool:
        """So many workers serve, and so many copies of version 1 are ready and none is on its way."""
        state = self.state()
        alive = [
            w for w in state["workers"] if not w["draining"] and w["state"] not in ("leaving", "loading")
        ]
        [model] = [m for m in state["models"] if m["name"] == MODEL and m["version"] == "1"]
        return len(alive) == workers and model["ready"] == copies == sum(bool(w["copies"]) for w in alive)

    def wait_for(self, true: Callable[[], bool]) -> None:
        """Raises: AssertionError with the state when it does not come."""
        give_up = time.monotonic() + WAIT_S
        while not _is(true):
            assert time.monotonic() < give_up, f"not within {WAIT_S:g} s: {self.state()}"
            time.sleep(0.1)


def _is(true: Callable[[], bool]) -> bool:
    try:
        return true()
    except HeadwayError:
        return False  # the broker is away; so is its state


def management_of(up: Up, state_dir: Path) -> Management:
    return Management(up.management, (state_dir / "token").read_text().strip())


def called(command: list[str], **environment: str) -> None:
    """Raises: AssertionError with what it said when it fails."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=os.environ | environment)
    assert done.returncode == 0, f"{command}: {done.returncode}: {done.stdout}{done.stderr}"


def started(folder: Path, workers: int) -> Up:
    """`headway up --agent` on the models in `folder`, ready."""
    up = Up(folder, "--agent", "--state-dir", str(folder / "state"), workers=workers)
    try:
        up.hear("ready: http://")
    except BaseException:
        up.close()
        raise
    return up


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--rate", type=float, default=60.0, help="requests a second by each of three doors")
    parser.add_argument("--workers", type=int, default=4, help="at most")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="hw-", dir="/dev/shm"))
    add_model(folder / "models", MODEL, TOML, CODE % 1)
    try:
        up = started(folder, options.workers)
        try:
            load = operated(up, options)
        finally:
            up.end(signal.SIGINT)
            up.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print("\n".join(load.failures[:20]))
    sys.exit(1 if load.failures else 0)


def operated(up: Up, options: argparse.Namespace) -> Load:
    until = time.monotonic() + options.seconds
    with Load(up.http, up.direct, options.rate) as load:
        try:
            while True:
                operator = Operator(up, up.folder / "state", load, hold_s=3.0, split_s=6.0)
                operator.round(options.workers, max(options.workers - 1, 2))
                if time.monotonic() >= until:
                    return load
                operator.management.workers(operator.host, None)
                operator.management.scale(MODEL, 1, version="1", wait_s=WAIT_S)
        finally:
            print(table(load.phases, time.monotonic()), flush=True)


if __name__ == "__main__":
    main()
