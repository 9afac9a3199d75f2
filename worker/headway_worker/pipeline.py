"""The order of the runner's steps: which batch is prepared, launched or finished next. Pure.

Knows: which batches and orders wait, in the order in which they came; which batches are in flight.
Must not know: what a batch is, what preparing it takes, threads, clocks, torch.

How it works. A batch is *prepared* (decoded, checked, collated), *launched* on its device, and *finished*
(waited for, answered). On a GPU a launch returns at once, and two batches are in flight: one computes while
the other is copied in. On the CPU a launch is the computation itself, and one is in flight. Whoever drives
the pipeline asks `next` and does as it says; it is assumed to be done when `next` is called again.

    wait ── Prepare ── Launch ──(in flight)── Finish
    wait ────────────────────── Obey                    a load or unload: a barrier

Batches that run beside one another (`abreast`) are launched like all others, and the driver takes them out at
once (`land`): they end by themselves. Only an order waits for them too.

`ahead` gives out the preparing of the batch at the head to somebody who does it while the driver is inside
a launch. Only then do two threads hold the pipeline: the one has what waits (`add`, `bar`, `ahead`), the
other what is in flight (`land`).

Invariants: batches are launched and finished in the order in which they came, each exactly once; no more
are in flight than each of them allows; an order is obeyed after everything that came before it was
finished, and before anything that came after it is prepared.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

B = TypeVar("B")  # a batch
O = TypeVar("O")  # an order that is a barrier  # noqa: E741


@dataclass(slots=True)
class Prepare(Generic[B]):
    """Make the batch ready to be launched."""

    batch: B


@dataclass(slots=True)
class Launch(Generic[B]):
    """Hand the batch to its device."""

    batch: B


@dataclass(slots=True)
class Watch(Generic[B]):
    """Nothing to do but to wait: for a new order, or until this batch is done; then call `land`."""

    batch: B


@dataclass(slots=True)
class Finish(Generic[B]):
    """Wait until the batch is done, and answer it."""

    batch: B


@dataclass(slots=True)
class Obey(Generic[O]):
    """Do what the order says; nothing is in flight."""

    order: O


class Pipeline(Generic[B, O]):
    """`depth` says how many batches may be in flight together with a given one, `is_quiet` whether none runs
    that was taken out."""

    def __init__(self, depth: Callable[[B], int], is_quiet: Callable[[], bool] = lambda: True) -> None:
        self._depth = depth
        self._is_quiet = is_quiet
        self._waiting: deque[B | Obey[O]] = deque()
        self._prepared = False  # whether the batch at the head is
        self._flying: deque[B] = deque()

    def add(self, batch: B) -> None:
        """A batch has come."""
        self._waiting.append(batch)

    def bar(self, order: O) -> None:
        """An order has come that must not overtake anything, nor be overtaken."""
        self._waiting.append(Obey(order))

    def next(self) -> Prepare[B] | Launch[B] | Watch[B] | Finish[B] | Obey[O] | None:
        """What to do now; None: nothing waits, and nothing is in flight, or only what ends by itself."""
        if not self._waiting:
            return Watch(self._flying[0]) if self._flying else None
        head = self._waiting[0]
        if self._flying and (isinstance(head, Obey) or len(self._flying) >= self._room(head)):
            return Finish(self.land())
        if isinstance(head, Obey):
            if not self._is_quiet():
                return None
            self._waiting.popleft()
            return head
        if not self._prepared:
            self._prepared = True
            return Prepare(head)
        self._waiting.popleft()
        self._prepared = False
        self._flying.append(head)
        return Launch(head)

    def ahead(self, may: Callable[[B], bool]) -> B | None:
        """The batch at the head, if it is not prepared and `may` says so. Whoever takes it prepares it
        before the driver calls `next` again."""
        if not self._waiting or self._prepared:
            return None
        head = self._waiting[0]
        if isinstance(head, Obey) or not may(head):
            return None
        self._prepared = True
        return head

    def land(self) -> B:
        """The oldest batch in flight, which is done, or is waited for now: finish it."""
        return self._flying.popleft()

    @property
    def waiting(self) -> Iterator[B]:
        """The batches that were not launched yet."""
        return (entry for entry in self._waiting if not isinstance(entry, Obey))

    @property
    def in_flight(self) -> tuple[B, ...]:
        """The batches that were launched and not finished, oldest first."""
        return tuple(self._flying)

    @property
    def is_open(self) -> bool:
        """Whether nothing waits: the next batch to come is the next to be prepared."""
        return not self._waiting

    def _room(self, head: B) -> int:
        return min(map(self._depth, (*self._flying, head)))
