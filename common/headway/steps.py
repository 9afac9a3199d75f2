"""A request's place in a sequence: requests that one copy of a model answers, one after the other.

Pure. Knows: how it travels in a request's options. Must not know: who keeps sequences.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from headway.errors import InvalidInput

SEQUENCE, STARTS, ENDS, TRUE = "sequence", "sequence_start", "sequence_end", "true"
SEQUENCE_CHARS_MAX = 256


class Step(NamedTuple):
    """`sequence` is the caller's name for it, one for all callers of a model. `starts`: it begins with this
    request, whatever there was before under its name. `ends`: nothing of it comes after this request."""

    sequence: str
    starts: bool = False
    ends: bool = False

    @property
    def options(self) -> dict[str, Any]:
        """Raises: InvalidInput for a name that cannot be."""
        if not _is_name(self.sequence):
            raise InvalidInput(f"{_NAMED}, not {self.sequence!r:.40}")
        flags = {STARTS: self.starts, ENDS: self.ends}
        return {SEQUENCE: self.sequence, **{key: TRUE for key, said in flags.items() if said}}


_NAMED = f"a sequence is named by a string of 1 to {SEQUENCE_CHARS_MAX} characters"


def step_of(options: Mapping[str, Any]) -> Step | None:
    """None: the request is of no sequence. Raises: InvalidInput for a name that cannot be."""
    name = options.get(SEQUENCE)
    if name is None:
        return None
    if not _is_name(name):
        raise InvalidInput(f"{_NAMED}, not {name!r:.40}")
    return Step(name, options.get(STARTS) == TRUE, options.get(ENDS) == TRUE)


def _is_name(said: Any) -> bool:
    return isinstance(said, str) and 0 < len(said) <= SEQUENCE_CHARS_MAX
