"""What a traceback says to people who have no room for all of it.

Pure. Knows: that the reason is in the last line. Must not know: where the text comes from.
"""

from __future__ import annotations


def last_line(text: str) -> str:
    """The line that says what was wrong; of other texts the last one."""
    return text.strip().rsplit("\n", 1)[-1].strip()
