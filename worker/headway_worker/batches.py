"""Runs one batch through a loaded model, and answers each of its requests by itself.

Knows: the order of things for a request (expiry, decoding, preprocess, infer, postprocess, packing), and
whose fault an exception is at each step.
Must not know: threads, orders, sockets, torch.

Invariants: a result has one reply per request, in order; no exception of a model's leaves this file, not
even `SystemExit`; when a batch of several raises, each is run again alone (unless the model is marked
`idempotent = false`), so that only the guilty get the error.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from headway.body import is_body, unpack_body
from headway.errors import DeadlineExceeded, InvalidInput, ModelError
from headway.messages import Batch, BatchReply, Result
from headway.refs import has_slots, without_slots
from headway.tensors import Tensors, unpack
from headway_worker import device
from headway_worker.collate import Values, as_tensors, grouped, to_host
from headway_worker.inputs import check_names, check_shapes, checked, from_body, takes
from headway_worker.loaded import Loaded
from headway_worker.orders import Run
from headway_worker.replies import body_reply, error_reply, message_of, tensors_reply
from headway_worker.request import ModelRequest
from headway_worker.sharing import Sharing

Clock = Callable[[], float]


def run_batch(loaded: Loaded, order: Run, clock: Clock, sharing: Sharing | None = None) -> Result:
    """The outcomes of a batch; `compute_us` is the time in `infer`, with the copies to and from the
    device. To be called under `torch.inference_mode()`."""
    return _Passage(loaded, order, clock, sharing or Sharing()).result()


def refuse_batch(batch: Batch, error: BaseException) -> Result:
    """The same error for every request of a batch that cannot be run at all."""
    return Result(batch.id, 0, [error_reply(error)] * len(batch.requests))


class _Passage:
    """One batch on its way. Requests are known by their places in the batch."""

    def __init__(self, loaded: Loaded, order: Run, clock: Clock, sharing: Sharing) -> None:
        self.loaded = loaded
        self.batch, self.received = order
        self.clock = clock
        self.sharing = sharing
        self.compute_s = 0.0
        self.requests: dict[int, ModelRequest] = {}
        self.replies: dict[int, BatchReply] = {}

    def result(self) -> Result:
        for place in range(len(self.batch.requests)):
            self._prepare(place)
        places = list(self.requests)
        for group in grouped(list(self.requests.values()), self.loaded.spec.inputs):
            self._run([places[i] for i in group])
        replies = [self.replies[place] for place in range(len(self.batch.requests))]
        return Result(self.batch.id, round(self.compute_s * 1e6), replies)

    def _prepare(self, place: int) -> None:
        if self._is_expired(place):
            return
        try:
            self.requests[place] = self._request(place)
        except BaseException as error:
            self._fail([place], error)

    def _is_expired(self, place: int) -> bool:
        timeout_ms = self.batch.requests[place].timeout_ms
        late_s = self.clock() - self.received - timeout_ms / 1000
        if late_s > 0:
            text = f"its time ran out {late_s * 1000:.0f} ms before the model could run it"
            self.replies[place] = error_reply(DeadlineExceeded(text))
        return late_s > 0

    def _request(self, place: int) -> ModelRequest:
        _, rows, options, inline = self.batch.requests[place]
        tensors, specs = unpack(self.sharing.packed(options, inline)), self.loaded.spec.inputs
        options = without_slots(options) if has_slots(options) else options
        if not is_body(options):
            return ModelRequest(options, rows, None, checked(tensors, specs, rows))
        body = unpack_body(tensors, options)
        request = ModelRequest(options, 0, body)
        if self.loaded.preprocess is None:
            request.tensors = checked(from_body(body, specs), specs, 0)
        else:
            request.tensors = _preprocessed(self.loaded, request)
        return request

    def _run(self, places: Sequence[int]) -> None:
        places = [place for place in places if not self._is_expired(place)]
        outputs = self._infer(places) if places else []
        if outputs is None:  # a batch of several raised: find the guilty
            for place in places:
                self._run([place])
            return
        for place, share in zip(places, outputs, strict=False):
            self._answer(place, share)

    def _infer(self, places: Sequence[int]) -> list[Values] | None:
        """Each request's outputs; [] when the error has been answered, None to run one by one."""
        try:
            return self.loaded.run([self.requests[place] for place in places], self._timed)
        except BaseException as error:
            alone = len(places) == 1 or not self.loaded.spec.idempotent
            exhausted = device.is_out_of_memory(error)
            if alone:
                self._fail(places, error)
        if exhausted:  # here, where the exception no longer holds the tensors of its frames
            device.free_memory(self.loaded.device)
        return [] if alone else None

    def _timed(self, inputs: Values) -> Values:
        start = self.clock()
        try:
            return self.loaded.infer(inputs)
        finally:
            self.compute_s += self.clock() - start

    def _answer(self, place: int, outputs: Values) -> None:
        request = self.requests[place]
        put = partial(self.sharing.put, self.batch.requests[place].options)
        try:
            if request.content is None:
                self.replies[place] = tensors_reply(as_tensors(outputs), put)
            else:
                postprocess = self.loaded.postprocess
                answer = postprocess(outputs, request) if postprocess else outputs
                self.replies[place] = body_reply(answer, put)
        except BaseException as error:
            self._fail([place], error)

    def _fail(self, places: Sequence[int], error: BaseException) -> None:
        self.loaded.tell(error)
        reply = error_reply(error)
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
