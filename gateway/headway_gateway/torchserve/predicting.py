"""A prediction, whichever way it came: from an HTTP request to a question, and from its outcome to an answer.

An `Inference` of the lane, and what `inference` asks through.

Knows: what TorchServe passes on of a request, and how its replies look over HTTP. Must not know: Falcon,
sockets, routes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import partial
from time import perf_counter
from typing import Any

from headway.body import Body
from headway.errors import DeadlineExceeded, HeadwayError
from headway.lent import Received
from headway.messages import Reply
from headway.outgoing import Asked
from headway.pieces import MORE
from headway.tensors import Buffer
from headway.torchserve.properties import Properties
from headway_gateway.inference import JSON, Answer, Ask, Head, Question, Target
from headway_gateway.torchserve import asking
from headway_gateway.torchserve.alike import Alike
from headway_gateway.torchserve.asking import Registry
from headway_gateway.torchserve.heads import REQUEST_ID, SILENT, request_id
from headway_gateway.torchserve.paths import PREDICT, Route
from headway_gateway.torchserve.refusal import Refusal
from headway_gateway.torchserve.steps import is_placed, placed, step_keys
from headway_gateway.torchserve.terms import TermsOf
from headway_gateway.torchserve.tokens import INFERENCE, Checks, require

Count = Callable[[int, str, str, float, Mapping[str, Any] | None], None]  # see `door_metrics`
_STREAMED = ("ts_stream_next", "true")
_log = logging.getLogger("headway.gateway")


class Predicting:
    """`keys` None: no request needs a token."""

    name = "predictions"

    def __init__(
        self,
        client: Any,
        properties: Properties,
        registry: Registry,
        keys: Checks | None = None,
        count: Count | None = None,
    ) -> None:
        self.keys = keys
        self._count = count
        self._client = client
        self._properties = properties
        self._registry = registry
        self._step_keys = step_keys(properties)
        self._terms = TermsOf(registry)

    def before(self, head: Head) -> int:
        return 0

    def asks(self, target: Target, head: Head) -> Ask:
        """Plain ones, which have no URL path."""
        return partial(self._ask, Alike(target, head, self._client.lender))

    def _ask(self, alike: Alike, body: Buffer, received: Received | None) -> Question:
        """Raises: Refusal; HeadwayError."""
        if self.keys is not None:
            require(self.keys, INFERENCE, alike.head.get_header("Authorization"))
        target, started = alike.target, perf_counter()
        _, limit_s, has_sequences = self._terms.of(target, started)
        if is_placed(alike.headers, self._step_keys, has_sequences):
            whole = Body(body, alike.content_type)
            return self.question(Route(PREDICT, target, "", False), whole, alike.headers, received)
        id = request_id()
        return self._question(alike.asked(id, body, received), limit_s, target, id, started)

    def question(
        self, route: Route, body: Body, headers: Mapping[str, str], received: Received | None = None
    ) -> Question:
        """Raises: Refusal; HeadwayError."""
        target, id, started = route.target, request_id(), perf_counter()
        _, limit_s, has_sequences = self._terms.of(target, started)
        headers, place = placed(headers, self._step_keys, has_sequences)
        asked = asking.ask(
            target,
            body,
            headers,
            request_id=id,
            explain=route.explain,
            url_path=route.url_path,
            lender=self._client.lender,
            received=received,
            place=place,
        )
        return self._question(asked, limit_s, target, id, started)

    def _question(self, asked: Asked, limit_s: float, target: Target, id: str, started: float) -> Question:
        refusal = partial(self._failed, target, id, started)
        return Question(asked, limit_s, partial(self._answered, target, id, started), refusal, streams=True)

    def refusal(self, error: Exception, target: Target) -> Answer:
        return self._refused(target, request_id(), error)

    def _answered(self, target: Target, id: str, started: float, reply: Reply) -> Answer:
        answer = asking.answer_of(reply, self._properties.max_response_size, ((REQUEST_ID, id),))
        if MORE in reply.meta:
            if _STREAMED in answer.headers:  # the worker has said it
                return answer
            return answer._replace(headers=(_STREAMED, *answer.headers))
        if self._count:
            self._count(answer.status, *target, perf_counter() - started, reply.meta)
        return answer

    def _failed(self, target: Target, id: str, started: float, error: Exception) -> Answer:
        """After it was asked."""
        answer = self._refused(target, id, error)
        if self._count:
            self._count(answer.status, *target, perf_counter() - started, getattr(error, "meta", None))
        return answer

    def _refused(self, target: Target, id: str, error: Exception) -> Answer:
        if isinstance(error, DeadlineExceeded) and not self._properties.headway_expired_answer:
            return Answer(SILENT, "", b"")
        return answer_to(self._refusal(error, target), ((REQUEST_ID, id),))

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
