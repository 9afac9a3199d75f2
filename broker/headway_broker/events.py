"""What the scheduler hears, and what it asks its router to do.

A peer is named by its ZeroMQ identity, as bytes. Callers and workers connect to two sockets, so their
identities are two name spaces.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from headway.messages import Message
from headway.models import ModelSpec


class FromCaller(NamedTuple):
    """A caller sent this."""

    caller: bytes
    message: Message


class FromWorker(NamedTuple):
    """A worker sent this."""

    worker: bytes
    message: Message


class CallerGone(NamedTuple):
    """A send to the caller found no route."""

    caller: bytes


class WorkerGone(NamedTuple):
    """A send to the worker found no route, or somebody knows that its process ended. `dead` 0: it does not
    read what it is sent, and may live."""

    worker: bytes
    reason: str
    dead: bool = True


class StoreRead(NamedTuple):
    """The model store was read: since `ReadStore` asked for it (`asked`), or of the router's own accord.
    `error`: why it could not be."""

    specs: list[ModelSpec]
    broken: dict[tuple[str, str], str]
    error: str = ""
    asked: bool = True


class Refused(NamedTuple):
    """Bytes arrived at the `callers` or the `workers` socket that are no message."""

    side: str


class ToCaller(NamedTuple):
    """Send this to a caller."""

    caller: bytes
    message: Message


class ToWorker(NamedTuple):
    """Send this to a worker."""

    worker: bytes
    message: Message


class ReadStore(NamedTuple):
    """Read the model store; a `StoreRead` is to follow."""


class Save(NamedTuple):
    """Keep what was ordered where it survives a restart."""

    document: dict[str, Any]


class Note(NamedTuple):
    """Write this into the log: a decision, and the facts it was made on."""

    event: str
    facts: dict[str, Any]


Event = FromCaller | FromWorker | CallerGone | WorkerGone | StoreRead | Refused
Action = ToCaller | ToWorker | ReadStore | Save | Note
