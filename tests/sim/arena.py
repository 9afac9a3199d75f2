"""A false segment: real slots, and a judge of who touches them when.

Workers hold a slot from when a batch that names it reaches them until they are through with it or die, and
read and write it meanwhile. An owner must not use a slot again while it is held; the one exception are slots
of a broker that is gone, a while after the outcome.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from headway.refs import REPLY_SLOT, SLOT
from headway.slots import Slot, Slots

HEADER = 64
SIZE = 1 << 18


@dataclass
class Lent:
    """The slots of one call. `settled` is when it had its outcome."""

    slots: list[Slot]
    settled: float = -1.0


@dataclass
class Arena:
    """One caller's, in one of its lives."""

    name: str
    slots: Slots = field(default_factory=lambda: Slots(SIZE))
    lent: dict[int, Lent] = field(default_factory=dict)
    memory: dict[int, tuple[int, bytes]] = field(default_factory=dict)  # by offset: generation, data

    def ask(self, id: int, tensors: bytes, reply: bool) -> dict[str, Any]:
        """The options for a request whose tensors are in a slot; none when there is no room."""
        slot = self.slots.take(HEADER + len(tensors))
        if slot is None:
            return {}
        self.memory[slot.offset] = slot.generation, tensors
        self.lent[id] = Lent([slot])
        options: dict[str, Any] = {SLOT: [self.name, slot.offset, slot.generation, HEADER, len(tensors)]}
        room = self.slots.take(HEADER + 100) if reply else None
        if room:
            self.memory[room.offset] = room.generation, b""
            self.lent[id].slots.append(room)
            options[REPLY_SLOT] = [self.name, room.offset, room.generation, 100]
        return options

    def settle(self, id: int, now: float) -> None:
        if id in self.lent:
            self.lent[id].settled = now

    def reply(self, id: int, length: int) -> bytes:
        """What a worker wrote into the reply slot."""
        data = self.memory[self.lent[id].slots[1].offset][1]
        assert len(data) == length, "a reply was overwritten"
        return data

    def free(self, id: int) -> list[Slot]:
        """The slots that are free now."""
        slots = self.lent.pop(id).slots
        for slot in slots:
            self.slots.free(slot)
            self.memory[slot.offset] = 0, b""
        return slots

    def read(self, ref: list[Any]) -> bytes | None:
        """A worker reads: None when the slot is another's by now."""
        generation, data = self.memory[ref[1]]
        return data if generation == ref[2] else None

    def write(self, ref: list[Any], data: bytes) -> bool:
        """A worker writes; False when the slot is another's by now."""
        if self.memory[ref[1]][0] != ref[2]:
            return False
        self.memory[ref[1]] = ref[2], data
        return True


def slots_of(options: dict[str, Any]) -> list[tuple[str, int, int]]:
    """Name, offset and generation of each slot that a request names."""
    return [tuple(options[key][:3]) for key in (SLOT, REPLY_SLOT) if key in options]
