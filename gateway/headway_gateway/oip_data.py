"""The elements of one tensor, as the Open Inference Protocol writes them in JSON and in bytes.

JSON data is flattened, the types of its elements are checked, and numpy converts it in one call.

Knows: which Python values each datatype takes. Must not know: the objects around them, HTTP.
"""

from __future__ import annotations

import math
from itertools import chain
from typing import Any

import numpy as np

from headway.errors import InvalidInput
from headway.tensors import BYTES, Array, DType, dtype_of, pack_strings

_NOT_IN_JSON = ("FP16", "BF16")
_ELEMENTS: dict[str, tuple[set[type], str]] = {
    "b": ({bool}, "true and false"),
    "i": ({int}, "integers"),
    "u": ({int}, "integers"),
    "f": ({int, float}, "numbers"),
    "O": ({str}, "strings"),
}


def from_json(where: str, dtype: DType, shape: tuple[int, ...], data: Any) -> bytes:
    """The bytes of an input that came as a list, nested or flat.

    Raises: InvalidInput, its text beginning with `where`.
    """
    if dtype.oip in _NOT_IN_JSON:
        raise InvalidInput(f"{where}: {dtype.oip} cannot be sent as JSON, only as binary data")
    flat = _flat(where, data)
    if len(flat) != math.prod(shape):
        raise InvalidInput(
            f"{where}: shape {list(shape)} takes {math.prod(shape)} elements, data has {len(flat)}"
        )
    allowed, said = _ELEMENTS[dtype.numpy.kind]
    wrong = set(map(type, flat)) - allowed
    if wrong:
        raise InvalidInput(f"{where}: data of {dtype.oip} holds {said}, not {wrong.pop().__name__}")
    if dtype.numpy.kind in "iu" and flat:
        _check_range(where, dtype, min(flat), max(flat))
    try:
        with np.errstate(over="ignore"):  # beyond FP32 is infinity, as in a C cast
            array = np.array(flat, dtype.numpy)
        return pack_strings(array) if dtype is BYTES else array.tobytes()
    except (ValueError, OverflowError) as error:  # an integer beyond any float, half a surrogate pair
        raise InvalidInput(f"{where}: {error}") from None


def _flat(where: str, data: Any) -> list[Any]:
    if not isinstance(data, list):
        raise InvalidInput(f"{where}: data must be a list")
    while data and type(data[0]) is list and set(map(type, data)) == {list}:
        data = list(chain.from_iterable(data))
    return data


def _check_range(where: str, dtype: DType, least: int, most: int) -> None:
    limits = np.iinfo(dtype.numpy)
    if least < limits.min or most > limits.max:
        beyond = least if least < limits.min else most
        raise InvalidInput(f"{where}: {beyond} does not fit into {dtype.oip}")


def to_json(name: str, array: Array) -> list[Any]:
    """An output as a flat list. Raises: InvalidInput for what JSON cannot hold."""
    dtype = dtype_of(array)
    if dtype.oip in _NOT_IN_JSON:
        raise InvalidInput(f"output {name!r}: {dtype.oip} cannot be sent as JSON, ask for binary_data")
    flat: list[Any] = array.reshape(-1).tolist()
    if dtype is not BYTES:
        return flat
    try:
        return [element.decode() for element in flat]
    except UnicodeDecodeError as error:
        raise InvalidInput(f"output {name!r} is not UTF-8, ask for binary_data: {error}") from None
