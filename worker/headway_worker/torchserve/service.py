"""One archive, loaded: its handler, and what requests go through on their way to it and back.

Knows: the order of things. Must not know: backends, `model.toml`, how any of it is done.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch

from headway.headers import HEADERS
from headway.torchserve.config import Config
from headway.torchserve.metrics import META, packed, read_declarations
from headway_worker.continuous import Step
from headway_worker.replies import Answer, error_text
from headway_worker.request import ModelRequest
from headway_worker.torchserve import data
from headway_worker.torchserve.archive import Archive
from headway_worker.torchserve.entry import entry_of
from headway_worker.torchserve.modules import Modules
from headway_worker.torchserve.recorded import Recorded
from headway_worker.torchserve.stepwise import stepwise
from headway_worker.torchserve.ts.context import Context, RequestProcessor, Send
from headway_worker.torchserve.ts.metrics.metric_type_enum import MetricTypes
from headway_worker.torchserve.ts.metrics.metrics_store import MetricsStore
from headway_worker.torchserve.ts.torch_handler.request_envelope import envelope_of
from headway_worker.torchserve.ts.utils.util import PredictionException
from headway_worker.tracks import Share

_RIDES = "the id of a request that the handler has had"
FAILED, EXHAUSTED = "Prediction failed", "Out of resources"


@dataclass(frozen=True)
class Wishes:
    """How the archive shall be served."""

    model: str = ""  # what it is registered as, in place of the manifest's name
    handler: str = ""  # in place of the manifest's
    envelope: str = ""
    batch_size: int = 1
    decodes: bool = True
    limits_pixels: bool = True
    may_unpickle: bool = False
    metrics_config: str = ""
    packages: str = ""  # a folder of Python packages that are the archive's own


class Service:
    """To be used by one thread at a time."""

    def __init__(self, archive: Archive, config: Config, device: torch.device, wishes: Wishes) -> None:
        self.archive = archive
        more = [Path(wishes.packages).resolve()] if wishes.packages else []
        self.modules = Modules(archive.folder, more)
        model = wishes.model or archive.manifest.model_name
        declared = read_declarations(wishes.metrics_config)
        self.recorded = Recorded(model)
        self.metrics = MetricsStore(model, self.recorded.note, declared.model.values())
        self._wishes = wishes
        # As in a process of its own: explanations need gradients, and tensors that can have them.
        self._as_usual = torch.inference_mode(False)
        self._handle: Callable[[Any, Any], Any]
        self._context = Context(
            model_name=model,
            model_dir=str(archive.folder),
            manifest=archive.manifest.content,
            batch_size=wishes.batch_size,
            gpu=device.index or 0 if device.type == "cuda" else None,
            limit_max_image_pixels=wishes.limits_pixels,
            metrics=self.metrics,
        )
        self._context.model_yaml_config = config.content
        self._context.may_unpickle = wishes.may_unpickle

    @property
    def handler(self) -> str:
        return self._wishes.handler or self.archive.manifest.handler

    def open(self) -> None:
        """Import and initialize the handler. Raises: SettingsError; whatever its code raises."""
        self.modules.refresh()
        envelope = self._wishes.envelope or self.archive.manifest.envelope
        with self._entered():
            handle = entry_of(self.handler, self.archive.folder, self._context)
            self._handle = envelope_of(envelope, handle) if envelope else handle

    def answer(self, requests: Sequence[ModelRequest]) -> list[Share]:
        """What the handler makes of a batch. Raises: WrongAnswer; whatever the handler raises."""
        if torch.is_inference_mode_enabled() or not torch.is_grad_enabled():
            with self._as_usual:
                return self.answer(requests)
        return [share for group in data.groups(requests) for share in self._answer(group)]

    def _answer(self, requests: Sequence[ModelRequest]) -> list[Share]:
        asked = data.asked(requests, self._wishes.decodes)
        self._context.begin(asked.ids, asked.processors, _senders(requests, asked))
        started = time.perf_counter()
        with self._entered():
            returned = self._handle(asked.data, self._context)
        self._took(self.metrics, started)
        results = data.results(returned, len(asked.data))
        shares = self._shares(requests, asked.widths, results, self._context)
        return self._with_metrics(requests, shares)

    def step(self, requests: Sequence[ModelRequest]) -> list[Step]:
        """A turn of a running batch: what the handler makes of each, and whether it wants it again.
        Raises: as `answer`."""
        asked = data.together([self._asked_in_turn(request) for request in requests])
        self._context.begin(asked.ids, asked.processors, _senders(requests, asked))
        started = time.perf_counter()
        with self._as_usual, self._entered():
            returned = self._handle(asked.data, self._context)
            results = data.results(returned, len(asked.data))
            on = [self._context.rides_on(place, result) for place, result in enumerate(results)]
        self._took(self.metrics, started)
        shares: list[Share] = [self._body(self._context, place, results) for place in range(len(results))]
        return list(zip(self._with_metrics(requests, shares), on, strict=True))

    def _asked_in_turn(self, request: ModelRequest) -> data.Asked:
        """The request with its data, the first time; without them from then on."""
        if known := request.state.get(_RIDES):
            return data.asked_again(request, known)
        asked = data.asked([request], self._wishes.decodes)
        request.state[_RIDES] = asked.ids[0]
        return asked

    async def answer_later(self, requests: Sequence[ModelRequest]) -> list[Share]:
        """What a handler that is a coroutine makes of a batch, while it has others. Raises: as `answer`."""
        groups = data.groups(requests)
        return [share for group in groups for share in await self._answer_later(group)]

    async def _answer_later(self, requests: Sequence[ModelRequest]) -> list[Share]:
        asked, context = data.asked(requests, self._wishes.decodes), self._context.for_a_call()
        context.begin(asked.ids, asked.processors, _senders(requests, asked))
        started = time.perf_counter()
        returned = await stepwise(lambda: self._handle(asked.data, context), self._entered)
        self._took(context.metrics, started)
        results = data.results(returned, len(asked.data))
        shares = self._shares(requests, asked.widths, results, context)
        return self._with_metrics(requests, shares)

    def _took(self, metrics: MetricsStore, started: float) -> None:
        took_ms = round((time.perf_counter() - started) * 1000, 2)
        metrics.add_metric("PredictionTime", took_ms, "ms", metric_type=MetricTypes.GAUGE)

    def _with_metrics(self, requests: Sequence[ModelRequest], shares: list[Share]) -> list[Share]:
        """What was recorded goes with one reply of the batch: the first that a door waits for."""
        for place, (request, share) in enumerate(zip(requests, shares, strict=True)):
            if HEADERS in request.options and isinstance(share, Answer):
                if records := self.recorded.take():
                    shares[place] = Answer(share.body, {**share.meta, META: packed(records)})
                break
        return shares

    def close(self) -> None:
        """Let go of the handler, and remove what was unpacked."""
        self._handle = _closed
        self._context.begin({}, [])
        self.modules.forget()
        self.archive.close()

    def _entered(self) -> AbstractContextManager[None]:
        """As in a process of its own; what others rely on is as it was afterwards."""
        return self.modules.entered() if self._wishes.limits_pixels else self._entered_without_limit()

    @contextmanager
    def _entered_without_limit(self) -> Iterator[None]:
        with self.modules.entered():
            pillow: Any = sys.modules.get("PIL.Image")
            if pillow is None:
                yield
                return
            limit, pillow.MAX_IMAGE_PIXELS = pillow.MAX_IMAGE_PIXELS, None
            try:
                yield
            finally:
                pillow.MAX_IMAGE_PIXELS = limit

    def _shares(
        self, requests: Sequence[ModelRequest], widths: list[int], results: list[Any], context: Context
    ) -> list[Share]:
        shares: list[Share] = []
        for request, start, width in zip(requests, accumulate(widths, initial=0), widths, strict=False):
            if request.content is None:
                shares.append(data.outputs(results[start : start + width], bool(request.rows)))
            else:
                shares.append(self._body(context, start, results))
        return shares

    def _body(self, context: Context, place: int, results: list[Any]) -> Answer:
        sent = context.sent(place)
        before = b"".join([data.chunk(result) for result in sent]) if sent else b""
        return data.answer(results[place], context.request_processor[place], before)


def meta_of(error: BaseException) -> dict[str, Any]:
    """What TorchServe's clients are told of a batch that failed."""
    if isinstance(error, PredictionException):
        return {"status": data.status_of(error.error_code), "message": str(error.message)[:8000]}
    if isinstance(error, data.WrongAnswer):
        return {"status": 503, "message": error.message}
    if isinstance(error, MemoryError | torch.cuda.OutOfMemoryError) or "CUDA" in error_text(error):
        return {"status": 507, "message": EXHAUSTED}
    return {"status": 503, "message": FAILED}


def _senders(requests: Sequence[ModelRequest], asked: data.Asked) -> Callable[[int], Send | None]:
    """Who takes parts of replies at once, by the places of their data. PERF: looked for when there
    is a part."""
    return partial(_sender_of, [request.send for request in requests], asked.widths)


def _sender_of(sends: list[Callable[[Answer], None] | None], widths: list[int], idx: int) -> Send | None:
    starts = accumulate(widths, initial=0)
    send = next((send for send, start in zip(sends, starts, strict=False) if start == idx), None)
    return partial(_send, send) if send else None


def _send(send: Callable[[Answer], None], part: Any, processor: RequestProcessor) -> None:
    send(data.answer(part, processor))


def _closed(data: Any, context: Any) -> Any:
    raise RuntimeError("the archive is unloaded")
