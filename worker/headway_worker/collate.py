"""Requests into one tensor per input and back: gather, pad, mask, move, check, split.

Knows: torch and numpy memory, the declared inputs and outputs.
Must not know: backends, replies, orders.

A request with rows 0 is one row, without a batch dimension of its own; one with rows n is n rows. A batch
is `[rows in total, *shape]`, allocated once (page-locked for a GPU) and filled row by row with numpy: a
row is copied once, a caller's read-only memory is never handed to torch, and a model may write into its
inputs. PERF: on the CPU a batch of one is copied too. A view would save some 50 us for an image, and let
a model that works in place change the caller's shared memory under a retry.

A *value* is a tensor, or for BYTES a numpy object array of `bytes` of the same shape; a BYTES value is
never on a device.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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


def collate(requests: Sequence[ModelRequest], specs: Specs, pin: bool = False) -> Values:
    """One value per input, `[rows in total, *shape]` on the CPU, in the order of the first request's
    tensors, then the masks in the same order. All requests must be of one group."""
    declared = {spec.name: spec for spec in specs}
    inputs: Values = {}
    masks: Values = {}
    for name in requests[0].tensors:
        spec = declared.get(name)
        # Each with a leading dimension: a request without rows of its own gets a 1.
        parts = [r.tensors[name] if r.rows else r.tensors[name][np.newaxis] for r in requests]
        shape = _room(parts)
        inputs[name] = _filled(parts, shape, _pad_of(spec), pin)
        if spec and spec.mask:
            masks[spec.mask] = _filled([np.ones(p.shape, bool) for p in parts], shape, False, pin)
    return inputs | masks


def _room(parts: Sequence[Array]) -> tuple[int, ...]:
    shapes = {part.shape[1:] for part in parts}
    return (sum(map(len, parts)), *(max(sizes) for sizes in zip(*shapes, strict=True)))


def _pad_of(spec: TensorSpec | None) -> Any:
    if spec is None or spec.pad_value is None:
        return 0
    return b"" if spec.dtype == BYTES.name else spec.pad_value


def _filled(parts: Sequence[Array], shape: tuple[int, ...], pad: Any, pin: bool) -> Value:
    """A fresh value of `shape` with the parts one after another, padded at the end of each dimension."""
    value, array = _empty(shape, parts[0].dtype, pin)
    if any(part.shape[1:] != shape[1:] for part in parts):
        array.fill(pad)
    row = 0
    for part in parts:
        array[(slice(row, row + len(part)), *map(slice, part.shape[1:]))] = part
        row += len(part)
    return value


def _empty(shape: tuple[int, ...], dtype: np.dtype[Any], pin: bool) -> tuple[Value, Array]:
    """A fresh value, and its memory as a numpy array."""
    if dtype.kind == "O":
        array = np.empty(shape, object)
        return array, array
    tensor = torch.empty(shape, dtype=_TORCH[_OF_NUMPY[dtype]], pin_memory=pin)
    return tensor, to_numpy(tensor)


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
    if value.dtype not in _NAMES:
        raise ModelError(f"{name!r} is {value.dtype}, which does not travel; use one of {', '.join(BY_NAME)}")
    return value.detach().to("cpu").contiguous().resolve_neg()


def _from_numpy(name: str, array: Array) -> Value:
    if array.dtype.kind == "U":
        return np.char.encode(array).astype(object)
    if array.dtype.kind in "SO":
        return array.astype(object, copy=False)
    dtype = array.dtype.newbyteorder("=")
    if dtype not in _OF_NUMPY:
        raise ModelError(f"{name!r} is {dtype}, which does not travel; use one of {', '.join(BY_NAME)}")
    # Copied where torch would warn: read-only, or with strides that it does not take.
    array = np.require(array, dtype, ["C", "W"])
    if dtype == _BFLOAT16:
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def to_device(inputs: Values, device: torch.device) -> Values:
    """The inputs where the model is; page-locked ones go without waiting for the copy."""
    return {
        name: value.to(device, non_blocking=True) if isinstance(value, Tensor) else value
        for name, value in inputs.items()
    }


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
