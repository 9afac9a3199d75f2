"""`ts.torch_handler.request_envelope`: other shapes of requests and replies around a handler.

Knows: the envelopes by name.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from headway.errors import SettingsError

NAMES = ("body", "json", "kserve", "kservev2")


def envelope_of(name: str, handle: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """The handler inside the envelope. Raises: SettingsError for one that nobody knows."""
    if name not in NAMES:
        raise SettingsError(f"envelope: {name!r} is not one of {', '.join(NAMES)}")
    module = importlib.import_module(f"{__name__}.{name}")
    function: Callable[[Any, Any], Any] = module.Envelope(handle).handle
    return function
