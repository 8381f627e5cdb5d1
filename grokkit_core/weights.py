"""The layout of a weights file, checked without torch: a safetensors file with fewer liberties."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from grokkit_core.errors import BadWeights, TooLarge
from grokkit_core.text import printable

MAX_BYTES = 1 << 30
MAX_HEADER = 1 << 20
MAX_TENSORS = 4_096
MAX_DIMENSIONS = 8
ITEM_BYTES = {
    "F64": 8,
    "F32": 4,
    "F16": 2,
    "BF16": 2,
    "I64": 8,
    "I32": 4,
    "I16": 2,
    "I8": 1,
    "U8": 1,
    "BOOL": 1,
}

_TENSOR_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,126}[A-Za-z0-9_])?")
_METADATA = "__metadata__"


@dataclass(frozen=True)
class TensorInfo:
    """One tensor of the file: its dtype, its shape and where its bytes lie in the data part."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def is_tensor_name(name: str) -> bool:
    """Whether the format allows this tensor name."""
    return _TENSOR_NAME.fullmatch(name) is not None and ".." not in name and name != _METADATA


def read_header(data: bytes) -> Mapping[str, TensorInfo]:
    """The tensors that a weights file declares, in file order; raises `BadWeights` or `TooLarge`, nothing else.

    Stricter than the safetensors library: printable ASCII, no duplicate or unknown key, no hole, no zero-size tensor,
    listed dtypes and names only, metadata exactly `{"format": "pt"}`.
    """
    header, start = _header_bytes(data)
    entries = _parse(header)
    if entries.pop(_METADATA, None) != {"format": "pt"}:
        raise BadWeights(
            "the metadata of the weights file is missing or different", expected='exactly {"format": "pt"}'
        )
    if not 1 <= len(entries) <= MAX_TENSORS:
        kind = TooLarge if entries else BadWeights
        raise kind(f"the weights file holds {len(entries)} tensors", expected=f"1 to {MAX_TENSORS}")
    tensors = {name: _tensor(name, entry) for name, entry in entries.items()}
    ordered = dict(sorted(tensors.items(), key=lambda item: item[1].begin))
    _check_coverage(ordered, len(data) - start)
    _check_booleans(ordered, data, start)
    return ordered


def _header_bytes(data: bytes) -> tuple[bytes, int]:
    if len(data) < 10:
        raise BadWeights(f"the weights file has {len(data)} bytes", expected="a safetensors file")
    length = int.from_bytes(data[:8], "little")
    if length > MAX_HEADER:
        raise TooLarge(f"the header of the weights file claims {length} bytes", expected=f"at most {MAX_HEADER}")
    if not 2 <= length <= len(data) - 8 or length % 8:
        raise BadWeights(
            f"the header of the weights file claims {length} bytes",
            expected="a multiple of 8 within the file",
        )
    header = data[8 : 8 + length]
    if min(header) < 0x20 or max(header) > 0x7E or b"\\" in header:
        raise BadWeights("the header of the weights file holds a byte outside printable ASCII, or a backslash")
    if header[:1] != b"{" or not header.rstrip(b" ").endswith(b"}"):
        raise BadWeights("the header of the weights file is not one JSON object")
    return header, 8 + length


def _parse(header: bytes) -> dict[str, Any]:
    try:
        value = json.loads(
            header.decode("ascii"),
            object_pairs_hook=_unique,
            parse_float=_refuse,
            parse_constant=_refuse,
            parse_int=_integer,
        )
    except BadWeights:
        raise
    except (ValueError, RecursionError) as error:
        raise BadWeights(f"the header of the weights file is not strict JSON: {printable(error)}") from None
    if not isinstance(value, dict):
        raise BadWeights("the header of the weights file is not one JSON object")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise BadWeights("the header of the weights file names a key twice")
    return result


def _refuse(token: str) -> Any:
    raise BadWeights(f"the header of the weights file holds {printable(token, 40)}", expected="integers only")


def _integer(token: str) -> int:
    if len(token) > 16 or token == "-0":
        raise BadWeights(f"the header of the weights file holds the integer {printable(token, 40)}")
    return int(token)


def _tensor(name: str, entry: Any) -> TensorInfo:
    shown = f"tensor '{printable(name, 60)}'"
    if not is_tensor_name(name):
        raise BadWeights(
            f"{shown} has a name that the format does not allow", expected="letters, digits, '_', '.', '-'"
        )
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise BadWeights(f"{shown} has other fields than dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in ITEM_BYTES:
        raise BadWeights(f"{shown} has dtype {printable(repr(dtype), 40)}", expected="one of " + ", ".join(ITEM_BYTES))
    if not isinstance(shape, list) or not all(type(size) is int and 1 <= size < 2**31 for size in shape):
        raise BadWeights(f"{shown} has shape {printable(repr(shape), 60)}", expected="integers from 1 to 2^31 - 1")
    if len(shape) > MAX_DIMENSIONS:
        raise TooLarge(f"{shown} has {len(shape)} dimensions", expected=f"at most {MAX_DIMENSIONS}")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(type(part) is int for part in offsets):
        raise BadWeights(f"{shown} has data_offsets {printable(repr(offsets), 60)}", expected="two integers")
    begin, end = offsets
    if end - begin != math.prod(shape) * ITEM_BYTES[dtype]:
        raise BadWeights(f"{shown} spans {end - begin} bytes", expected=f"{math.prod(shape) * ITEM_BYTES[dtype]}")
    return TensorInfo(dtype, tuple(shape), begin, end)


def _check_coverage(ordered: Mapping[str, TensorInfo], size: int) -> None:
    position = 0
    for name, info in ordered.items():
        if info.begin != position:
            raise BadWeights(
                f"tensor '{name}' starts at byte {info.begin}",
                expected=f"{position}, without hole or overlap",
            )
        position = info.end
    if position != size:
        raise BadWeights(f"the tensors cover {position} of {size} data bytes", expected="all of them")


def _check_booleans(ordered: Mapping[str, TensorInfo], data: bytes, start: int) -> None:
    for name, info in ordered.items():
        if info.dtype == "BOOL" and max(data[start + info.begin : start + info.end]) > 1:
            raise BadWeights(f"tensor '{name}' holds a boolean byte other than 0 and 1")
