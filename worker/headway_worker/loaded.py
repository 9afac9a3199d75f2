"""One model version, loaded: its backend, its track, its pre- and postprocessing.

Knows: how backends are found, what a model's `processing` file is.
Must not know: batches as they come over the wire, threads, torch.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from headway.errors import CallerError, SettingsError
from headway.models import ModelSpec
from headway_worker import collate
from headway_worker.backends import Backend
from headway_worker.buckets import bucket_of, buckets_of
from headway_worker.collate import Values
from headway_worker.replies import error_text
from headway_worker.request import ModelRequest
from headway_worker.sources import forget, import_file
from headway_worker.tracks import Flight, Share, Track, WholeTrack, width_of
from headway_worker.yard import holds_nothing, track_for

log = logging.getLogger("headway.worker")
GROUP = "headway.backends"
HOOKS = ("preprocess", "postprocess")
_TOLD_MAX = 100


def _no_meta(error: BaseException) -> dict[str, Any]:
    """Most backends' errors say no more than their text."""
    return {}


@dataclass
class Loaded:
    """A model version that can infer. Belongs to the runner's thread, but for `preprocess` and `collate`,
    which the decoder's thread may call for one batch while the runner's computes another."""

    spec: ModelSpec
    backend: Backend
    track: Track
    buckets: tuple[int, ...] = ()
    preprocess: Callable[[ModelRequest], Any] | None = None
    postprocess: Callable[[Values, ModelRequest], Any] | None = None
    takes_requests: bool = False  # the backend has `answer` in place of `infer`
    retries_alone: bool = True
    wants_gradients: bool = False  # it runs as torch does usually, and not in inference mode
    meta_of: Callable[[BaseException], dict[str, Any]] = _no_meta
    compute_s: float = 0.0  # what the last batch took
    _told: set[str] = field(default_factory=set)

    def grouped(self, requests: Sequence[ModelRequest]) -> list[list[int]]:
        """Places of the requests that can share a batch, in order."""
        if self.takes_requests:
            return [list(range(len(requests)))] if requests else []
        return collate.grouped(requests, self.spec.inputs)

    def land(self, flight: Flight, requests: Sequence[ModelRequest]) -> list[Share]:
        """Wait for the batch of these requests; each one's own outputs. Raises: what the device says;
        ModelError."""
        outputs = flight.outputs()
        self.compute_s = flight.compute_s()
        if isinstance(outputs, list):
            return outputs
        rows = width_of(requests)
        bucket = bucket_of(rows, self.buckets)
        collate.check_outputs(outputs, self.spec.outputs, bucket)
        return [*collate.split(collate.cut(outputs, rows) if rows < bucket else outputs, requests)]

    def tell(self, error: BaseException) -> None:
        """Log an exception of the model's with its traceback, each message once; a caller's fault only
        for those who debug."""
        text = error_text(error)
        if text in self._told or len(self._told) > _TOLD_MAX:
            return
        self._told.add(text)
        level = logging.DEBUG if isinstance(error, CallerError) else logging.WARNING
        log.log(level, "model %s version %s: %s", *self.spec.key, text, exc_info=error)
        if len(self._told) > _TOLD_MAX:
            log.warning("model %s version %s: further errors are not logged", *self.spec.key)

    def close(self) -> None:
        """Let go of the model and its modules. Raises: whatever the model's own close raises."""
        _close(self.spec, self.backend)


def _close(spec: ModelSpec, backend: Backend) -> None:
    try:
        backend.close()
    finally:
        forget(Path(spec.folder))


def load(spec: ModelSpec, device: Any, holds: Callable[[int, int], bool] = holds_nothing) -> Loaded:
    """Load a version on a `torch.device`, not yet warm. `holds`: see `yard.track_for`.

    Raises: SettingsError for a wrong `model.toml`; whatever the backend or the model's code raises.
    """
    backend = backend_class(spec.backend)()
    try:
        backend.load(spec, device)
        hooks = _hooks(spec, backend)
        if callable(getattr(backend, "answer", None)):
            _check_abreast(spec, backend)
            return _of_requests(spec, backend)
        _check_abreast(spec, None)
        buckets = buckets_of(spec, device.type == "cuda")
        track = track_for(spec, backend.infer, buckets, device, holds)
        return Loaded(spec, backend, track, buckets, preprocess=hooks[0], postprocess=hooks[1])
    except BaseException:
        _close_quietly(spec, backend)
        raise


def _of_requests(spec: ModelSpec, backend: Any) -> Loaded:
    """Of a backend that takes requests whole. Raises: SettingsError for what it then cannot have."""
    if spec.processing:
        raise SettingsError(f"processing: backend {spec.backend!r} takes requests as they came")
    if spec.batch_buckets or spec.cuda_graphs:
        key = "batch_buckets" if spec.batch_buckets else "cuda_graphs"
        raise SettingsError(f"{key}: backend {spec.backend!r} takes requests as they came, without padding")
    meta_of = getattr(backend, "error_meta", _no_meta)
    alone = bool(getattr(backend, "retries_alone", True))
    gradients = bool(getattr(backend, "wants_gradients", False))
    track = WholeTrack(backend.answer)
    return Loaded(
        spec,
        backend,
        track,
        takes_requests=True,
        retries_alone=alone,
        wants_gradients=gradients,
        meta_of=meta_of,
    )


def _check_abreast(spec: ModelSpec, backend: Any) -> None:
    """Raises: SettingsError for a backend that cannot run batches beside one another."""
    for key, method in (("continuous", "step"), ("in_flight_max", "answer_later")):
        if getattr(spec, key) and not callable(getattr(backend, method, None)):
            raise SettingsError(f"{key}: backend {spec.backend!r} runs one batch after the other")


def _close_quietly(spec: ModelSpec, backend: Backend) -> None:
    try:
        _close(spec, backend)
    except BaseException as error:  # what it raised before is what people need to see
        log.debug("close after a failed load: %s", error_text(error))


def backend_class(name: str) -> Callable[[], Backend]:
    """The class of a backend. Raises: SettingsError naming the known ones."""
    known = {point.name: point for point in entry_points(group=GROUP)}
    if name not in known:
        raise SettingsError(f"backend: {name!r} is not known; known are {', '.join(sorted(known))}")
    return known[name].load()


def _hooks(spec: ModelSpec, backend: Backend) -> list[Callable[..., Any] | None]:
    """The model's preprocess and postprocess: the backend's own, or those of the `processing` file."""
    own = [_callable(getattr(backend, name, None)) for name in HOOKS]
    if not spec.processing:
        return own
    if any(own):
        raise SettingsError(f"processing: the model has its own {' and '.join(HOOKS)} already; keep one")
    module = import_file(Path(spec.folder), spec.processing)
    found = [_callable(getattr(module, name, None)) for name in HOOKS]
    if not any(found):
        raise SettingsError(f"processing: {spec.processing} defines no {' and no '.join(HOOKS)}")
    return found


def _callable(value: Any) -> Callable[..., Any] | None:
    return value if callable(value) else None
