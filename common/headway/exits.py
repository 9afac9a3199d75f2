"""Exit codes with names, so that `headway up`, systemd and a shell script read the same thing in them.

Knows: the codes, most of them those of `sysexits.h`.
Must not know: which process ends with which, and when.
"""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """How a process of Headway ends."""

    OK = 0
    """All went well; also when told to stop."""

    FAILED = 1
    """Something went wrong, and doing the same again fails again (or nobody knows better)."""

    USAGE = 2
    """The command line is wrong; click's code. Starting the same again is of no use."""

    ADDRESS_BUSY = 69
    """Somebody else listens on the gateway's address; they may leave."""

    STUCK = 70
    """A worker whose batch outlived its lease and that the broker dismissed: start another in its place."""

    DEVICE_FAULT = 71
    """The GPU reported a fatal fault; whatever else runs on it must be started anew."""

    LOCKED = 73
    """Another broker owns the run directory. Starting the same again is of no use while it lives."""

    TEMPORARY = 75
    """No room, or nobody there: the same again may help (`EX_TEMPFAIL`)."""

    CONFIG = 78
    """Wrong settings (`EX_CONFIG`). The same again is of no use: systemd's RestartPreventExitStatus=78."""


FINAL = frozenset({Exit.USAGE, Exit.LOCKED, Exit.CONFIG})
"""Codes after which a supervisor does not start the process again."""
