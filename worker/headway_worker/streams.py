"""A batch's way through a model on a GPU: three streams, so that copies and computation overlap.

Knows: which piece of work goes to which stream, what it waits for, whose memory may be used again.
Must not know: CUDA's functions (that is `gpu`), graphs' insides, requests' fates, orders.

    copy in    |A in|B in|    |C in|              a slot of static inputs for each of two batches
    compute         |--- A ---|--- B ---|--- C
    copy out                  |A out|   |B out|   into page-locked memory

How it works. `launch` only enqueues, and returns while the GPU is still busy with the batch before. Events
order what must be ordered, and nothing else:

- the copy into a slot waits for the computation that read the slot last, two batches ago;
- a computation waits for the copy into its slot;
- the copy out waits for its computation, and whoever wants the outputs waits for the copy out.

Whose memory. Slots live as long as the model. What is made for one batch (inputs of open shapes, outputs) is
allocated on the stream that writes it and read on another, which torch's allocator does not know about: it
would hand the memory to the next batch as soon as Python lets go of it. So the flight holds it until the
copy out is done, after which no stream uses it (`record_stream` would do the same, later and less
predictably). Page-locked staging memory is torch's, which does watch its copies. A caller's own memory is
read by the copy engine itself where the driver has been told of it; the request's slot stays taken until
its reply is sent, which is after that.

An output that is a view of the model's input is copied: the slot is written again while it is copied out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from headway.models import ModelSpec, TensorSpec
from headway.tensors import BYTES, Array
from headway_worker.buckets import bucket_of
from headway_worker.casting import Casting
from headway_worker.collate import (
    Value,
    Values,
    check_travels,
    collate,
    from_numpy,
    pad_of,
    parts_of,
    to_host,
    torch_dtype,
)
from headway_worker.graphs import Graphs, refusal
from headway_worker.request import ModelRequest
from headway_worker.tracks import Clock, Collated, Flight, Infer, width_of

T = TypeVar("T")
SLOTS = 2
# PERF: handing a copy to the driver costs some 5 us, in which a core copies about as many bytes itself.
DIRECT_BYTES_MIN = 64 << 10


class Gpu(Protocol):
    """What is needed of a device with streams. `gpu.CudaGpu` is one; tests have another."""

    device: torch.device
    copy_in: Any
    compute: Any
    copy_out: Any

    def event(self) -> Any: ...
    def record(self, stream: Any, event: Any) -> None: ...
    def wait(self, stream: Any, event: Any) -> None:
        """What is enqueued on the stream from here on runs after what the event was recorded after."""

    def copy(self, stream: Any, target: Tensor, source: Tensor) -> None: ...
    def fill(self, stream: Any, target: Tensor, value: float) -> None: ...
    def call(self, stream: Any, function: Callable[[], T]) -> T:
        """Call the function with the stream as torch's current one."""

    def empty(self, stream: Any, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Memory on the device, which belongs to the stream as long as no event says otherwise."""

    def pinned(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Page-locked memory of the host."""

    def is_done(self, event: Any) -> bool: ...
    def synchronize(self, event: Any) -> None: ...
    def seconds(self, start: Any, end: Any) -> float: ...
    def capture(self, function: Callable[[], T], pool: Any) -> tuple[Callable[[], None], T]:
        """Record what the function enqueues on the compute stream; what replays it, and its result."""

    def pool(self) -> Any: ...


@dataclass
class Direct:
    """An input whose rows the copy engine reads where they lie: each `[n, *shape]`, page-locked."""

    parts: list[Array]
    rows: int  # with padding
    pad: float


@dataclass
class _Slot:
    """Static inputs `[batch_size_max, *shape]` on the device, by name; and when they may be written."""

    filled: Any
    consumed: Any
    memory: dict[str, Tensor] = field(default_factory=dict)


class StreamTrack:
    """One model on a GPU. `holds(address, size)`: whether the driver knows this memory as page-locked."""

    depth = SLOTS

    def __init__(
        self,
        spec: ModelSpec,
        infer: Infer,
        buckets: tuple[int, ...],
        gpu: Gpu,
        holds: Callable[[int, int], bool],
    ) -> None:
        self._spec = spec
        self._infer = infer
        self._buckets = buckets
        self._gpu = gpu
        self._holds = holds
        self._casting = Casting(spec)
        self._slots = [_Slot(gpu.event(), gpu.event()) for _ in range(SLOTS)]
        self._turn = 0
        self._why_eager = refusal(spec)
        self._graphs = Graphs(gpu, self._forward, self._casting.inputs, spec.batch_size_max)

    def collate(self, requests: Sequence[ModelRequest]) -> Collated:
        rows = bucket_of(width_of(requests), self._buckets)
        direct = {}
        for spec in self._spec.inputs:
            parts = parts_of(requests, spec.name)
            if self._is_direct(spec, parts):
                direct[spec.name] = Direct(parts, rows, pad_of(spec))
        staged = collate(requests, self._spec.inputs, rows, self._gpu.pinned, skip=direct)
        names = requests[0].tensors  # the declared order, masks after them
        return {n: direct[n] if n in direct else staged.pop(n) for n in names} | staged

    def launch(self, inputs: Collated, clock: Clock) -> Flight:
        gpu, slot = self._gpu, self._slots[self._turn]
        self._turn = (self._turn + 1) % SLOTS
        start, computed, done = gpu.event(), gpu.event(), gpu.event()
        gpu.wait(gpu.copy_in, slot.consumed)
        placed = {name: self._copied_in(slot, name, value) for name, value in inputs.items()}
        gpu.record(gpu.copy_in, slot.filled)
        gpu.wait(gpu.compute, slot.filled)
        slot.consumed = computed
        try:
            gpu.record(gpu.compute, start)
            made = gpu.call(gpu.compute, partial(self._compute, placed))
        except BaseException:
            gpu.record(gpu.compute, computed)
            with suppress(RuntimeError):  # a device that is broken says so to the next batch as well
                gpu.synchronize(computed)  # until then what this frame holds is in use
            raise
        gpu.record(gpu.compute, computed)
        gpu.wait(gpu.copy_out, computed)
        outputs = {name: self._copied_out(name, value) for name, value in made.items()}
        gpu.record(gpu.copy_out, done)
        return _Flying(gpu, (start, computed, done), outputs, (inputs, placed, made))

    def settle(self, requests: Sequence[ModelRequest], clock: Clock) -> None:
        """Capture a graph for batches like this one, where the model wants it."""
        if not self._spec.cuda_graphs or self._why_eager:
            return
        inputs = self.collate(requests)
        for _ in range(2):  # lazily made handles and workspaces must be there before
            self.launch(inputs, clock).outputs()
        memory = self._slots[self._turn - 1].memory  # of the batch that was just run
        self._why_eager = self._graphs.capture({name: memory[name][: len(v)] for name, v in inputs.items()})

    def facts(self) -> dict[str, Any]:
        if not self._spec.cuda_graphs:
            return {}
        return {"cuda_graphs": self._why_eager or f"captured for {len(self._graphs)} sizes"}

    def _is_direct(self, spec: TensorSpec, parts: Sequence[Array]) -> bool:
        if spec.mask or spec.dtype == BYTES.name or -1 in spec.shape:
            return False
        return all(
            part.nbytes >= DIRECT_BYTES_MIN
            and part.flags.c_contiguous
            and self._holds(part.ctypes.data, part.nbytes)
            for part in parts
        )

    def _copied_in(self, slot: _Slot, name: str, value: Any) -> Value:
        """The value on the device (BYTES: as it is), being copied there."""
        gpu = self._gpu
        if isinstance(value, Direct):
            shape = (value.rows, *value.parts[0].shape[1:])
            target = self._place(slot, name, shape, torch_dtype(value.parts[0].dtype))
            row = 0
            for part in value.parts:
                gpu.copy(gpu.copy_in, target[row : row + len(part)], from_numpy(_writable(part)))
                row += len(part)
            if row < value.rows:
                gpu.fill(gpu.copy_in, target[row:], value.pad)
            return target
        if not isinstance(value, Tensor):
            return value
        target = self._place(slot, name, tuple(value.shape), value.dtype)
        gpu.copy(gpu.copy_in, target, value)
        return target

    def _place(self, slot: _Slot, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Room in the slot; a batch of another shape than the slot's, or a larger one, gets its own."""
        rows = self._spec.batch_size_max
        if name not in slot.memory and shape[0] <= rows:
            slot.memory[name] = self._gpu.empty(self._gpu.copy_in, (rows, *shape[1:]), dtype)
        kept = slot.memory.get(name)
        if kept is None or shape[0] > rows or kept.shape[1:] != shape[1:] or kept.dtype != dtype:
            return self._gpu.empty(self._gpu.copy_in, shape, dtype)
        return kept[: shape[0]]

    def _compute(self, placed: Values) -> Values:
        """On the compute stream: outputs that are dense, and nobody else's."""
        made = self._graphs.run(placed) if self._graphs else None
        if made is None:
            made = self._forward(self._casting.inputs(placed))
        mine = {_memory_of(v) for v in placed.values() if isinstance(v, Tensor)}
        return {name: self._dense(name, value, mine) for name, value in made.items()}

    def _forward(self, inputs: Values) -> Values:
        return self._casting.outputs(self._infer(inputs))

    def _dense(self, name: str, value: Any, inputs: set[int]) -> Value:
        if not isinstance(value, Tensor) or value.device != self._gpu.device:
            return to_host(name, value)
        check_travels(name, value)
        dense = value.detach().resolve_neg().contiguous()
        return dense.clone() if _memory_of(dense) in inputs else dense

    def _copied_out(self, name: str, value: Value) -> Value:
        if not isinstance(value, Tensor) or value.device != self._gpu.device:
            return value
        host = self._gpu.pinned(name, tuple(value.shape), value.dtype)
        self._gpu.copy(self._gpu.copy_out, host, value)
        return host


class _Flying:
    """A batch between its launch and the end of its copy out. Holds all memory that it uses until then."""

    def __init__(self, gpu: Gpu, events: tuple[Any, Any, Any], outputs: Values, holds: Any) -> None:
        self._gpu = gpu
        self._start, self._computed, self._done = events
        self._outputs = outputs
        self._holds = holds

    def is_done(self) -> bool:
        try:
            return self._gpu.is_done(self._done)
        except RuntimeError:  # the device has failed, as `outputs` will say
            return True

    def outputs(self) -> Values:
        self._gpu.synchronize(self._done)  # lets other threads run meanwhile
        self._holds = None
        return self._outputs

    def compute_s(self) -> float:
        return self._gpu.seconds(self._start, self._computed)


def _memory_of(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


class _Place:
    """Memory of an array as numpy's interface describes it, writable whatever the array says."""

    def __init__(self, array: Array) -> None:
        described = array.view(np.uint8).__array_interface__
        self.__array_interface__ = {**described, "data": (described["data"][0], False)}
        self.array = array  # stays alive as long as what is made of this


def _writable(array: Array) -> Array:
    """The same memory without the mark that it is read-only, at which torch warns; nobody writes to it."""
    if array.flags.writeable:
        return array
    return np.asarray(_Place(array)).view(array.dtype)
