"""What a caller sent, checked against what the model declares; bodies turned into tensors by default.

Knows: the declared inputs, numpy.
Must not know: torch, batches, the model's own code.

Every refusal is an `InvalidInput` that names the input, with what was expected and what came.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from headway.body import Body
from headway.errors import InvalidInput
from headway.models import TensorSpec
from headway.tensors import BY_NAME, BYTES, Array, Tensors, dtype_of, view

Specs = Sequence[TensorSpec]
# What clients call JSON when nobody made them think: curl's default, and no type at all.
_JSON_TYPES = ("", "text/plain", "application/x-www-form-urlencoded")


def checked(tensors: Tensors, specs: Specs, rows: int) -> Tensors:
    """The tensors in the declared order (a model that declares no inputs takes any).

    Raises: InvalidInput naming the input that is missing, unknown, or of a wrong dtype or shape.
    """
    named = check_names(tensors, specs)
    check_shapes(named, specs, rows)
    return named


def check_names(tensors: Tensors, specs: Specs) -> Tensors:
    """The tensors in the declared order. Raises: InvalidInput for a wrong name or dtype."""
    if not tensors:
        raise InvalidInput(f"the request has no tensors; {takes(specs)}")
    if not specs:
        return tensors
    for spec in specs:
        if spec.name not in tensors:
            raise InvalidInput(f"input {spec.name!r} is missing; {takes(specs)}")
        dtype = dtype_of(tensors[spec.name]).name
        if dtype != spec.dtype:
            raise InvalidInput(f"input {spec.name!r} must be {spec.dtype}, got {dtype}")
    if len(tensors) > len(specs):
        unknown = next(n for n in tensors if all(n != s.name for s in specs))
        raise InvalidInput(f"there is no input {unknown!r}; {takes(specs)}")
    return {spec.name: tensors[spec.name] for spec in specs}


def check_shapes(tensors: Tensors, specs: Specs, rows: int) -> None:
    """With `rows` n > 0 each has a leading n; what follows is as declared. Raises: InvalidInput."""
    if rows:
        for name, array in tensors.items():
            if array.shape[:1] != (rows,):
                raise InvalidInput(
                    f"input {name!r} must have a leading {rows} for the request's {rows} rows, "
                    f"got shape {list(array.shape)}"
                )
    for spec in specs:
        shape = tensors[spec.name].shape[1 if rows else 0 :]
        if not fits(shape, spec.shape):
            raise InvalidInput(
                f"input {spec.name!r} must have shape {list(spec.shape)}, got {list(shape)}"
                + (" after the rows" if rows else "")
            )


def fits(shape: Sequence[int], declared: Sequence[int]) -> bool:
    """Whether a shape is a declared one, where -1 stands for any size."""
    return len(shape) == len(declared) and all(
        want in (-1, got) for got, want in zip(shape, declared, strict=True)
    )


def takes(specs: Specs) -> str:
    """A sentence for error messages: what the model takes."""
    if not specs:
        return "the model does not declare its inputs"
    return "the model takes " + ", ".join(f"{s.name} ({s.dtype} {list(s.shape)})" for s in specs)


def from_body(body: Body, specs: Specs) -> Tensors:
    """A body as tensors, for a model without a `preprocess`; not yet checked for names and shapes.

    JSON is `{"input": nested list, ...}` or, for a model with one input, the bare nested list. An
    octet-stream is the row-major little-endian bytes of the one input, whose shape must be fixed.

    Raises: InvalidInput for any other body, saying what the model takes.
    """
    kind = body.content_type.partition(";")[0].strip().lower()
    if specs and not body.parts:
        if "json" in kind or kind in _JSON_TYPES:
            return _from_json(body, specs)
        if kind == "application/octet-stream" and _is_raw(specs):
            spec = specs[0]
            return {spec.name: view(spec.name, BY_NAME[spec.dtype], spec.shape, body.data)}
    ways = "JSON" + (" or the input's raw bytes (application/octet-stream)" if _is_raw(specs) else "")
    what = "a body of several parts" if body.parts else f"a body of type {body.content_type!r}"
    raise InvalidInput(
        f"the model has no preprocess for {what}; {takes(specs)}" + f", as {ways}" * bool(specs)
    )


def _is_raw(specs: Specs) -> bool:
    return len(specs) == 1 and specs[0].dtype != BYTES.name and -1 not in specs[0].shape


def _from_json(body: Body, specs: Specs) -> Tensors:
    try:
        value = json.loads(bytes(body.data))
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"the body is not JSON: {error}; {takes(specs)}") from None
    if not isinstance(value, dict):
        if len(specs) > 1:
            raise InvalidInput(f"the body must be a JSON object with the inputs' names; {takes(specs)}")
        value = {specs[0].name: value}
    declared = {spec.name: spec for spec in specs}
    for name in value:
        if name not in declared:
            raise InvalidInput(f"there is no input {name!r}; {takes(specs)}")
    return {name: from_list(value[name], declared[name]) for name in value}


def from_list(value: Any, spec: TensorSpec) -> Array:
    """A nested list (or a bare number or string) as an array of the declared dtype.

    Raises: InvalidInput for a ragged list, and for values that the dtype does not hold exactly
    (floats may be rounded, but 1.5 is no integer and 300 no uint8).
    """
    try:
        if spec.dtype == BYTES.name:
            return _strings(value)
        if spec.dtype == "uint64":
            return _large(value)
        return _numbers(np.asarray(value), BY_NAME[spec.dtype].numpy)
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        wanted = f"{spec.dtype} {list(spec.shape)}"
        raise InvalidInput(f"input {spec.name!r} must be a nested list for {wanted}: {error}") from None


def _numbers(found: Array, dtype: np.dtype[Any]) -> Array:
    # bfloat16 is of kind "V" to numpy
    kinds = {"b": "b", "i": "bui", "u": "bui"}.get(dtype.kind, "buif")
    if found.size == 0:
        return np.empty(found.shape, dtype)
    if found.dtype.kind not in kinds:
        raise ValueError(f"its values do not fit in {dtype.name}")
    with np.errstate(over="ignore"):  # a float too large is infinite
        array = found.astype(dtype)
    if dtype.kind in "iu" and not np.array_equal(array, found):
        raise ValueError(f"its values do not fit in {dtype.name}")
    return array


def _large(value: Any) -> Array:
    # numpy makes floats of a list in which only some integers need 64 bits without a sign
    array = np.array(value, dtype=object)
    if not all(isinstance(element, int) for element in array.reshape(-1)):
        raise ValueError("its values do not fit in uint64")
    return array.astype(np.uint64)


def _strings(value: Any) -> Array:
    array = np.array(value, dtype=object)
    flat = array.reshape(-1)
    for i, element in enumerate(flat):
        if not isinstance(element, str):
            raise ValueError(f"it holds a {type(element).__name__}, not only strings")
        flat[i] = element.encode()
    return flat.reshape(array.shape)


def example(spec: TensorSpec) -> Array | None:
    """One example to warm up with: ones for floats, empty strings, zeros for the rest; None where the
    spec has no shape for it. (Zeros are valid indices; a division by a float one is no error.)"""
    shape = spec.example_shape
    if shape is None:
        return None
    if spec.dtype == BYTES.name:
        return np.full(shape, b"", dtype=object)
    dtype = BY_NAME[spec.dtype].numpy
    return np.zeros(shape, dtype) if dtype.kind in "biu" else np.ones(shape, dtype)
