"""One model version, loaded: its backend, its pre- and postprocessing, its warm-up.

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
from headway.models import ModelSpec, TensorSpec
from headway_worker import collate
from headway_worker.backends import Backend
from headway_worker.collate import Values
from headway_worker.inputs import example
from headway_worker.replies import error_text
from headway_worker.request import ModelRequest
from headway_worker.sources import forget, import_file

log = logging.getLogger("headway.worker")
GROUP = "headway.backends"
HOOKS = ("preprocess", "postprocess")
_TOLD_MAX = 100


@dataclass
class Loaded:
    """A model version that can infer. Belongs to the runner's thread."""

    spec: ModelSpec
    device: Any
    backend: Backend
    preprocess: Callable[[ModelRequest], Any] | None = None
    postprocess: Callable[[Values, ModelRequest], Any] | None = None
    _told: set[str] = field(default_factory=set)

    def infer(self, inputs: Values) -> Values:
        """A batch from the CPU to the CPU. Raises: whatever the model raises; ModelError."""
        outputs = self.backend.infer(collate.to_device(inputs, self.device))
        return {name: collate.to_host(name, value) for name, value in outputs.items()}

    def run(self, requests: Sequence[ModelRequest], around: Callable[[Values], Values]) -> list[Values]:
        """The requests of one group as one batch, each one's own outputs. `around` is called in place of
        `infer`, and calls it. Raises: whatever the model raises; ModelError."""
        pin = self.device.type == "cuda"
        outputs = around(collate.collate(requests, self.spec.inputs, pin))
        collate.check_outputs(outputs, self.spec.outputs, sum(r.width for r in requests))
        return collate.split(outputs, requests)

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
        try:
            self.backend.close()
        finally:
            forget(Path(self.spec.folder))


def load(spec: ModelSpec, device: Any) -> Loaded:
    """Load a version on a `torch.device`, not yet warm.

    Raises: SettingsError for a wrong `model.toml`; whatever the backend or the model's code raises.
    """
    loaded = Loaded(spec, device, backend_class(spec.backend)())
    try:
        loaded.backend.load(spec, device)
        hooks = _hooks(spec, loaded.backend)
    except BaseException:
        _close_quietly(loaded)
        raise
    loaded.preprocess, loaded.postprocess = hooks
    return loaded


def _close_quietly(loaded: Loaded) -> None:
    try:
        loaded.close()
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


def warm_up(loaded: Loaded, clock: Callable[[], float]) -> dict[str, Any]:
    """Run a batch of one and a full batch of examples, and check what comes out.

    Returns facts: how many milliseconds each took, or why it was skipped; what goes in and comes out.
    Raises: ModelError naming the output that is not as declared; whatever the model raises.
    """
    spec = loaded.spec
    warmup = _callable(getattr(loaded.backend, "warmup", None))
    if warmup:
        warmup()
    facts = {"inputs": _signature(spec.inputs), "outputs": _signature(spec.outputs)}
    reason = _skipped(spec)
    if reason:
        return {"warmup": reason, **facts}
    took = {}
    for rows in sorted({1, spec.batch_size_max}):
        start = clock()
        outputs = _run_examples(loaded, rows)
        took[str(rows)] = round((clock() - start) * 1000, 3)
    if not spec.outputs:  # nobody said what comes out: now it is known, for one example
        facts["outputs"] = [[n, collate.dtype_name(v), list(v.shape)] for n, v in outputs.items()]
    return {"warmup": took, **facts}


def _skipped(spec: ModelSpec) -> str:
    if not spec.inputs:
        return "skipped: no inputs are declared"
    names = [tensor.name for tensor in spec.inputs if tensor.example_shape is None]
    return f"skipped: no warmup_shape for {', '.join(names)}" if names else ""


def _run_examples(loaded: Loaded, rows: int) -> Values:
    tensors = {tensor.name: example(tensor) for tensor in loaded.spec.inputs}
    request = ModelRequest(tensors={n: t for n, t in tensors.items() if t is not None})
    return loaded.run([request] * rows, loaded.infer)[0]


def _signature(specs: Sequence[TensorSpec]) -> list[list[Any]]:
    return [[tensor.name, tensor.dtype, list(tensor.shape)] for tensor in specs]
