"""One batch through a loaded model, in three steps, and an answer to each of its requests.

Knows: the order of things for a request (expiry, decoding, preprocess, infer, postprocess, packing), and
whose fault an exception is at each step.
Must not know: threads, orders, sockets, torch.

Invariants: a result has one reply per request, in order; no exception of a model's leaves this file, not
even `SystemExit`, but for a fault of the device (`DeviceFault`), after which nobody is answered; when a batch
of several raises, each is run again alone (unless the model is marked `idempotent = false`, or its backend
does not retry alone), so that only the guilty get the error. A request of whose reply a piece was sent is not
run again, and gets the error.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, ParamSpec, TypeVar

from headway.body import is_body, unpack_body
from headway.errors import DeadlineExceeded, InvalidInput, ModelError
from headway.headers import with_headers
from headway.messages import Batch, BatchReply, Piece, Result
from headway.pieces import takes_pieces
from headway.refs import REPLY_SLOT, has_slots, without_slots
from headway.tensors import Tensors, unpack
from headway_worker import device
from headway_worker.collate import as_tensors, to_host
from headway_worker.inputs import check_names, check_shapes, checked, from_body, takes
from headway_worker.loaded import Loaded
from headway_worker.orders import Run
from headway_worker.replies import (
    Answer,
    answer_reply,
    body_reply,
    error_reply,
    message_of,
    piece_of,
    tensors_reply,
)
from headway_worker.request import ModelRequest
from headway_worker.sharing import Sharing
from headway_worker.tracks import Clock, Collated, Flight, Share

T = TypeVar("T")
P = ParamSpec("P")


def refuse_batch(batch: Batch, error: BaseException) -> Result:
    """The same error for every request of a batch that cannot be run at all."""
    return Result(batch.id, 0, [error_reply(error)] * len(batch.requests))


@dataclass
class _Group:
    """Requests that share a batch on the device, by their places; what became of it so far."""

    places: list[int]
    inputs: Collated | None = None
    flight: Flight | None = None
    again: bool = False  # to be run one by one


class Passage:
    """One batch on its way: `prepare`, `launch`, `finish`, in this order and each once, in torch's mode that
    its model wants. `prepare` may be called in another thread than the rest."""

    def __init__(
        self,
        loaded: Loaded,
        order: Run,
        clock: Clock,
        sharing: Sharing,
        send: Callable[[Piece], None] | None = None,
    ) -> None:
        """`send` takes pieces of replies; without it there are none."""
        self.loaded = loaded
        self.batch, self.received = order
        self.clock = clock
        self.sharing = sharing
        self.send = send
        self.begun: set[int] = set()  # places of which a piece was sent
        self.compute_s = 0.0
        self.requests: dict[int, ModelRequest] = {}
        self.replies: dict[int, BatchReply] = {}
        self.groups: list[_Group] = []
        self._patience_ms = min([request.timeout_ms for request in self.batch.requests], default=0)

    def prepare(self) -> None:
        """Everything that comes before the device: decode, check, preprocess, group, collate."""
        for place in self._alive(range(len(self.batch.requests))):
            if self.loaded.preprocess and not self._alive([place]):  # it may have taken its time with others
                continue
            try:
                self.requests[place] = self._request(place)
            except BaseException as error:
                self._fail([place], error)
        places = list(self.requests)
        for group in self.loaded.grouped(list(self.requests.values())):
            self.groups.append(self._group([places[i] for i in group]))

    def launch(self) -> None:
        """Hand every group to the device."""
        for group in self.groups:
            self._launch(group)

    @property
    def is_done(self) -> bool:
        """Whether `finish` need not wait for the device."""
        return all(group.flight is None or group.flight.is_done() for group in self.groups)

    def finish(self) -> Result:
        """Wait for the device, and answer every request; `compute_us` is the time in the model."""
        for group in self.groups:
            self._finish(group)
        return self.result()

    def result(self) -> Result:
        """The answers, when each request has one."""
        replies = [self.replies[place] for place in range(len(self.batch.requests))]
        return Result(self.batch.id, round(self.compute_s * 1e6), replies)

    def end(self, shares: Sequence[Share], compute_s: float) -> Result:
        """In place of `launch` and `finish`, for a batch that its backend has run by itself: what each of
        `requests` gets. Raises: DeviceFault."""
        self.compute_s += compute_s
        for place, share in zip(list(self.requests), shares, strict=True):
            self._answer(place, share)
        return self.result()

    def fail(self, error: BaseException) -> Result:
        """The same for a batch that raised: the error for each of `requests`. Raises: DeviceFault."""
        self._fail(list(self.requests), error)
        return self.result()

    def abandon(self) -> None:
        """Wait for what is on the device, whose memory is in use until then; nothing is answered."""
        for group in self.groups:
            with suppress(BaseException):
                if group.flight is not None:
                    group.flight.outputs()

    def _group(self, places: list[int]) -> _Group:
        group = _Group(places)
        self._collate(group)
        return group

    def _collate(self, group: _Group) -> None:
        requests = [self.requests[place] for place in group.places]
        group.inputs = self._try(group, self.loaded.track.collate, requests) if requests else None

    def _launch(self, group: _Group) -> None:
        alive = self._alive(group.places)
        if len(alive) < len(group.places):  # time ran out since it was collated
            group.places = [*alive]
            self._collate(group)
        inputs, group.inputs = group.inputs, None
        if inputs is not None:
            group.flight = self._try(group, self.loaded.track.launch, inputs, self.clock)

    def _finish(self, group: _Group) -> None:
        flight, group.flight = group.flight, None
        if flight is not None:
            requests = [self.requests[place] for place in group.places]
            outputs = self._try(group, self.loaded.land, flight, requests)
            self.compute_s += self.loaded.compute_s if outputs else 0.0
            for place, share in zip(group.places, outputs or [], strict=False):
                self._answer(place, share)
        if group.again:  # a batch of several raised: find the guilty
            for place in group.places:
                alone = self._group([place])
                self._launch(alone)
                self._finish(alone)

    def _try(self, group: _Group, step: Callable[P, T], *args: P.args, **named: P.kwargs) -> T | None:
        """What the step returns. None when it raised: then the group is answered, or is to be run one by
        one."""
        try:
            return step(*args, **named)
        except BaseException as error:
            device.raise_fault(error)
            may_again = self.loaded.spec.may_run_again and self.loaded.retries_alone
            group.again = len(group.places) > 1 and may_again
            over = [place for place in group.places if place in self.begun or not group.again]
            self._fail(over, error)
            group.places = [place for place in group.places if place not in over]
            exhausted = device.is_out_of_memory(error)
        if exhausted:  # here, where the exception no longer holds the tensors of its frames
            device.free_memory()
        return None

    def _alive(self, places: Sequence[int]) -> Sequence[int]:
        """Those that still have time; the others are answered."""
        waited_ms, requests = (self.clock() - self.received) * 1000, self.batch.requests
        if waited_ms <= self._patience_ms:
            return places
        late = [place for place in places if requests[place].timeout_ms < waited_ms]
        for place in late:
            late_ms = waited_ms - requests[place].timeout_ms
            text = f"its time ran out {late_ms:.0f} ms before the model could run it"
            self.replies[place] = error_reply(DeadlineExceeded(text))
        return [place for place in places if place not in self.replies]

    def _request(self, place: int) -> ModelRequest:
        _, rows, options, tensors = self.batch.requests[place]
        is_lent, specs = has_slots(options), self.loaded.spec.inputs
        packed = self.sharing.packed(options, tensors) if is_lent else tensors
        options = with_headers(without_slots(options) if is_lent else options)
        if not is_body(options):
            return ModelRequest(options, rows, None, checked(unpack(packed), specs, rows))
        body = unpack_body(packed, options)
        request = ModelRequest(options, 0, body)
        if self.loaded.takes_requests:
            if self.send and takes_pieces(options):
                request.send = partial(self._send, self.send, place)
            return request
        if self.loaded.preprocess is None:
            request.tensors = checked(from_body(body, specs), specs, 0)
        else:
            request.tensors = _preprocessed(self.loaded, request)
        return request

    def _answer(self, place: int, outputs: Share) -> None:
        request, options = self.requests[place], self.batch.requests[place].options
        put = partial(self.sharing.put, options) if REPLY_SLOT in options else None
        try:
            if isinstance(outputs, Answer):
                self.replies[place] = answer_reply(outputs, put)
            elif request.content is None:
                self.replies[place] = tensors_reply(as_tensors(outputs), put)
            else:
                postprocess = self.loaded.postprocess
                answer = postprocess(outputs, request) if postprocess else outputs
                self.replies[place] = body_reply(answer, put)
        except BaseException as error:
            self._fail([place], error)

    def _send(self, send: Callable[[Piece], None], place: int, answer: Answer) -> None:
        """A piece of a reply. Raises: TooLarge."""
        piece = piece_of(answer, self.batch.id, place)
        self.begun.add(place)
        send(piece)

    def _fail(self, places: Sequence[int], error: BaseException) -> None:
        device.raise_fault(error)
        self.loaded.tell(error)
        reply = error_reply(error, self.loaded.meta_of(error))
        self.replies.update((place, reply) for place in places)


def _preprocessed(loaded: Loaded, request: ModelRequest) -> Tensors:
    """The model's own tensors for a body. A wrong shape may come from the caller's data and is its
    fault; a wrong name or dtype is the model's. Raises: InvalidInput, ModelError, the model's own."""
    assert loaded.preprocess is not None
    specs = loaded.spec.inputs
    try:
        made = loaded.preprocess(request)
    except (ValueError, TypeError) as error:
        raise InvalidInput(message_of(error)) from error
    if not isinstance(made, dict):
        if len(specs) != 1:
            raise ModelError(f"preprocess must return a dict of tensors; {takes(specs)}")
        made = {specs[0].name: made}
    try:
        tensors = check_names(_on_host(made), specs)
    except InvalidInput as error:
        raise ModelError(f"preprocess: {error}") from None
    check_shapes(tensors, specs, 0)
    return tensors


def _on_host(made: dict[str, Any]) -> Tensors:
    return as_tensors({name: to_host(name, value) for name, value in made.items()})
