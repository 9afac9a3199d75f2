"""Requests into one tensor per input and back: gather, pad, mask, check, cut, split.

Knows: torch and numpy memory, the declared inputs and outputs.
Must not know: backends, replies, orders.

A request with rows 0 is one row, without a batch dimension of its own; one with rows n is n rows. A batch
is `[rows, *shape]`, in memory that is kept for it (page-locked for a GPU), filled row by row with numpy: a
row is copied once, a caller's read-only memory is never handed to torch, and a model may write into its
inputs. PERF: on the CPU a batch of one is copied too. A view would save some 50 us for an image, and let
a model that works in place change the caller's shared memory under a retry.

A *value* is a tensor, or for BYTES a numpy object array of `bytes` of the same shape; a BYTES value is
never on a device.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np
import torch
from torch import Tensor

from headway.errors import ModelError
from headway.models import TensorSpec
from headway.tensors import BY_NAME, BYTES, Array, Tensors, dtype_of
from headway_worker.inputs import fits
from headway_worker.request import ModelRequest

Value = Tensor | Array
Values = dict[str, Value]
Memory = Callable[[str, tuple[int, ...], torch.dtype], Tensor]  # an input's name, its shape and dtype
Specs = Sequence[TensorSpec]

_TORCH = {name: getattr(torch, name) for name in BY_NAME if name != BYTES.name}
_NAMES = {dtype: name for name, dtype in _TORCH.items()}
_OF_NUMPY = {d.numpy: d.name for d in BY_NAME.values()}
_BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


def grouped(requests: Sequence[ModelRequest], specs: Specs) -> list[list[int]]:
    """Places of the requests that can share a batch, in order: equal names, dtypes and shapes, but for
    the -1 dimensions of inputs that are padded."""
    groups: dict[Any, list[int]] = {}
    for place, request in enumerate(requests):
        groups.setdefault(_kind(request, specs), []).append(place)
    return list(groups.values())


def _kind(request: ModelRequest, specs: Specs) -> Any:
    lead = 1 if request.rows else 0
    if not specs:
        return frozenset((n, a.dtype, a.shape[lead:]) for n, a in request.tensors.items())
    # Checked tensors are in the declared order and of the declared dtypes: only shapes can differ.
    return tuple(
        None if spec.pad_value is not None else array.shape[lead:]
        for spec, array in zip(specs, request.tensors.values(), strict=True)
    )


def fresh(name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Memory for an input that nobody has kept."""
    return torch.empty(shape, dtype=dtype)


def collate(
    requests: Sequence[ModelRequest],
    specs: Specs,
    rows: int = 0,
    memory: Memory = fresh,
    skip: Container[str] = (),
) -> Values:
    """One value per input, `[rows, *shape]` on the CPU, in the order of the first request's tensors, then
    the masks in the same order. All requests must be of one group.

    `rows` beyond the requests' own are padding; `skip` names inputs that are not wanted.
    """
    declared = {spec.name: spec for spec in specs}
    inputs: Values = {}
    masks: Values = {}
    for name in requests[0].tensors:
        if name in skip:
            continue
        spec = declared.get(name)
        parts = parts_of(requests, name)
        shape = _room(parts, rows)
        inputs[name] = _filled(parts, _empty(name, shape, parts[0].dtype, memory), pad_of(spec))
        if spec and spec.mask:
            ones = [np.ones(part.shape, bool) for part in parts]
            masks[spec.mask] = _filled(ones, _empty(spec.mask, shape, np.dtype(bool), memory), False)
    return inputs | masks


def parts_of(requests: Sequence[ModelRequest], name: str) -> list[Array]:
    """What each request has of an input, with a leading dimension: without rows of its own it gets a 1."""
    return [r.tensors[name] if r.rows else r.tensors[name][np.newaxis] for r in requests]


def _room(parts: Sequence[Array], rows: int) -> tuple[int, ...]:
    shapes = {part.shape[1:] for part in parts}
    return (max(rows, sum(map(len, parts))), *(max(sizes) for sizes in zip(*shapes, strict=True)))


def pad_of(spec: TensorSpec | None) -> Any:
    """What an input is padded with, in a row as well as with whole rows."""
    if spec is None or spec.pad_value is None:
        return b"" if spec and spec.dtype == BYTES.name else 0
    return b"" if spec.dtype == BYTES.name else spec.pad_value


def _filled(parts: Sequence[Array], room: tuple[Value, Array], pad: Any) -> Value:
    """The room with the parts one after another, padded at the end of each dimension."""
    value, array = room
    if any(part.shape[1:] != array.shape[1:] for part in parts):
        array.fill(pad)
    row = 0
    for part in parts:
        array[(slice(row, row + len(part)), *map(slice, part.shape[1:]))] = part
        row += len(part)
    if row < len(array):
        array[row:] = pad
    return value


def _empty(name: str, shape: tuple[int, ...], dtype: np.dtype[Any], memory: Memory) -> tuple[Value, Array]:
    """A value to be filled, and its memory as a numpy array."""
    if dtype.kind == "O":
        array = np.empty(shape, object)
        return array, array
    tensor = memory(name, shape, torch_dtype(dtype))
    return tensor, to_numpy(tensor)


def torch_dtype(dtype: np.dtype[Any]) -> torch.dtype:
    """Torch's word for a numpy dtype that travels (not BYTES)."""
    return _TORCH[_OF_NUMPY[dtype]]


def from_numpy(array: Array) -> Tensor:
    """A tensor over a numpy array's memory, which must be writable and not BYTES."""
    if array.dtype == _BFLOAT16:
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def to_numpy(value: Value) -> Array:
    """A CPU value as a numpy array over the same memory, of a dtype that travels."""
    if not isinstance(value, Tensor):
        return value
    if value.dtype is torch.bfloat16:  # numpy knows it through ml_dtypes, torch does not know that
        return value.view(torch.int16).numpy().view(_BFLOAT16)
    return value.numpy()


def to_host(name: str, value: Any) -> Value:
    """What a model's code returned, as a dense value on the CPU without gradients.

    Tensors and numpy arrays are taken; strings become BYTES. Raises: ModelError naming the tensor that
    is something else, or whose dtype does not travel.
    """
    if isinstance(value, np.ndarray):
        value = _from_numpy(name, value)
    if not isinstance(value, Tensor):
        if isinstance(value, np.ndarray):
            return value
        raise ModelError(f"{name!r} is of type {type(value).__name__}, not a tensor")
    check_travels(name, value)
    return value.detach().to("cpu").contiguous().resolve_neg()


def check_travels(name: str, value: Tensor) -> None:
    """Raises: ModelError naming a tensor whose dtype has no place on the wire."""
    if value.dtype not in _NAMES:
        raise ModelError(f"{name!r} is {value.dtype}, which does not travel; use one of {', '.join(BY_NAME)}")


def _from_numpy(name: str, array: Array) -> Value:
    if array.dtype.kind == "U":
        return np.char.encode(array).astype(object)
    if array.dtype.kind in "SO":
        return array.astype(object, copy=False)
    dtype = array.dtype.newbyteorder("=")
    if dtype not in _OF_NUMPY:
        raise ModelError(f"{name!r} is {dtype}, which does not travel; use one of {', '.join(BY_NAME)}")
    # Copied where torch would warn: read-only, or with strides that it does not take.
    return from_numpy(np.require(array, dtype, ["C", "W"]))


def dtype_name(value: Value) -> str:
    """The dtype's name, as in `model.toml`."""
    return _NAMES[value.dtype] if isinstance(value, Tensor) else dtype_of(value).name


def check_outputs(outputs: Mapping[str, Value], specs: Specs, rows: int) -> None:
    """Each output has a leading `rows`; the declared ones are there, with their dtypes and shapes.

    Raises: ModelError naming the output, with what was expected and what came.
    """
    for name, value in outputs.items():
        if value.shape[:1] != (rows,):
            raise ModelError(
                f"output {name!r} must have a leading {rows} for a batch of {rows} rows, "
                f"got shape {list(value.shape)}"
            )
    for spec in specs:
        _check_output(spec, outputs.get(spec.name))


def _check_output(spec: TensorSpec, value: Value | None) -> None:
    if value is None:
        raise ModelError(f"output {spec.name!r} is declared, and the model did not return it")
    if dtype_name(value) != spec.dtype:
        raise ModelError(f"output {spec.name!r} must be {spec.dtype}, got {dtype_name(value)}")
    if not fits(value.shape[1:], spec.shape):
        raise ModelError(
            f"output {spec.name!r} must have shape {list(spec.shape)}, "
            f"got {list(value.shape[1:])} after the batch dimension"
        )


def cut(outputs: Values, rows: int) -> Values:
    """The outputs without the rows that are only padding, as views."""
    return {name: value[:rows] for name, value in outputs.items()}


def split(outputs: Values, requests: Sequence[ModelRequest]) -> list[Values]:
    """Each request's own outputs, as views: without the batch dimension where it had none. A body's are
    values, for its postprocess; a tensor request's are numpy arrays, which cost a tenth to slice."""
    arrays: Values = {**as_tensors(outputs)}
    row = 0
    shares: list[Values] = []
    for request in requests:
        index: Any = (slice(row, row + request.rows) if request.rows else row, ...)
        source = outputs if request.content else arrays
        shares.append({name: value[index] for name, value in source.items()})
        row += request.width
    return shares


def as_tensors(values: Mapping[str, Value]) -> Tensors:
    """Values on the CPU as numpy arrays over the same memory, ready to be packed."""
    return {name: to_numpy(value) for name, value in values.items()}
