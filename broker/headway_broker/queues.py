"""The requests that wait for one model version.

Knows: order, bounds (count and bytes), deadlines. Must not know: workers, batches in flight, replies.

Invariants: `count`, `rows` and `bytes` are the sums over what waits; `earliest` is never after the deadline
of anything that waits (it may be before: taking a request does not recompute it, `expire` and running empty
do).
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from headway.errors import QueueFull
from headway.models import ModelSpec
from headway_broker.catalog import Key

BATCH_BYTES_MAX = 32 << 20
DELAYS = 20  # nobody new came for so many of a model's delays: hardly anybody will in the next


@dataclass(slots=True, eq=False)
class OpenRequest:
    """A request that has no outcome yet. `deadline` and `arrived` are monotonic seconds; `tries` counts
    the batches it was sent in; `rows` is what it takes of a batch (1 for a single example). `slots`: it
    refers to shared memory, and `holders` counts the batches whose worker may still touch that. `stream`: its
    caller takes pieces, and `attempt` says which attempt of the caller's it is; `begun`: it was sent one."""

    caller: bytes
    id: int
    key: Key
    arrived: float
    deadline: float
    rows: int
    batched_rows: int
    options: dict[str, Any]
    tensors: bytes
    tries: int = 0
    open: bool = True
    slots: bool = False
    holders: int = 0
    stream: bool = False
    attempt: int = 0
    begun: bool = False
    sequence: Any = None  # of a model that has them, see `sequences`


class Queue:
    """First in, first out; requests that come back from a lost worker go first, each alone."""

    def __init__(self, spec: ModelSpec) -> None:
        self.spec = spec
        self.count = 0  # as `len`. PERF: asked for several times by each request
        self.rows = 0
        self.bytes = 0
        self.earliest = math.inf
        # For `companies`: for how long nobody new must have come, if batches wait for company, but not in
        # vain, else 0; and who asked lately, and when.
        self.quiet_s = DELAYS * spec.batch_delay_ms / 1000 if spec.batch_early else 0.0
        self.callers: dict[bytes, float] = {}
        # OrderedDict and not dict: popping the first of a plain dict scans over all that went before.
        self._waiting: OrderedDict[int, OpenRequest] = OrderedDict()
        self._returned: OrderedDict[int, OpenRequest] = OrderedDict()

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Any:
        yield from self._returned.values()
        yield from self._waiting.values()

    @property
    def rows_together(self) -> int:
        """How many rows wait that may share a batch."""
        if not self._returned:  # PERF: nearly always
            return self.rows
        return self.rows - sum(request.rows for request in self._returned.values())

    @property
    def oldest(self) -> float:
        """When the longest waiting of those that may share a batch arrived."""
        for request in self._waiting.values():
            return request.arrived
        return math.inf

    @property
    def first(self) -> OpenRequest | None:
        """The longest waiting of those that may share a batch."""
        return next(iter(self._waiting.values()), None)

    @property
    def returns(self) -> int:
        """How many came back from a lost worker, and go first and alone."""
        return len(self._returned)

    @property
    def head(self) -> float:
        """When whatever goes next arrived."""
        return next(iter(self._returned.values())).arrived if self._returned else self.oldest

    def add(self, request: OpenRequest, taken: int = 0) -> None:
        """Append. `taken`: how many of those here are taken at once, and do not count. Raises: QueueFull
        naming the bound."""
        spec = self.spec
        if self.count >= spec.queue_size_max + taken:
            if not spec.queue_size_max:
                raise QueueFull(f"no copy of {spec.name!r} is idle, and it keeps no queue")
            raise QueueFull(f"the queue of {spec.name!r} holds its {spec.queue_size_max} requests")
        if self.bytes + len(request.tensors) > spec.queue_bytes_max and self.count:
            raise self._too_many_bytes()
        self._waiting[id(request)] = request
        self._count(request)

    def put_back(self, request: OpenRequest) -> None:
        """Return a request from a lost worker to the head, to be sent alone. Bounds do not apply: it was
        accepted once."""
        self._returned[id(request)] = request
        self._count(request)

    def take_in(self, request: OpenRequest) -> None:
        """It was accepted by the queue that was here before this one."""
        request.sequence = None
        self.put_back(request)

    def take(self, rows_max: int) -> list[OpenRequest]:
        """The next requests that fit together into `rows_max` rows, and into one message."""
        taken: list[OpenRequest] = []
        rows = size = 0
        for request in self._waiting.values():
            more, larger = rows + request.rows, size + len(request.tensors)
            if taken and (more > rows_max or larger > BATCH_BYTES_MAX):
                break
            rows, size = more, larger
            taken.append(request)
        for _ in taken:
            self._waiting.popitem(last=False)
        self._discount(len(taken), rows, size)
        return taken

    def take_returned(self) -> OpenRequest | None:
        """The next request that must go alone."""
        if not self._returned:
            return None
        _, request = self._returned.popitem(last=False)
        self._discount(1, request.rows, len(request.tensors))
        return request

    def remove(self, request: OpenRequest) -> None:
        """Take out a request that nobody waits for, if it is here."""
        for waiting in (self._waiting, self._returned):
            if waiting.pop(id(request), None) is not None:
                self._discount(1, request.rows, len(request.tensors))

    def expire(self, now: float) -> list[OpenRequest]:
        """Take out what is past its deadline."""
        if now < self.earliest:
            return []
        late = [request for request in self if request.deadline <= now]
        for request in late:
            self.remove(request)
        self.earliest = min((request.deadline for request in self), default=math.inf)
        return late

    def _too_many_bytes(self) -> QueueFull:
        return QueueFull(f"the queue of {self.spec.name!r} holds its {self.spec.queue_bytes_max} bytes")

    def _count(self, request: OpenRequest) -> None:
        self.count += 1
        self.rows += request.rows
        self.bytes += len(request.tensors)
        if request.deadline < self.earliest:
            self.earliest = request.deadline

    def _discount(self, count: int, rows: int, size: int) -> None:
        self.count -= count
        self.rows -= rows
        self.bytes -= size
        if not self.count:
            self.earliest = math.inf
