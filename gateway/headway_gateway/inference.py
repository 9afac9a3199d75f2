"""What the inference routes of every dialect have in common: from an HTTP request to a question for the
broker, and from its reply to an answer.

Knows: the headers that every dialect shares, limits. Must not know: Falcon, sockets, which way the request
came: Falcon's routes (`oip`, `predictions`) and the short way (`lane`) ask and answer through the same
functions, so that nobody can tell which one it was.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from headway.errors import InvalidInput, UnknownModel
from headway.lent import Received
from headway.messages import Name, Reply
from headway.outgoing import Asked
from headway.settings import GatewaySettings
from headway.tensors import Buffer

TIMEOUT_HEADER = "Headway-Timeout-Ms"
JSON = "application/json"
BINARY = "application/octet-stream"
_NAME_LENGTH_MAX: int = Name.__metadata__[0].max  # type: ignore[attr-defined]


class Head(Protocol):
    """A request's headers; Falcon's request is one."""

    def get_header(self, name: str) -> str | None: ...


class Answer(NamedTuple):
    """An HTTP response, but for what the server adds."""

    status: int
    content_type: str
    data: bytes
    headers: tuple[tuple[str, str], ...] = ()


class Question(NamedTuple):
    """What to ask the broker, and what to make of its reply (may raise)."""

    asked: Asked
    timeout_s: float
    answer: Callable[[Reply], Answer]


class Target(NamedTuple):
    """Which model. `version` is empty for the default one."""

    model: str
    version: str


class Inference(Protocol):
    """A dialect's inference route."""

    name: str

    def before(self, head: Head) -> int:
        """How many bytes at the beginning of the body are no tensor's."""

    def ask(self, target: Target, head: Head, body: Buffer, received: Received | None) -> Question:
        """Raises: any of `headway.errors`. `received`: where the body is, if that is shared memory."""


def timeout_s(head: Head, settings: GatewaySettings) -> float | None:
    """What the client's header says, None if it has none. Raises: InvalidInput."""
    text = head.get_header(TIMEOUT_HEADER)
    if text is None:
        return None
    most_ms = int(settings.request_timeout_s_max * 1000)
    if not text.isascii() or not text.isdigit() or len(text) > 12 or not 1 <= int(text) <= most_ms:
        raise InvalidInput(f"{TIMEOUT_HEADER} is an integer from 1 to {most_ms}, not {text[:40]!r}")
    return int(text) / 1000


def check_names(target: Target) -> None:
    """Raises: UnknownModel for names that no model can have and the wire would not carry."""
    if len(target.model) > _NAME_LENGTH_MAX or len(target.version) > _NAME_LENGTH_MAX:
        raise UnknownModel(
            f"there is no model {target.model[:40]!r}... (names end at {_NAME_LENGTH_MAX} characters)"
        )
