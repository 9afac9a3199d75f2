"""The ASGI apps of the TorchServe door: the parts of its HTTP interface put together.

Knows: which parts there are, and which address each answers on. Must not know: what they do.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headway.settings import GatewaySettings
from headway_gateway.doors import Doors, Place


def create_doors(client: Any, settings: GatewaySettings, places: Mapping[str, Place]) -> Doors:
    """All apps over `client`, an `AsyncClient` that is not open yet."""
    raise NotImplementedError
