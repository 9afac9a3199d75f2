"""Which part of a segment belongs to which request, pure.

Knows: sizes, offsets, generations. Must not know: memory, files, who uses a slot.

A buddy allocator over one arena (Knowlton, *A fast storage allocator*, CACM 8(10), 1965): blocks are powers
of two, a block is split in halves until it fits, and joins its other half again when both are free. Taking
and freeing cost a few dictionary operations, and blocks that were used last are used first, because their
pages are warm.

Invariants (proved by `check`): blocks do not overlap, free ones and taken ones cover the arena, no two
free halves of one block stay apart, a generation is never used twice.
"""

from __future__ import annotations

from typing import NamedTuple

BLOCK_BYTES_MIN = 4096


class Slot(NamedTuple):
    """`length` bytes at `offset` of the segment, from when they were taken until they are freed."""

    offset: int
    length: int
    generation: int


class Slots:
    """The slots of one arena of `size` bytes, a power of two of at least BLOCK_BYTES_MIN."""

    def __init__(self, size: int) -> None:
        if size < BLOCK_BYTES_MIN or size & (size - 1):
            raise ValueError(f"an arena is a power of two of at least {BLOCK_BYTES_MIN} bytes, not {size}")
        self.size = size
        self._free: dict[int, dict[int, None]] = {size: {0: None}}  # by block size: offsets, oldest first
        self._taken: dict[int, tuple[int, int]] = {}  # offset: (block size, generation)
        self._generation = 0

    def __len__(self) -> int:
        """How many slots are taken."""
        return len(self._taken)

    def take(self, length: int) -> Slot | None:
        """A slot of at least `length` bytes, or None when there is no room."""
        block = max(BLOCK_BYTES_MIN, 1 << max(length - 1, 0).bit_length())
        offset = self._take_block(block)
        if offset is None:
            return None
        self._generation += 1
        self._taken[offset] = (block, self._generation)
        return Slot(offset, length, self._generation)

    def free(self, slot: Slot) -> None:
        """Give a slot back. Raises: ValueError for one that is not taken, or not any more."""
        block, generation = self._taken.get(slot.offset, (0, 0))
        if generation != slot.generation:
            raise ValueError(f"slot {slot} is not taken")
        del self._taken[slot.offset]
        self._join(slot.offset, block)

    def check(self) -> None:
        """Raise AssertionError if an invariant does not hold."""
        blocks = [(offset, size) for size, offsets in self._free.items() for offset in offsets]
        for offset, size in blocks:
            assert (offset ^ size) not in self._free[size], "two free halves stay apart"
        blocks += [(offset, block) for offset, (block, _) in self._taken.items()]
        end = 0
        for offset, size in sorted(blocks):
            assert offset == end and offset % size == 0, f"a gap or an overlap at {end}"
            end += size
        assert end == self.size, "the arena is not covered"
        generations = [generation for _, generation in self._taken.values()]
        assert len(set(generations)) == len(generations), "a generation is used twice"

    def _take_block(self, block: int) -> int | None:
        size = block
        while not self._free.get(size):
            size *= 2
            if size > self.size:
                return None
        offset, _ = self._free[size].popitem()
        while size > block:
            size //= 2
            self._free.setdefault(size, {})[offset + size] = None
        return offset

    def _join(self, offset: int, size: int) -> None:
        while size < self.size and (offset ^ size) in self._free.get(size, {}):
            del self._free[size][offset ^ size]
            offset &= ~size
            size *= 2
        self._free.setdefault(size, {})[offset] = None
