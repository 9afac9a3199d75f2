"""A prediction, whichever way it came: from an HTTP request to a question, and from its outcome to an answer.

An `Inference` of the lane, and what `inference` asks through.

Knows: what TorchServe passes on of a request, and how its replies look over HTTP. Must not know: Falcon,
sockets, routes.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import partial
from time import perf_counter
from typing import Any, NamedTuple, Protocol

from headway.body import Body
from headway.errors import DeadlineExceeded, HeadwayError
from headway.lent import Received
from headway.messages import Reply
from headway.pieces import MORE
from headway.tensors import Buffer
from headway.torchserve.properties import Properties
from headway_gateway.inference import JSON, Answer, Head, Question, Target
from headway_gateway.torchserve import asking
from headway_gateway.torchserve.asking import Registry
from headway_gateway.torchserve.forms import body_or_parts
from headway_gateway.torchserve.heads import REQUEST_ID, SILENT, request_id
from headway_gateway.torchserve.paths import PREDICT, Route
from headway_gateway.torchserve.refusal import Refusal
from headway_gateway.torchserve.tokens import INFERENCE, Checks, require

_STREAMED = ("ts_stream_next", "true")
LIMIT_COUNTS_S = 0.5
LIMITS_MAX = 1000
_log = logging.getLogger("headway.gateway")


class Meter(Protocol):
    """`door_metrics.DoorMetrics`."""

    def count(
        self,
        status: int,
        model: str,
        version_named: str,
        took_s: float,
        meta: Mapping[str, Any] | None = None,
    ) -> None: ...


class _Asker(NamedTuple):
    """What is known of a request when its outcome comes."""

    target: Target
    id: str
    started: float


class Predicting:
    """`keys` None: no request needs a token. `meter` counts every prediction, when its last piece leaves."""

    name = "predictions"

    def __init__(
        self,
        client: Any,
        properties: Properties,
        registry: Registry,
        keys: Checks | None = None,
        meter: Meter | None = None,
    ) -> None:
        self.keys = keys
        self._client = client
        self._properties = properties
        self._registry = registry
        self._meter = meter
        self._limits: dict[Target, tuple[float, float]] = {}  # until when a limit counts, and the limit

    def before(self, head: Head) -> int:
        return 0

    def ask(self, target: Target, head: Head, body: Buffer, received: Received | None) -> Question:
        """A plain one, which is one without a URL path. Raises: Refusal; HeadwayError."""
        require(self.keys, INFERENCE, head.get_header("Authorization"))
        whole = body_or_parts(body, head.get_header("Content-Type") or "")
        return self.question(Route(PREDICT, target), whole, head.spelled, received)

    def question(
        self, route: Route, body: Body, headers: Mapping[str, str], received: Received | None = None
    ) -> Question:
        """Raises: Refusal; HeadwayError."""
        target, asker = route.target, _Asker(route.target, request_id(), perf_counter())
        asked = asking.ask(
            target,
            body,
            headers,
            request_id=asker.id,
            explain=route.explain,
            url_path=route.url_path,
            lender=self._client.lender,
            received=received,
        )
        answered, refused = partial(self._answered, asker), partial(self._refused, asker)
        return Question(asked, self._limit_s(target, asker.started), answered, refused, streams=True)

    def refusal(self, error: Exception, target: Target) -> Answer:
        """Of a request that could not be asked at all."""
        return answer_to(self._refusal(error, target))

    def _limit_s(self, target: Target, now: float) -> float:
        """PERF: to look at the registration takes as long as all else here, so that is not done each time."""
        until, limit_s = self._limits.get(target, (0.0, 0.0))
        if now >= until:
            limit_s = asking.timeout_s(self._registry.of(*target))
            if len(self._limits) >= LIMITS_MAX:
                self._limits.clear()
            self._limits[target] = now + LIMIT_COUNTS_S, limit_s
        return limit_s

    def _answered(self, asker: _Asker, reply: Reply) -> Answer:
        answer = asking.answer_of(reply, self._properties.max_response_size)
        headers = (*answer.headers, (REQUEST_ID, asker.id))
        if MORE in reply.meta and _STREAMED not in headers:  # the worker may have said it
            headers = (_STREAMED, *headers)
        if MORE not in reply.meta:
            self._count(asker, answer.status, reply.meta)
        return Answer(answer.status, answer.content_type, answer.data, headers, answer.phrase)

    def _refused(self, asker: _Asker, error: Exception) -> Answer:
        refusal = self._refusal(error, asker.target)
        self._count(asker, refusal.status, error.meta if isinstance(error, HeadwayError) else {})
        if isinstance(error, DeadlineExceeded) and not self._properties.headway_expired_answer:
            return Answer(SILENT, "", b"")
        return answer_to(refusal, ((REQUEST_ID, asker.id),))

    def _count(self, asker: _Asker, status: int, meta: Mapping[str, Any]) -> None:
        if self._meter:
            self._meter.count(status, *asker.target, perf_counter() - asker.started, meta)

    def _refusal(self, error: Exception, target: Target) -> Refusal:
        if isinstance(error, Refusal):
            return error
        if not isinstance(error, HeadwayError):
            return unexpected(error, {"model": target.model})
        one_text = not self._properties.headway_telling_messages
        return asking.refusal_of(error, target, self._registry, one_text=one_text)


def answer_to(refusal: Refusal, headers: tuple[tuple[str, str], ...] = ()) -> Answer:
    return Answer(refusal.status, JSON, refusal.body, headers)


def unexpected(error: Exception, facts: dict[str, Any]) -> Refusal:
    """A defect: it goes to the log and nowhere else."""
    _log.error("unexpected error", exc_info=error, extra={"facts": facts})
    return Refusal(500, asking.INTERNAL, "internal error")
