"""How requests and replies refer to shared memory: the keys of their options and meta.

Knows: the keys, see PROTOCOL.md section 8. Must not know: segments, who may free a slot.
"""

from __future__ import annotations

from typing import Any

SLOT = "slot"  # of a request: where its tensors are; of a reply: its length in the reply slot
REPLY_SLOT = "reply_slot"
HELD = "held"  # of a reply: somebody may still touch the request's slots


def has_slots(options: dict[str, Any]) -> bool:
    """Whether a request refers to shared memory."""
    return SLOT in options or REPLY_SLOT in options


def without_reply_slot(options: dict[str, Any]) -> dict[str, Any]:
    """For a request that is sent again: who had it first may still write there."""
    return {key: value for key, value in options.items() if key != REPLY_SLOT}


def without_slots(options: dict[str, Any]) -> dict[str, Any]:
    """What is for the model."""
    return {key: value for key, value in options.items() if key not in (SLOT, REPLY_SLOT)}
