"""Which models are registered, and as what: the `torchserve.json` of every version in the broker's store.

Knows: the store's folders, how to ask the broker where it is and which versions are the default ones. Must not
know: HTTP, how a version gets there.
"""

from __future__ import annotations

from typing import Any

from headway.torchserve.registration import Registration


class Registry:
    """`client`: an `AsyncClient` or stub."""

    def __init__(self, client: Any) -> None:
        self._client = client

    async def of(self, model: str, version: str = "") -> Registration | None:
        """What a version was registered as; "" is the default version. Cheap where it is known."""
        raise NotImplementedError

    async def models(self) -> dict[str, dict[str, Registration]]:
        """Everything that is registered now, by model and version; models sorted by name, versions in the order
        of versions."""
        raise NotImplementedError
