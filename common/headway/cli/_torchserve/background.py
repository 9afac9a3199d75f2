"""A server that outlives the command that started it.

Knows: sessions, descriptors, how the command is called. Must not know: what is served.

The command starts itself once more, with a session of its own, no terminal, and a file to print into. It
waits until that one says that it has started, or ends.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

TELL = "--tell"  # a descriptor to say on that the server has started


def in_background(words: Sequence[str], output: Path) -> int:
    """Run `headway torchserve WORDS` in a process of its own; 0 once it has started, else its exit code, and
    what it printed on stderr. Raises: OSError."""
    output.parent.mkdir(parents=True, exist_ok=True)
    hearing, telling = os.pipe()
    with output.open("ab") as file:
        start = file.tell()
        process = subprocess.Popen(
            [sys.executable, "-m", "headway", "torchserve", *words, TELL, str(telling)],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            pass_fds=[telling],
            start_new_session=True,
        )
    os.close(telling)
    with os.fdopen(hearing, "rb") as told:
        if told.read(1):
            process.returncode = 0  # or its end would be waited for
            return 0
    code = process.wait()
    with output.open("rb") as lines:
        lines.seek(start)
        sys.stderr.write(lines.read().decode(errors="replace"))
    return code or 1


def tell(telling: int) -> None:
    """To the command that waits; it may be gone."""
    with suppress(OSError):
        os.write(telling, b"+")
        os.close(telling)
