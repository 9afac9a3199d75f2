"""The one error tree.

    HeadwayError
    ├── CallerError            the caller's fault: sending the same again fails again
    │   ├── InvalidInput       a tensor, a body, an option or a name that is not what the model takes
    │   ├── UnknownModel       no such model, or no such version of it
    │   ├── TooLarge           over a limit on bytes or rows
    │   ├── Cancelled          the caller (or its HTTP client) went away
    │   ├── Unauthorized       a command without the management token
    │   └── NoSequence         the request's sequence is not open: never started, ended, expired, or lost
    ├── NoRoom                 nobody's fault: try again later, or elsewhere
    │   ├── QueueFull          the model's queue is at its limit; carries `retry_after_s`
    │   ├── NotReady           no copy of the model can serve: it failed to load, or has no place
    │   └── DeadlineExceeded   the request's time ran out before its answer
    ├── ServerError            our fault, or the model's
    │   ├── ModelError         the model raised an exception for this request
    │   ├── WorkerLost         the workers that held the request are gone; it is not tried again
    │   └── InternalError      a defect in Headway
    ├── WireError              between processes
    │   ├── RemoteProtocolError   a peer sent what PROTOCOL.md does not allow
    │   ├── LocalProtocolError    we were about to
    │   └── BrokerUnreachable     no broker answered in the time there was
    └── SettingsError          a setting or a model.toml that is wrong; names the key

Knows: codes on the wire, and whether sending the same request again may help (`retryable`).
Must not know: HTTP or gRPC statuses. Those live at the doors.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

_NOTHING: Mapping[str, Any] = MappingProxyType({})


class HeadwayError(Exception):
    """Base of all. `code` is the number on the wire, 0 where the error never travels. `meta` is what the
    reply
    said beside it, where it came in one."""

    code = 0
    retryable = False
    meta: Mapping[str, Any] = _NOTHING

    def __init__(self, message: str = "", retry_after_s: float | None = None) -> None:
        super().__init__(message or type(self).__name__)
        self.retry_after_s = retry_after_s


class CallerError(HeadwayError):
    """The caller's fault."""


class InvalidInput(CallerError):
    """A tensor, body, option or name that the model does not take; the message names it."""

    code = 10


class UnknownModel(CallerError):
    """No such model, or no such version of it."""

    code = 11


class TooLarge(CallerError):
    """Over a limit on bytes or rows; the message has both numbers."""

    code = 12


class Cancelled(CallerError):
    """The caller withdrew the request."""

    code = 13


class Unauthorized(CallerError):
    """A command without the management token, or with a wrong one."""

    code = 14


class NoSequence(CallerError):
    """The request belongs to a sequence that is not open (any more); the message says why. Start it anew."""

    code = 15


class NoRoom(HeadwayError):
    """Nobody's fault: try again later, or elsewhere."""

    retryable = True


class QueueFull(NoRoom):
    """The model's queue is at its limit. `retry_after_s` estimates when it will not be."""

    code = 20


class NotReady(NoRoom):
    """No copy of the model can serve; the message has the last load error where there is one."""

    code = 21


class DeadlineExceeded(NoRoom):
    """The request's time ran out before its answer."""

    code = 22


class ServerError(HeadwayError):
    """Our fault, or the model's."""


class ModelError(ServerError):
    """The model raised an exception for this request; the message is the exception's."""

    code = 30


class WorkerLost(ServerError):
    """The workers that held the request died, or it ran for too long in one; it is not tried again."""

    code = 31
    retryable = True


class InternalError(ServerError):
    """A defect in Headway."""

    code = 32


class WireError(HeadwayError):
    """Something between two processes."""


class RemoteProtocolError(WireError):
    """A peer sent what PROTOCOL.md does not allow."""


class LocalProtocolError(WireError):
    """We were about to send what PROTOCOL.md does not allow."""


class BrokerUnreachable(WireError):
    """No broker answered in the time there was."""

    retryable = True


class SettingsError(HeadwayError):
    """A setting or a `model.toml` that is wrong; the message names the key."""


def _leaves(root: type[HeadwayError]) -> list[type[HeadwayError]]:
    found = [root]
    for child in root.__subclasses__():
        found += _leaves(child)
    return found


ERROR_OF_CODE: dict[int, type[HeadwayError]] = {e.code: e for e in _leaves(HeadwayError) if e.code}


def error_of(code: int, message: str, retry_after_s: float | None = None) -> HeadwayError:
    """The exception for a code from the wire; a code from a newer peer is an `InternalError`."""
    return ERROR_OF_CODE.get(code, InternalError)(message, retry_after_s)
