"""What systemd says of a unit, and the environment file that it reads for one. Pure.

Knows: properties of units, quoting. Must not know: processes, how systemd is asked.
"""

from __future__ import annotations

from collections.abc import Mapping

from headway.exits import Exit, how_it_ended

PROPERTIES = "Id,ActiveState,Job,MainPID,NRestarts,Result,ExecMainCode,ExecMainStatus"
EXITED = "1"  # CLD_EXITED, as systemctl writes it; 2 and 3 are ends by a signal
KNOWN_RESULTS = ("", "success", "exit-code", "signal", "core-dump")  # that say no more than the code does

Properties = dict[str, str]


def parse(said: str) -> Properties:
    """What `systemctl show` printed of one unit."""
    pairs = (line.partition("=") for line in said.splitlines())
    return {key: value for key, _, value in pairs}


def is_over(found: Properties) -> bool:
    """Nothing runs, and nothing is on its way."""
    return found.get("ActiveState") in ("inactive", "failed") and found.get("Job", "") in ("", "0")


def how(found: Properties, was_up: bool = False) -> str:
    """As `how_it_ended` says it, and what systemd knows beyond that. `was_up`: it is known to have run."""
    result, code = found.get("Result", ""), found.get("ExecMainCode", "0")
    said = found.get("ExecMainStatus", "")
    status = int(said) if said.isdecimal() else 0
    if code == "0" and was_up and result in ("", "success"):
        return "ended well, as systemd says"  # which forgets at once the code of a unit that did
    if code == "0":
        return f"did not start: systemd says {result or 'nothing'}"
    ended = how_it_ended(status if code == EXITED else -status)
    if result == "oom-kill":
        return f"{ended} (out of memory: systemd says oom-kill)"
    return ended if result in KNOWN_RESULTS else f"{ended} (systemd: {result})"


def is_fault(found: Properties) -> bool:
    """Whether its main process reported a fatal fault of its device."""
    return found.get("ExecMainCode") == EXITED and found.get("ExecMainStatus") == str(int(Exit.DEVICE_FAULT))


def main_pid(found: Properties) -> int:
    """0: there is no main process now."""
    said = found.get("MainPID", "")
    return int(said) if said.isdecimal() else 0


def environment_file(variables: Mapping[str, str]) -> str:
    """Lines that systemd reads back as these variables. Raises: ValueError for a value that none can hold."""
    for key, value in variables.items():
        if not value.isprintable():
            raise ValueError(f"{key} has a value that no environment file can hold")
    return "".join(f'{key}="{_escaped(value)}"\n' for key, value in variables.items())


def _escaped(value: str) -> str:
    return "".join(f"\\{c}" if c in '"\\$`' else c for c in value)
