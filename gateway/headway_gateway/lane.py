"""The short way of an inference request: from the HTTP parser to the broker and back, past ASGI.

Knows: which requests may take it, and that exactly one answer leaves. Must not know: uvicorn, transports
(that is `connection`), Falcon, how a dialect reads and writes.

Why. PERF: through uvicorn and Falcon an answer costs 38 us before anything is done for it: a task, a scope,
an event, a router, two writes. With them the gateway was the limit long before broker and worker; the parser
and two system calls alone cost 6 us (64 connections, one core).

Only what is plain takes it: a POST (or what `Routes` say) to an inference route, its path without escapes
or a query, with a Content-Length within the limit, each header once, nothing compressed, no form. All else
goes the long way, through Falcon, and is answered there by the same functions: a test compares them byte by
byte.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from functools import lru_cache, partial
from time import perf_counter
from typing import Any, NamedTuple, Protocol

from headway.errors import HeadwayError
from headway.lent import SHM_BYTES_MIN
from headway.messages import Reply
from headway.outgoing import reply_of
from headway_gateway.company import Company
from headway_gateway.errors import CLIENT_GONE
from headway_gateway.inference import Answer, Inference, Question, Target

Headers = Sequence[tuple[bytes, bytes]]
Answered = Callable[[Answer], None]
Pieced = Callable[[Answer | None], None]
Access = Callable[[str, str, int, float], None]  # peer, first line, status, seconds

URL_BYTES_MAX = 500
_NAME = rb"([A-Za-z0-9_.\-]+)"
_ROUTES = re.compile(
    rb"/v2/models/%s(?:/versions/%s)?/infer|/predictions/%s(?:/%s)?" % (_NAME, _NAME, _NAME, _NAME)
)
_LONG_WAY = frozenset((b"transfer-encoding", b"content-encoding", b"expect", b"upgrade"))


class Counters(Protocol):
    """The gateway's. (Not imported: the processes' parent loads this module, and must not load
    prometheus_client, see `server`.)"""

    def count(self, dialect: str, status: int, seconds: float) -> None: ...


class Routes(NamedTuple):
    """What may take the short way. `find`: the place of a URL's dialect among the lane's, and the model."""

    methods: Collection[bytes]
    find: Callable[[bytes], tuple[int, Target] | None]


class Lane:
    """Decides who may take the short way. `dialects`: Open Inference Protocol, then predictions, unless
    `routes` say otherwise."""

    def __init__(
        self,
        client: Any,
        bytes_max: int,
        dialects: Sequence[Inference],
        counters: Counters,
        routes: Routes | None = None,
        access: Access | None = None,
    ) -> None:
        self.client = client
        self.counters = counters
        self.access = access
        self.company = Company()
        self._bytes_max = bytes_max
        self._dialects = dialects
        self._methods, self._route = routes or Routes((b"POST",), _route)

    def enter(self, method: bytes, url: bytes, headers: Headers, spelled: Headers = ()) -> Errand | None:
        """The errand for a request with this head; None: it must go the long way. Header names are in lower
        case, in `spelled` as the client wrote them, if a dialect wants to know."""
        entry = self.look(method, url, headers, spelled)
        return self.errand(entry) if entry else None

    def errand(self, entry: Entry) -> Errand | None:
        """One for a request whose head was looked at. None: there is no room for its body; the long way
        refuses it without reading that."""
        try:
            return Errand(self, self._dialects[entry.dialect], entry.target, entry.head, entry.length)
        except HeadwayError:
            return None

    def look(self, method: bytes, url: bytes, headers: Headers, spelled: Headers = ()) -> Entry | None:
        """Whether requests with this head may take the short way. Says the same each time."""
        if method not in self._methods or len(url) > URL_BYTES_MAX:
            return None
        route = self._route(url)
        said = dict(headers)
        length = said.get(b"content-length", b"")
        if route is None or len(said) != len(headers) or not length.isdigit() or len(length) > 12:
            return None
        if int(length) > self._bytes_max or not _LONG_WAY.isdisjoint(said):
            return None
        if said.get(b"content-type", b"")[:10].lower() == b"multipart/":
            return None
        return Entry(*route, Head(said, spelled), int(length))


@lru_cache(1024)
def _route(url: bytes) -> tuple[int, Target] | None:
    """Which dialect (its place in `dialects`), and which model."""
    found = _ROUTES.fullmatch(url)
    if found is None:
        return None
    names = [(name or b"").decode() for name in found.groups()]
    return (0, Target(*names[:2])) if names[0] else (1, Target(*names[2:]))


class Head:
    """A request's headers, as the dialects ask for them; what they asked for is kept, for the next request
    with the same head."""

    __slots__ = ("_headers", "_said", "_spelled", "_wrote")

    def __init__(self, headers: dict[bytes, bytes], spelled: Headers = ()) -> None:
        self._headers = headers
        self._wrote = spelled
        self._said: dict[str, str | None] = {}
        self._spelled: dict[str, str] | None = None

    def get_header(self, name: str) -> str | None:
        if name in self._said:
            return self._said[name]
        value = self._headers.get(name.lower().encode())
        said = self._said[name] = value.decode("latin1") if value is not None else None
        return said

    @property
    def spelled(self) -> dict[str, str]:
        """Not to be changed."""
        if self._spelled is None:
            headers = self._wrote or self._headers.items()
            self._spelled = {name.decode("latin1"): value.decode("latin1") for name, value in headers}
        return self._spelled


class Entry(NamedTuple):
    """A head that may take the short way. `dialect`: its place among the lane's."""

    dialect: int
    target: Target
    head: Head
    length: int


class Errand:
    """One request on the short way. Feed it the body, then `run` it; or `abandon` it.

    `room`, where a body is large: memory for all of it, shared memory if there is some. The body may be
    written there instead of being fed.
    """

    __slots__ = (
        "_answered",
        "_chunks",
        "_dialect",
        "_has_asked",
        "_has_begun",
        "_head",
        "_id",
        "_lane",
        "_pieced",
        "_received",
        "_refuse",
        "_started",
        "_target",
        "room",
        "said",
    )  # fmt: skip

    def __init__(self, lane: Lane, dialect: Inference, target: Target, head: Head, length: int) -> None:
        self._started = perf_counter()
        self._lane = lane
        self._dialect = dialect
        self._target = target
        self._head = head
        self._id = 0
        self._has_begun = False
        self._has_asked = False
        self.said = ("", "")  # who asks, and the request's first line, where the lane tells of accesses
        self._refuse: Callable[[Exception], Answer] | None = None
        self._chunks: list[bytes] = []
        self._received = None
        self.room: memoryview | None = None
        if length >= SHM_BYTES_MIN:
            self._received = lane.client.lender.receive(length, dialect.before(head))
            self.room = self._received.view if self._received else memoryview(bytearray(length))

    def feed(self, chunk: bytes) -> None:
        """More of a body that has no `room`."""
        self._chunks.append(chunk)

    def run(self, answered: Answered, pieced: Pieced | None = None) -> None:
        """The body is whole: ask. `answered` is called once, maybe at once, unless it is abandoned. `pieced`
        is called before it with every piece but the last, if the reply comes in pieces, and with None in
        place of `answered` when it breaks off."""
        self._answered = answered
        self._pieced = pieced
        self._has_asked = True
        self._lane.company.waiting += 1
        chunks, received = self._chunks, self._received
        body = self.room if self.room is not None else chunks[0] if len(chunks) == 1 else b"".join(chunks)
        # From here on the question holds the memory, for as long as it is open. (This errand and its
        # connection hold each other, and would keep it until the next collection of cycles.)
        self.room = self._received = None
        self._chunks = []
        try:
            question = self._dialect.ask(self._target, self._head, body, received)
            self._refuse = question.refusal
            self._id = self._start(question)
        except Exception as error:
            self._finish(self._refusal(error))

    def _start(self, question: Question) -> int:
        start: Callable[..., int] = self._lane.client.start
        told = partial(self._told, question)
        asked = self._lane.company.said(question.asked, self._started)
        if question.streams and self._pieced:
            return start(asked, question.timeout_s, told, partial(self._took, question))
        return start(asked, question.timeout_s, told)

    def abandon(self) -> None:
        """The client is gone: withdraw it."""
        self.room = self._received = None
        if self._id:
            self._lane.client.abandon(self._id)
        self._count(CLIENT_GONE)

    def _took(self, question: Question, piece: Reply) -> None:
        """A piece of the reply."""
        assert self._pieced
        try:
            answer = question.answer(piece)
        except Exception as error:
            self._lane.client.abandon(self._id)
            self._id = 0
            self._break_off(error)
            return
        self._has_begun = True
        self._pieced(answer)

    def _told(self, question: Question, outcome: Any) -> None:
        self._id = 0
        if isinstance(outcome, HeadwayError):  # not raised: its traceback would hold the slot
            self._break_off(outcome)
            return
        try:
            reply = reply_of(outcome)
            answer = question.answer(reply)
        except Exception as error:
            answer = self._refusal(error)
        self._finish(answer)

    def _break_off(self, error: Exception) -> None:
        answer = self._refusal(error)
        if not self._has_begun or self._pieced is None:
            self._finish(answer)
            return
        self._count(answer.status)
        self._pieced(None)

    def _refusal(self, error: Exception) -> Answer:
        if self._refuse:
            return self._refuse(error)
        return self._dialect.refusal(error, self._target)

    def _finish(self, answer: Answer) -> None:
        """The client first: what is counted then, it need not wait for."""
        self._answered(answer)
        self._count(answer.status)

    def _count(self, status: int) -> None:
        if self._has_asked:
            self._has_asked = False  # one that gets no answer is abandoned later
            self._lane.company.waiting -= 1
        took_s = perf_counter() - self._started
        self._lane.counters.count(self._dialect.name, status, took_s)
        if self._lane.access and status not in (0, CLIENT_GONE):  # these get no answer
            self._lane.access(*self.said, status, took_s)
