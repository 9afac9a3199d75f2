"""Who may call: `authorization: Bearer KEY` in a call's metadata, checked before anything else is done.

Knows: the header, the kinds of keys. Must not know: what is called, how a refusal is sent.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from headway_gateway.torchserve.refusal import Refusal

HEADER = "authorization"
_SCHEME = "bearer"
_TEXT = "Token Authorization failed. Token either incorrect, expired, or not provided correctly"


class Keys(Protocol):
    """See `headway.torchserve.keys`."""

    def check(self, kind: str, given: str) -> bool: ...


class Guard:
    """`keys` None: everybody may."""

    def __init__(self, keys: Keys | None, kind: str) -> None:
        self._keys = keys
        self._kind = kind

    def admit(self, metadata: Iterable[tuple[str, str | bytes]]) -> None:
        """Raises: Refusal, which TorchServe sends without the name of a class."""
        if self._keys is None:
            return
        said = next((value for name, value in metadata if name == HEADER), "")
        scheme, _, token = str(said).partition(" ")
        if scheme.lower() != _SCHEME or not self._keys.check(self._kind, token.strip()):
            raise Refusal(403, "", _TEXT)
