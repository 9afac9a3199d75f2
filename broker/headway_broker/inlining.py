"""Batches for workers on other hosts: what lies in the callers' shared memory goes into the message.

Knows: references to slots, how large a message may be. Must not know: sockets, the scheduler, which workers
are remote.

A reference that is wrong or stale, and a request that makes its batch larger than a message, is answered
here in the worker's place, with a part of the batch's result. Such a request stays in the batch, empty, so
that the places of the others do not move; what the worker says of it means nothing any more.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import msgpack

from headway.errors import HeadwayError, TooLarge
from headway.messages import (
    MESSAGE_BYTES_MAX,
    Batch,
    Batches,
    BatchReply,
    BatchRequest,
    Message,
    Requests,
    Result,
)
from headway.parts import parts
from headway.refs import SLOT, has_slots, without_slots
from headway.shm import Mapped

FRAMING_BYTES = 64  # more than a request's numbers and the lengths of its fields take
BATCH_BYTES_MAX = MESSAGE_BYTES_MAX - 65536


class Inlined(NamedTuple):
    """What is to be sent, and what is to be settled in the worker's place."""

    messages: list[Batches]
    results: list[Result]


class Inliner:
    """Reads the segments in `folder`, as a worker on this host does."""

    def __init__(self, folder: Path) -> None:
        self._mapped = Mapped(folder)

    def outgoing(self, batches: list[Batch]) -> Inlined:
        """The same batches without references to shared memory."""
        whole: list[Batch] = []
        results: list[Result] = []
        for batch in batches:
            if not any(has_slots(request.options) for request in batch.requests):
                whole.append(batch)
                continue
            requests, refused = self._read(batch)
            results += _results(batch, refused)
            if len(refused) < len(requests):
                whole.append(batch._replace(requests=requests))
        sent = [Batches(part) for part in parts(whole, _size)] if whole else []
        return Inlined(sent, results)

    def tidy(self) -> None:
        """Let go of the segments of callers that are gone."""
        self._mapped.tidy()

    def close(self) -> None:
        self._mapped.close()

    def _read(self, batch: Batch) -> tuple[list[BatchRequest], dict[int, HeadwayError]]:
        requests: list[BatchRequest] = []
        refused: dict[int, HeadwayError] = {}
        size = 0
        for place, request in enumerate(batch.requests):
            options, packed = without_slots(request.options), request.tensors
            try:
                if SLOT in request.options:
                    packed = bytes(self._mapped.request(request.options[SLOT]))
                needed = FRAMING_BYTES + len(msgpack.packb(options)) + len(packed)
                if size + needed > BATCH_BYTES_MAX:
                    raise _too_large(size + needed)
            except HeadwayError as error:
                refused[place] = error
                options, packed, needed = {}, b"", FRAMING_BYTES
            size += needed
            requests.append(request._replace(options=options, tensors=packed))
        return requests, refused


def from_elsewhere(message: Message) -> Message:
    """What a caller on another host said, without references to this host's memory, which it cannot have."""
    if not isinstance(message, Requests) or not any(has_slots(r.options) for r in message.requests):
        return message
    return Requests([r._replace(options=without_slots(r.options)) for r in message.requests])


def _results(batch: Batch, refused: dict[int, HeadwayError]) -> list[Result]:
    """A part of the batch's result for each that is refused. With nobody left it is all of the result."""
    parts = [
        Result(batch.id, 0, [BatchReply(error.code, str(error), {})], place, 0)
        for place, error in refused.items()
    ]
    if len(refused) == len(batch.requests):
        parts[-1] = parts[-1]._replace(done=1)
    return parts


def _too_large(size: int) -> TooLarge:
    return TooLarge(
        f"with this request its batch has {size} bytes, and to a worker on another host go at most"
        f" {BATCH_BYTES_MAX}: send less, or lower the model's batch_size_max"
    )


def _size(batch: Batch) -> int:
    return sum(len(request.tensors) for request in batch.requests)
