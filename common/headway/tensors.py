"""Tensors as bytes, and back as numpy views.

Knows: the table of dtypes, the layout of a packed set of tensors, shape and size checks.
Must not know: torch, the wire's messages, shared memory. Over 300 lines: both directions belong together.

A packed set of named tensors is one byte string, opaque to the broker:

    4 bytes   length H of the header, little-endian unsigned
    H bytes   msgpack: [[name, dtype code, shape, bytes of data], ...]
    padding   zeros, up to the next multiple of 16
    data      each tensor row-major and little-endian, each padded to a multiple of 16

`unpack` makes views: they share memory with the bytes they came from, are read-only when those are,
and keep them alive. A BYTES tensor (a numpy object array of `bytes`) has for each element a 4-byte
little-endian length and that many bytes, as in the Open Inference Protocol; unpacking it copies.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import ml_dtypes
import msgpack
import numpy as np
import numpy.typing as npt

from headway.errors import InvalidInput

Array = npt.NDArray[Any]
Tensors = dict[str, Array]
Buffer = bytes | bytearray | memoryview

TENSORS_MAX = 256
RANK_MAX = 16
NAME_BYTES_MAX = 256
HEADER_BYTES_MAX = 1 << 16
CACHED_HEADER_BYTES_MAX = 512  # so that nobody can fill memory with headers
_ALIGN = 16
_LENGTH = struct.Struct("<I")


@dataclass(frozen=True)
class DType:
    """One row of the table: the code on the wire, the name in `model.toml`, the name in the Open
    Inference Protocol, and the numpy dtype (`object` for BYTES, whose elements have no fixed size)."""

    code: int
    name: str
    oip: str
    numpy: np.dtype[Any]


DTYPES = (
    DType(1, "bool", "BOOL", np.dtype("bool")),
    DType(2, "uint8", "UINT8", np.dtype("<u1")),
    DType(3, "uint16", "UINT16", np.dtype("<u2")),
    DType(4, "uint32", "UINT32", np.dtype("<u4")),
    DType(5, "uint64", "UINT64", np.dtype("<u8")),
    DType(6, "int8", "INT8", np.dtype("<i1")),
    DType(7, "int16", "INT16", np.dtype("<i2")),
    DType(8, "int32", "INT32", np.dtype("<i4")),
    DType(9, "int64", "INT64", np.dtype("<i8")),
    DType(10, "float16", "FP16", np.dtype("<f2")),
    DType(11, "float32", "FP32", np.dtype("<f4")),
    DType(12, "float64", "FP64", np.dtype("<f8")),
    DType(13, "bytes", "BYTES", np.dtype("object")),
    DType(14, "bfloat16", "BF16", np.dtype(ml_dtypes.bfloat16)),
)
Part = tuple[str, DType, tuple[int, ...], Buffer]
_BY_CODE = {d.code: d for d in DTYPES}
_BY_NUMPY = {d.numpy: d for d in DTYPES}
BY_NAME = {d.name: d for d in DTYPES}
BY_OIP = {d.oip: d for d in DTYPES}
BYTES = BY_NAME["bytes"]


def dtype_of(array: Array) -> DType:
    """The table's row for an array. Raises: InvalidInput for a dtype that does not travel."""
    dtype = _BY_NUMPY.get(array.dtype)
    if dtype is None and array.dtype.kind in "SU":
        dtype = BYTES
    if dtype is None and array.dtype.byteorder == ">":
        dtype = _BY_NUMPY.get(array.dtype.newbyteorder("<"))
    if dtype is None:
        raise InvalidInput(f"dtype {array.dtype} does not travel; use one of {', '.join(BY_NAME)}")
    return dtype


def pack(tensors: Mapping[str, Array]) -> bytes:
    """One byte string for a set of named arrays; each is copied once.

    Raises: InvalidInput naming the tensor whose dtype, rank or name does not travel.
    """
    return b"".join(pieces_of(tensors))


def pieces_of(tensors: Mapping[str, Array]) -> list[Buffer]:
    """What `pack` joins: views where the arrays allow it. Raises: as `pack`."""
    parts: list[Part] = []
    for name, array in tensors.items():
        try:
            dtype = dtype_of(array)
            parts.append((name, dtype, array.shape, _data_of(array, dtype)))
        except (InvalidInput, UnicodeEncodeError) as error:
            raise InvalidInput(f"tensor {name!r}: {error}") from None
    return raw_pieces(parts)


def pack_raw(parts: list[Part]) -> bytes:
    """`pack` for data that is bytes already, laid out as the module says; sizes are not checked here.

    Raises: InvalidInput for a name or a rank that does not travel, or too many tensors.
    """
    return b"".join(raw_pieces(parts))


def raw_pieces(parts: list[Part]) -> list[Buffer]:
    """What `pack_raw` joins. Raises: as it."""
    pieces: list[Buffer] = [
        _head(tuple([(name, d.code, shape, len(data)) for name, d, shape, data in parts]))
    ]
    for part in parts:
        data = part[3]
        pieces.append(data)
        if len(data) % _ALIGN:
            pieces.append(bytes(-len(data) % _ALIGN))
    return pieces


def size_of(pieces: list[Buffer]) -> int:
    """How many bytes they take together."""
    return sum(map(len, pieces))


def write_pieces(pieces: list[Buffer], room: memoryview) -> None:
    """Write them one after the other; `room` is at least as large as they are."""
    offset = 0
    for piece in pieces:
        room[offset : offset + len(piece)] = piece
        offset += len(piece)


def frame_of(name: str, dtype: DType, shape: tuple[int, ...], length: int) -> tuple[bytes, bytes]:
    """What packed tensors have before and after the `length` bytes of their one tensor. Raises: as `pack`."""
    return _head(((name, dtype.code, shape, length),)), bytes(-length % _ALIGN)


Entry = tuple[str, int, tuple[int, ...], int]


@lru_cache(256)  # PERF: callers send the same names and shapes again and again; 2.3 us to pack becomes 1.4
def _head(entries: tuple[Entry, ...]) -> bytes:
    """Length, header and padding: everything before the data."""
    header = _packed_header(entries)
    return _LENGTH.pack(len(header)) + header + bytes(-(4 + len(header)) % _ALIGN)


def _packed_header(entries: tuple[Entry, ...]) -> bytes:
    if len(entries) > TENSORS_MAX:
        raise InvalidInput(f"{len(entries)} tensors are over the limit of {TENSORS_MAX}")
    for name, _, shape, _ in entries:
        if not isinstance(name, str) or len(name) > NAME_BYTES_MAX:
            raise InvalidInput(f"a tensor's name is a string of at most {NAME_BYTES_MAX}, not {name!r:.300}")
        if len(shape) > RANK_MAX:
            raise InvalidInput(f"tensor {name!r}: {len(shape)} dimensions are over the limit of {RANK_MAX}")
    try:
        header: bytes = msgpack.packb(entries)
    except UnicodeEncodeError as error:
        raise InvalidInput(f"a tensor's name cannot be written as UTF-8: {error}") from None
    if len(header) > HEADER_BYTES_MAX:
        raise InvalidInput(f"names and shapes take {len(header)} bytes, over the limit of {HEADER_BYTES_MAX}")
    return header


def _data_of(array: Array, dtype: DType) -> Buffer:
    if dtype is BYTES:
        return pack_strings(array)
    if array.dtype.byteorder == ">":
        array = array.astype(dtype.numpy)
    if array.size < 4096:
        return array.tobytes()
    # A view as plain bytes: memoryview knows no bfloat16.
    flat: Any = np.ascontiguousarray(array).view(np.uint8).reshape(-1)
    return memoryview(flat)


def pack_strings(array: Array) -> bytes:
    """The elements of a BYTES tensor in row-major order, each with its length before it.

    Raises: InvalidInput for an element that is no string; UnicodeEncodeError for a lone surrogate.
    """
    pieces: list[bytes] = []
    for element in array.reshape(-1).tolist():
        if isinstance(element, str):
            element = element.encode()
        if not isinstance(element, bytes):
            raise InvalidInput(f"a BYTES tensor holds bytes or str, not {type(element).__name__}")
        pieces += (_LENGTH.pack(len(element)), element)
    return b"".join(pieces)


def unpack(packed: Buffer) -> Tensors:
    """The arrays of a packed set, in their order, as views on `packed` (BYTES tensors are copied).

    Raises: InvalidInput for anything that `pack` would not have written.
    """
    tensors: Tensors = {}
    for name, dtype, shape, count, start, length in fields_of(packed):
        if count and dtype is not BYTES:
            tensors[name] = np.frombuffer(packed, dtype.numpy, count, start).reshape(shape)
        else:
            tensors[name] = view(name, dtype, shape, memoryview(packed)[start : start + length])
    return tensors


def unpack_raw(packed: Buffer) -> list[Part]:
    """As `unpack`, the data of each tensor as bytes, a view on `packed`: for those who pass it on. What the
    elements of a BYTES tensor are is not looked at. Raises: InvalidInput."""
    whole = memoryview(packed)
    return [
        (name, dtype, shape, whole[start : start + length])
        for name, dtype, shape, _, start, length in fields_of(packed)
    ]


Field = tuple[str, DType, tuple[int, ...], int, int, int]


def fields_of(packed: Buffer) -> list[Field]:
    """What lies where, all of it within `packed`. Raises: InvalidInput."""
    header = _header(packed)
    fields, end = (_layout if len(header) <= CACHED_HEADER_BYTES_MAX else _layout.__wrapped__)(header)
    size = len(packed)
    if size > end:
        raise InvalidInput(f"{size - end} bytes left over after the last tensor")
    for name, _, _, _, start, length in fields:
        if start + length > size:
            raise InvalidInput(f"tensor {name!r}: {length} bytes announced, {max(size - start, 0)} there")
    return fields


@lru_cache(256)  # PERF: the same headers come again and again; 3.0 us to unpack becomes 1.8
def _layout(header: bytes) -> tuple[list[Field], int]:
    """Name, dtype, shape, count, start and length of each tensor, and where the last one ends, padded."""
    fields: list[Field] = []
    offset = 4 + len(header) + (-(4 + len(header)) % _ALIGN)
    for name, code, shape, length in _entries(header):
        dtype = _BY_CODE.get(code)
        if dtype is None:
            raise InvalidInput(f"tensor {name!r}: there is no dtype with code {code}")
        count = checked_count(name, dtype, shape, length)
        fields.append((name, dtype, tuple(shape), count, offset, length))
        offset += length + (-length % _ALIGN)
    if len({field[0] for field in fields}) != len(fields):
        raise InvalidInput("two tensors have one name")
    return fields, offset


def view(name: str, dtype: DType, shape: list[int] | tuple[int, ...], data: Buffer) -> Array:
    """An array of `shape` over `data`, which must have just the right size.

    Raises: InvalidInput with the expected and the actual size.
    """
    count = checked_count(name, dtype, shape, len(data))
    if dtype is BYTES:
        return _strings(name, count, data).reshape(shape)
    return np.frombuffer(data, dtype.numpy, count).reshape(shape)


def checked_count(name: str, dtype: DType, shape: list[int] | tuple[int, ...], length: int) -> int:
    """How many elements there are, if so many of them take `length` bytes (of BYTES, nobody knows)."""
    count = math.prod(shape)
    if count == 0 and math.prod(d for d in shape if d) >= 1 << 48:  # numpy cannot, though it is empty
        raise InvalidInput(f"tensor {name!r}: shape {list(shape)} is too large")
    expected = count * dtype.numpy.itemsize
    if dtype is not BYTES and expected != length:
        raise InvalidInput(
            f"tensor {name!r}: shape {list(shape)} of {dtype.name} takes {expected} bytes, got {length}"
        )
    return count


def _header(packed: Buffer) -> bytes:
    if len(packed) < 4:
        raise InvalidInput(f"packed tensors start with 4 bytes of length, got {len(packed)} bytes")
    (length,) = _LENGTH.unpack_from(packed)
    if length > HEADER_BYTES_MAX or 4 + length > len(packed):
        raise InvalidInput(
            f"packed tensors announce a header of {length} bytes and have {len(packed)} in all"
        )
    return bytes(packed[4 : 4 + length])


def _entries(header: bytes) -> list[tuple[str, int, list[int], int]]:
    try:
        entries = msgpack.unpackb(header, max_array_len=TENSORS_MAX)
    except (ValueError, msgpack.UnpackException) as error:
        raise InvalidInput(f"the header of the packed tensors is not msgpack: {error}") from None
    if not isinstance(entries, list) or len(entries) > TENSORS_MAX or not all(map(_is_entry, entries)):
        raise InvalidInput("the header of the packed tensors is not a list of [name, dtype, shape, length]")
    return entries


def _is_entry(entry: object) -> bool:
    if not isinstance(entry, list) or len(entry) != 4:
        return False
    name, code, shape, length = entry
    return (
        isinstance(name, str)
        and len(name) <= NAME_BYTES_MAX
        and type(code) is int
        and isinstance(shape, list)
        and len(shape) <= RANK_MAX
        and all(type(d) is int and 0 <= d < 1 << 40 for d in shape)
        and type(length) is int
        and length >= 0
    )


def _strings(name: str, count: int, data: Buffer) -> Array:
    if count * 4 > len(data):  # before anything is allocated for a shape that lies
        raise InvalidInput(f"tensor {name!r}: {count} strings do not fit in {len(data)} bytes")
    out = np.empty(count, dtype=object)
    offset = 0
    for i in range(count):
        if offset + 4 > len(data):
            raise InvalidInput(f"tensor {name!r}: string {i} of {count} has no length")
        (length,) = _LENGTH.unpack_from(data, offset)
        offset += 4
        if offset + length > len(data):
            raise InvalidInput(f"tensor {name!r}: string {i} of {length} bytes goes past the end")
        out[i] = bytes(data[offset : offset + length])
        offset += length
    if offset != len(data):
        raise InvalidInput(f"tensor {name!r}: {len(data) - offset} bytes left over after {count} strings")
    return out
