"""Who may call: `authorization: Bearer KEY` in a call's metadata, checked before anything else is done.

Knows: where a call shows its key. Must not know: what is called, how a refusal is sent.
"""

from __future__ import annotations

from collections.abc import Iterable

from headway_gateway.torchserve.refusal import Refusal
from headway_gateway.torchserve.tokens import REFUSED, Checks, is_allowed

HEADER = "authorization"


class Guard:
    """`keys` None: everybody may."""

    def __init__(self, keys: Checks | None, kind: str) -> None:
        self._keys = keys
        self._kind = kind

    def admit(self, metadata: Iterable[tuple[str, str | bytes]]) -> None:
        """Raises: Refusal, which TorchServe sends without the name of a class."""
        said = next((str(value) for name, value in metadata if name == HEADER), None)
        if not is_allowed(self._keys, self._kind, said):
            raise Refusal(403, "", REFUSED)
