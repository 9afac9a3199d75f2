"""What the inference routes of every dialect have in common: from an HTTP request to a question for the
broker, and from its reply to an answer.

Knows: the headers that every dialect shares, limits. Must not know: Falcon, sockets, which way the request
came: Falcon's routes (`oip`, `predictions`) and the short way (`lane`) ask and answer through the same
functions, so that nobody can tell which one it was.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

from headway.errors import InvalidInput, UnknownModel
from headway.lent import Received
from headway.messages import Name, Reply
from headway.outgoing import Asked, sticking
from headway.settings import GatewaySettings
from headway.tensors import Buffer

TIMEOUT_HEADER = "Headway-Timeout-Ms"
STICKY_HEADER = "Headway-Sticky-Key"
VERSION_HEADER = "Headway-Version"
LOADING_HEADER = "Headway-Loading-Ms"
JSON = "application/json"
BINARY = "application/octet-stream"
_NAME_LENGTH_MAX: int = Name.__metadata__[0].max  # type: ignore[attr-defined]


class Head(Protocol):
    """A request's headers; Falcon's request is one."""

    def get_header(self, name: str) -> str | None: ...

    @property
    def spelled(self) -> dict[str, str]:
        """All of them, their names as the client wrote them where that is known; of several with one name the
        last."""


class Answer(NamedTuple):
    """An HTTP response, but for what the server adds. `content_type` is "" for none; `phrase` None for the
    status' own."""

    status: int
    content_type: str
    data: bytes
    headers: tuple[tuple[str, str], ...] = ()
    phrase: str | None = None


class Question(NamedTuple):
    """What to ask the broker, and what to make of its reply (may raise), or of an error, where that is not
    the
    dialect's to say. `streams`: the reply may come in pieces, and `answer` is for the first of them."""

    asked: Asked
    timeout_s: float
    answer: Callable[[Reply], Answer]
    refusal: Callable[[Exception], Answer] | None = None
    streams: bool = False


class Target(NamedTuple):
    """Which model. `version` is empty for the default one."""

    model: str
    version: str


# Of a body, and where it is, if that is shared memory. Raises: any of `headway.errors`.
Ask = Callable[[Buffer, Received | None], Question]


class Inference(Protocol):
    """A dialect's inference route."""

    name: str

    def asks(self, target: Target, head: Head) -> Ask:
        """How to ask, for any number of requests with this head. What does not depend on their bodies may be
        done once for all of them. Does not raise."""

    def before(self, head: Head) -> int:
        """How many bytes at the beginning of the body are no tensor's."""

    def refusal(self, error: Exception, target: Target) -> Answer:
        """What the client is told instead of an answer."""


def timeout_s(head: Head, settings: GatewaySettings) -> float | None:
    """What the client's header says, None if it has none. Raises: InvalidInput."""
    text = head.get_header(TIMEOUT_HEADER)
    if text is None:
        return None
    most_ms = int(settings.request_timeout_s_max * 1000)
    if not text.isascii() or not text.isdigit() or len(text) > 12 or not 1 <= int(text) <= most_ms:
        raise InvalidInput(f"{TIMEOUT_HEADER} is an integer from 1 to {most_ms}, not {text[:40]!r}")
    return int(text) / 1000


def sticky(head: Head, asked: Asked) -> Asked:
    """The request with the client's key, if it has one. Raises: InvalidInput."""
    return sticking(asked, key) if (key := head.get_header(STICKY_HEADER)) else asked


def with_facts(answer: Answer, meta: Mapping[str, Any]) -> Answer:
    """The answer with what the broker says of the request: who served it, and how long it waited for its
    model to be loaded."""
    version = meta.get("version")
    headers = _served_by(version) if isinstance(version, str) else ()
    if "loading_ms" in meta and isinstance(waited_ms := meta["loading_ms"], int):
        headers = (*headers, (LOADING_HEADER, str(waited_ms)))
    if not headers:
        return answer
    return Answer(answer.status, answer.content_type, answer.data, (*answer.headers, *headers))


@lru_cache(1024)
def _served_by(version: str) -> tuple[tuple[str, str], ...]:
    """None where that cannot stand in a header."""
    if version and version.isascii() and version.isprintable() and version == version.strip():
        return ((VERSION_HEADER, version),)
    return ()


def check_names(target: Target) -> None:
    """Raises: UnknownModel for names that no model can have and the wire would not carry."""
    if len(target.model) > _NAME_LENGTH_MAX or len(target.version) > _NAME_LENGTH_MAX:
        raise UnknownModel(
            f"there is no model {target.model[:40]!r}... (names end at {_NAME_LENGTH_MAX} characters)"
        )
