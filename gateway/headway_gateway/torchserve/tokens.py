"""Whether a request shows the key that its interface needs.

Knows: how a client shows a key. Must not know: which request it is, where keys are kept.
"""

from __future__ import annotations

from typing import Protocol

from headway_gateway.torchserve.refusal import Refusal

INFERENCE, MANAGEMENT = "inference", "management"
REFUSED = "Token Authorization failed. Token either incorrect, expired, or not provided correctly"
_SCHEME = "Bearer "


class Checks(Protocol):
    """`headway.torchserve.keys.Keys`."""

    def check(self, kind: str, given: str) -> bool: ...


def is_allowed(keys: Checks | None, kind: str, authorization: str | None) -> bool:
    """Without `keys` everybody is."""
    if keys is None:
        return True
    said = authorization or ""
    return said.startswith(_SCHEME) and keys.check(kind, said[len(_SCHEME) :].strip())


def require(keys: Checks | None, kind: str, authorization: str | None) -> None:
    """Raises: Refusal."""
    if not is_allowed(keys, kind, authorization):
        raise Refusal(400, "InvalidKeyException", REFUSED)
