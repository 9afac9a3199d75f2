"""A stand-in for systemctl and systemd: starts real processes, keeps what it knows in the script's folder.

Of a unit `headway-worker@NAME.service` it reads FOLDER/run/agent/NAME.env and runs FOLDER/worker with the
variables in there. A keeper process of its own waits for it, as systemd does. Files in FOLDER change how it
behaves:

    calls           every call is written down here
    refuses         `start` fails and prints what is in it
    restarts-NAME   a unit that ended badly is started again, half a second later
    slow            an end is known only 0.3 s after it
"""

from __future__ import annotations

import fnmatch
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

FOLDER = Path(__file__).parent
IDLE = {"ActiveState": "inactive", "Job": "0", "MainPID": "0", "NRestarts": "0"}
IDLE |= {"Result": "success", "ExecMainCode": "0", "ExecMainStatus": "0"}


def state_of(unit: str) -> dict[str, str]:
    file = FOLDER / f"{unit}.json"
    return json.loads(file.read_text()) if file.exists() else dict(IDLE)


def save(unit: str, **changes: object) -> None:
    state = state_of(unit) | {key: str(value) for key, value in changes.items()}
    part = FOLDER / f"{unit}.part{os.getpid()}"
    part.write_text(json.dumps(state))
    part.rename(FOLDER / f"{unit}.json")


def start(unit: str) -> int:
    if (FOLDER / "refuses").exists():
        print((FOLDER / "refuses").read_text(), file=sys.stderr)
        return 1
    save(unit, **IDLE | {"Job": "17"})  # a job that is queued: the unit is still inactive
    if os.fork():
        return 0
    os.setsid()
    for descriptor in range(3):
        os.close(descriptor)
        os.open(os.devnull, os.O_RDWR)
    time.sleep(0.1)
    keep(unit)
    os._exit(0)


def keep(unit: str) -> None:
    name = unit.removeprefix("headway-worker@").removesuffix(".service")
    restarts = 0
    while True:
        lines = (FOLDER / "run" / "agent" / f"{name}.env").read_text().splitlines()
        pairs = [shlex.split(line)[0].partition("=") for line in lines if not line.startswith("#")]
        environment = os.environ | {key: value for key, _, value in pairs}
        worker = subprocess.Popen([str(FOLDER / "worker")], env=environment, process_group=0)
        save(unit, **IDLE | {"ActiveState": "active", "MainPID": worker.pid, "NRestarts": restarts})
        code = worker.wait()
        if (FOLDER / "slow").exists():
            time.sleep(0.3)
        result = "exit-code" if code > 0 else "signal"
        ended = {"ExecMainCode": 1 if code > 0 else 2, "ExecMainStatus": abs(code), "Result": result}
        if code == 0:  # systemd forgets all about a unit that ended well
            save(unit, **IDLE)
            return
        if not (FOLDER / f"restarts-{name}").exists():
            save(unit, ActiveState="failed", MainPID=0, **ended)
            return
        save(unit, ActiveState="activating", MainPID=0, **ended)
        time.sleep(0.5)
        restarts += 1


def send(unit: str, number: int) -> int:
    pid = int(state_of(unit)["MainPID"])
    if pid:
        os.kill(pid, number)
    return 0


def show(patterns: list[str]) -> int:
    known = [file.stem for file in FOLDER.glob("*.service.json")]
    parts = []
    for pattern in patterns:
        units = fnmatch.filter(known, pattern) if "*" in pattern else [pattern]
        parts += [{"Id": unit} | state_of(unit) for unit in units]
    print("\n\n".join("\n".join(f"{k}={v}" for k, v in part.items()) for part in parts))
    return 0


def main() -> int:
    with (FOLDER / "calls").open("a") as calls:
        calls.write(" ".join(sys.argv[1:]) + "\n")
    verb, *rest = sys.argv[1:]
    units = [word for word in rest if not word.startswith("--")]
    if verb == "show":
        return show(units)
    verbs = {"start": start, "stop": lambda unit: send(unit, signal.SIGTERM)}
    return (verbs | {"kill": lambda unit: send(unit, signal.SIGKILL)})[verb](units[0])


if __name__ == "__main__":
    sys.exit(main())
