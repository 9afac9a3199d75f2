"""CUDA graphs: what a model enqueues for a batch, recorded once and replayed in one call.

Knows: which models may have graphs, static inputs and outputs. Must not know: streams' order, requests.

A graph reads and writes fixed memory. So a batch is first copied into the graph's own inputs, on the device
and on the compute stream, and what comes out is copied out of the graph's memory at once: then the next batch
may be copied in and replayed while this one's outputs travel to the host. All graphs of a model share one
pool of memory, which is safe because they run one after the other and their outputs never stay in it.

There is one graph for each shape that was captured; any other batch runs eagerly, and so does a model that
cannot be captured (it waits for the GPU, or makes tensors of sizes that depend on data). Code of the model's
that is not on the GPU (prints, counters, random numbers of the host) runs at capture and never again: that is
why a model must ask for graphs.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from torch import Tensor

from headway.models import ModelSpec
from headway.tensors import BYTES
from headway_worker.collate import Values
from headway_worker.tracks import Infer

if TYPE_CHECKING:
    from headway_worker.streams import Gpu

log = logging.getLogger("headway.worker")
Key = tuple[Any, ...]
Tensors = dict[str, Tensor]  # all on the GPU


def refusal(spec: ModelSpec) -> str:
    """Why a model can have no graphs, as one sees without trying; "" where there is no reason."""
    for tensor in spec.inputs:
        if tensor.dtype == BYTES.name:
            return f"not captured: {tensor.name} is bytes"
        if tensor.example_shape is None:
            return f"not captured: {tensor.name} has no warmup_shape"
    return "" if spec.inputs else "not captured: no inputs are declared"


@dataclass
class _Captured:
    replay: Callable[[], None]
    inputs: Tensors
    outputs: Tensors


class Graphs:
    """The graphs of one model: of `forward`, whose inputs are as `cast` makes them."""

    def __init__(self, gpu: Gpu, forward: Infer, cast: Infer, rows_max: int) -> None:
        self._gpu = gpu
        self._forward = forward
        self._cast = cast
        self._rows_max = rows_max
        self._pool: Any = None
        self._static: dict[Key, Tensor] = {}
        self._captured: dict[Key, _Captured] = {}

    def __len__(self) -> int:
        """How many graphs there are."""
        return len(self._captured)

    def capture(self, inputs: Tensors) -> str:
        """Record the model for inputs like these, which are on the GPU. Returns why it could not be, and
        then forgets the others too: a model runs in one way."""
        try:
            self._captured[_key(inputs)] = self._record(inputs)
            return ""
        except Exception as error:
            self._captured.clear()
            reason = f"not captured: {type(error).__name__}: {error}"[:500]
            log.warning("CUDA graphs: the model runs without: %s", reason, exc_info=error)
            return reason

    def run(self, inputs: Values) -> Values | None:
        """The outputs, which are the caller's own; None where no graph is for these shapes. On the compute
        stream."""
        captured = self._captured.get(_key(inputs))
        if captured is None:
            return None
        for name, value in inputs.items():
            captured.inputs[name].copy_(value)  # type: ignore[arg-type]  # casts, and orders channels
        captured.replay()
        return {name: value.clone() for name, value in captured.outputs.items()}

    def _record(self, inputs: Tensors) -> _Captured:
        self._pool = self._pool or self._gpu.pool()
        static = self._gpu.call(self._gpu.compute, partial(self._static_inputs, inputs))
        replay, outputs = self._gpu.capture(partial(self._forward, {**static}), self._pool)
        return _Captured(replay, static, {n: self._on_gpu(n, value) for n, value in outputs.items()})

    def _on_gpu(self, name: str, value: Any) -> Tensor:
        if not isinstance(value, Tensor) or value.device != self._gpu.device:
            raise TypeError(f"output {name!r} is not on the GPU")
        return value

    def _static_inputs(self, inputs: Tensors) -> Tensors:
        return {name: self._rows(name, value) for name, value in inputs.items()}

    def _rows(self, name: str, value: Tensor) -> Tensor:
        """The example in the first rows of memory that all sizes share, in the model's precision and
        format."""
        key = (name, *value.shape[1:])
        if key not in self._static:
            made = self._cast({name: value.new_empty((self._rows_max, *value.shape[1:]))})
            self._static[key] = made[name]  # type: ignore[assignment]
        static = self._static[key][: len(value)]
        static.copy_(value)
        return static


def _key(inputs: Mapping[str, Any]) -> Key:
    return tuple((name, *value.shape) for name, value in inputs.items())
