"""The end of a worker's process.

Knows: what an interpreter does at its end, and which part of it is worth waiting for.
Must not know: models, the broker.

Taking apart an interpreter that has torch in it takes half a second of a core, and when a server stops many
workers end at once. So what was to be done at the end is done (`atexit`: temporary folders, models' own),
what was printed is flushed, and the kernel takes the rest. Threads that a model has left running are not
waited for: some never end.
"""

from __future__ import annotations

import atexit
import os
import sys
from contextlib import suppress
from typing import NoReturn

from headway_worker import device


def leave(code: int) -> NoReturn:
    """End the process, whose loop has ended. One that used CUDA ends in full: the driver has things to tell
    its daemon then."""
    if device.was_used():
        sys.exit(code)
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):  # a pipe that nobody reads; closed; none
            stream.flush()
    os._exit(code)
