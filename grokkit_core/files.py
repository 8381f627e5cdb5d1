"""Arrays in files: `.npy .npz .csv .json .safetensors`, read with caps and without pickle, written whole or not at all."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import lzma
import math
import os
import secrets
import struct
import sys
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor

from grokkit_core.dtypes import real_view
from grokkit_core.errors import Incompatible, NotFound, StoreError, TooLarge, UsageError
from grokkit_core.names import expanded
from grokkit_core.tensors import Signature, TensorSpec
from grokkit_core.text import printable

MAX_BYTES = 1 << 30
"""Cap on an input file, and on what an `.npz` may inflate to."""

EXACT_INTEGERS = 2**53
"""Below this every integer is a float64."""

STDIN = "-"
OUTPUTS = "outputs"
"""Name of the only array in a file of outputs."""

SUFFIXES = (".npy", ".npz", ".csv", ".json", ".safetensors")
Arrays = dict[str, Tensor]


@dataclass(frozen=True)
class ArrayFile:
    """The arrays of one input file; numbers without a dtype of their own get that of the input which they stand for.

    `names` is None for a file with one array that has no name.
    """

    names: tuple[str, ...] | None
    _read: Callable[[str, TensorSpec | None, torch.dtype], Tensor]

    def array(self, name: str, spec: TensorSpec | None, dtype: torch.dtype) -> Tensor:
        """The array of that name as an input `spec`, in `dtype` if that is listed; raises `Incompatible`."""
        return self._read(name, spec, dtype)

    def arrays(self, signature: Signature, dtype: torch.dtype) -> Arrays:
        """All arrays by name; one without a name is the signature's first input."""
        if self.names is None:
            spec = signature.inputs[0]
            return {spec.name: self.array("", spec, dtype)}
        specs = {spec.name: spec for spec in signature.inputs}
        return {name: self.array(name, specs.get(name), dtype) for name in self.names}


def as_file(given: Tensor | Mapping[str, Tensor] | str | Path) -> ArrayFile:
    """Tensors as if they had been read, or the file at a path."""
    if isinstance(given, Tensor):
        return _one_array(given)
    return open_arrays(given) if isinstance(given, (str, Path)) else _arrays(dict(given), views=False)


def read_arrays(path: str | Path, signature: Signature, dtype: torch.dtype) -> Arrays:
    """The tensors of an input file by name; a file with one unnamed array gives the signature's first input.

    `.npy`, `.npz` and `.safetensors` keep their dtypes. `.csv` (one row a sample, flattened) and `.json` numbers take
    the dtype of the input they stand for, `dtype` if that is listed. Raises `NotFound`, `TooLarge` or `Incompatible`.
    """
    return open_arrays(path).arrays(signature, dtype)


def open_arrays(path: str | Path) -> ArrayFile:
    """An input file, read whole; `-` is JSON on standard input. Raises `NotFound`, `TooLarge`, `UsageError` or `Incompatible`."""
    if str(path) == STDIN:
        if sys.stdin is None:
            raise NotFound("standard input is closed", expected="JSON on standard input", hint="or --input FILE")
        return _json_file(sys.stdin.buffer.read(MAX_BYTES + 1), "standard input")
    place = expanded(path)
    suffix = place.suffix.lower()
    readers: Mapping[str, Callable[[bytes, str], ArrayFile]] = {
        ".npy": lambda data, shown: _one_array(_npy(data, shown)),
        ".npz": lambda data, shown: _arrays(_npz(data, shown), views=False),
        ".csv": lambda data, shown: ArrayFile(None, partial(_from_csv, data, shown)),
        ".json": _json_file,
        ".safetensors": lambda data, shown: _arrays(_safetensors(data, shown), views=True),
    }
    if suffix not in readers:
        raise UsageError(f"input file {printable(place, 160)}", expected="a file that ends with " + ", ".join(SUFFIXES))
    return readers[suffix](_read(place), printable(place, 160))


def _one_array(tensor: Tensor) -> ArrayFile:
    return ArrayFile(None, lambda name, spec, dtype: tensor)


def _arrays(tensors: Arrays, *, views: bool) -> ArrayFile:
    """Tensors by name; with `views` those of complex inputs may be real, with a last axis of two."""

    def read(name: str, spec: TensorSpec | None, dtype: torch.dtype) -> Tensor:
        tensor = tensors[name]
        pairs = views and spec is not None and spec.dtypes[0].startswith("complex") and tensor.shape[-1:] == (2,)
        return torch.view_as_complex(tensor) if pairs and not tensor.is_complex() else tensor

    return ArrayFile(tuple(tensors), read)


def _read(place: Path) -> bytes:
    try:
        with place.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise NotFound(f"there is no input file {printable(place, 160)}") from None
    except OSError as error:
        raise StoreError.from_os(error, f"reading {printable(place, 160)}", keeping=False) from None
    if len(data) > MAX_BYTES:
        raise TooLarge(f"{printable(place, 160)} is too large", expected=f"at most {MAX_BYTES} bytes")
    return data


def _npy(data: bytes, shown: str) -> Tensor:
    try:
        with warnings.catch_warnings(action="ignore"):
            array = np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
        return _tensor(array)
    except (
        ValueError,
        EOFError,
        TypeError,
        OSError,
        MemoryError,
        OverflowError,
        SyntaxError,
        tokenize.TokenError,
    ) as error:
        raise Incompatible(f"{shown} is not a numeric .npy array: {printable(error, 120)}") from None


def _npz(data: bytes, shown: str) -> Arrays:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            size = sum(item.file_size for item in archive.infolist())
            if size > MAX_BYTES:
                raise TooLarge(f"{shown} inflates to {size} bytes", expected=f"at most {MAX_BYTES}")
            names = archive.namelist()
            return {
                name.removesuffix(".npy"): _npy(archive.read(name), f"{printable(name, 60)} of {shown}")
                for name in names
            }
    except (
        zipfile.BadZipFile,
        zipfile.LargeZipFile,
        NotImplementedError,
        RuntimeError,
        EOFError,
        OSError,
        ValueError,
        zlib.error,
        lzma.LZMAError,
        struct.error,
    ) as error:
        raise Incompatible(f"{shown} is not an .npz archive: {printable(error, 120)}") from None


def _safetensors(data: bytes, shown: str) -> Arrays:
    try:
        return safetensors.torch.load(data)
    except (
        safetensors.SafetensorError,
        KeyError,
        TypeError,
        ValueError,
        OverflowError,
        RuntimeError,
    ) as error:
        raise Incompatible(f"{shown} is not a safetensors file: {printable(error, 120)}") from None


def _from_csv(data: bytes, shown: str, name: str, spec: TensorSpec | None, dtype: torch.dtype) -> Tensor:
    """One row a sample, its numbers flattened in row-major order; a first row of names is skipped.

    Where the spec's unit names its columns ("theta rad, omega rad/s"), the same names in another order are refused.
    """
    try:
        rows = [row for row in csv.reader(io.StringIO(data.decode("utf-8-sig"))) if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise Incompatible(f"{shown} is not a CSV file: {printable(error, 120)}") from None
    assert spec is not None  # a file without names stands for an input
    sizes = [axis for axis in spec.axes[1:] if isinstance(axis, int)]
    if len(sizes) != len(spec.axes) - 1:
        raise Incompatible(
            f"input '{spec.name}' {spec.shape} has no fixed shape", hint="use .npy, .npz, .json or .safetensors"
        )
    width = math.prod(sizes)
    if rows and len(rows[0]) == width and not any(_numeric([cell]) for cell in rows[0]):
        _check_order(spec, [cell.strip() for cell in rows[0]], shown)
        rows = rows[1:]
    for number, row in enumerate(rows, 1):
        if len(row) != width or not _numeric(row):
            what = f"{len(row)} columns" if len(row) != width else "a cell that is not a number"
            raise Incompatible(
                f"row {number} of {shown} has {what}", expected=f"{width} numbers, {spec.shape} flattened"
            )
    values = torch.tensor([[float(cell) for cell in row] for row in rows], dtype=torch.float64)
    return _exactly(values.reshape(len(rows), *sizes), spec, _dtype_for(spec, dtype), shown)


def _check_order(spec: TensorSpec, header: list[str], shown: str) -> None:
    """Raise `Incompatible` for a header that has the columns of a spec in another order."""
    columns = [part.split()[0] for part in spec.unit.split(",") if len(part.split()) == 2]
    if sorted(header) == sorted(columns) and header != columns:
        raise Incompatible(
            f"columns of {shown} are {printable(', '.join(header), 120)}",
            expected=", ".join(columns),
            hint="reorder them",
        )


def _exactly(values: Tensor, spec: TensorSpec, dtype: torch.dtype, what: str) -> Tensor:
    """Numbers as `dtype`; raises `Incompatible` where a whole dtype cannot hold them, or rounding moves one into a finite set."""
    cast = values.to(dtype)
    kind = str(dtype).removeprefix("torch.")
    whole = not (dtype.is_floating_point or dtype.is_complex)
    if whole and not bool(((cast.double() == values) & (values.abs() < EXACT_INTEGERS)).all()):
        raise Incompatible(f"{what} holds numbers that {kind} cannot", hint="use .npy")
    if spec.domain.kind == "values" and not whole:
        listed = torch.tensor(spec.domain.values, dtype=torch.float64)
        if bool((torch.isin(cast, listed.to(dtype)) & ~torch.isin(values, listed)).any()):
            raise Incompatible(f"{what} holds numbers that {kind} rounds into the domain", expected=str(spec.domain))
    return cast


def _numeric(row: list[str]) -> bool:
    try:
        return all(math.isfinite(float(cell)) or True for cell in row)
    except ValueError:
        return False


def _json_file(data: bytes, shown: str) -> ArrayFile:
    """Nested lists for one input, or an object of nested lists by input (and context) name."""
    if len(data) > MAX_BYTES:
        raise TooLarge(f"{shown} is too large", expected=f"at most {MAX_BYTES} bytes")
    try:
        value = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise Incompatible(f"{shown} is not JSON: {printable(error, 120)}") from None
    named = value if isinstance(value, dict) else None

    def read(name: str, spec: TensorSpec | None, dtype: torch.dtype) -> Tensor:
        called = name or (spec.name if spec is not None else "")
        return _json_tensor(value if named is None else named[name], called, spec, dtype, shown)

    return ArrayFile(None if named is None else tuple(named), read)


def _json_tensor(item: Any, name: str, spec: TensorSpec | None, dtype: torch.dtype, shown: str) -> Tensor:
    try:
        values = torch.tensor(item, dtype=torch.float64)
    except (ValueError, TypeError, RuntimeError, OverflowError) as error:
        raise Incompatible(
            f"'{printable(name, 60)}' of {shown} is not an array of numbers: {printable(error, 120)}"
        ) from None
    if spec is None:
        return values
    wanted = _dtype_for(spec, dtype)
    if wanted.is_complex:
        if values.shape[-1:] != (2,):
            raise Incompatible(f"'{name}' of {shown} is complex", expected="numbers as [real, imaginary]")
        return torch.view_as_complex(values).to(wanted)
    return _exactly(values, spec, wanted, f"'{printable(name, 60)}' of {shown}")


def _dtype_for(spec: TensorSpec, dtype: torch.dtype) -> torch.dtype:
    name = str(dtype).removeprefix("torch.")
    found = getattr(torch, name if name in spec.dtypes else spec.dtypes[0])
    assert isinstance(found, torch.dtype)
    return found


def _tensor(array: NDArray[Any]) -> Tensor:
    native = array.astype(array.dtype.newbyteorder("="), copy=False)
    return torch.from_numpy(np.ascontiguousarray(native).reshape(array.shape))


class ArrayWriter:
    """Writes outputs to a file as they come; the file appears, complete, when the block ends without an error.

    With `steps` the array has a leading step axis, and `.npy` and `.csv` are streamed rather than collected. Several
    arrays, by `names`, need a format that keeps names.
    """

    def __init__(self, path: Path, steps: int | None, names: Sequence[str] = (OUTPUTS,)) -> None:
        self.path, self.steps, self.names = expanded(path), steps, tuple(names)
        self.suffix = self.path.suffix.lower()
        if self.suffix not in SUFFIXES:
            raise UsageError(
                f"output file {printable(path, 160)}", expected="a file that ends with " + ", ".join(SUFFIXES)
            )
        if len(self.names) > 1 and self.suffix in (".npy", ".csv"):
            raise UsageError(
                f"{len(self.names)} arrays to {printable(path, 160)}",
                expected="a file that ends with .npz, .json, .safetensors",
            )
        self._started = False
        self._kept: dict[str, list[Tensor]] = {}
        self._staging = self.path.with_name(f".{self.path.name}.{secrets.token_hex(4)}.part")
        self._file: BinaryIO | None = None

    def __enter__(self) -> ArrayWriter:
        try:
            self._file = self._staging.open("xb")
        except OSError as error:
            raise StoreError.from_os(error, f"writing {printable(self.path, 160)}", keeping=False) from None
        return self

    def add(self, outputs: Tensor, name: str = OUTPUTS) -> None:
        """Take the outputs "batch *out" of one step (or the only ones)."""
        assert self._file is not None
        try:
            if self.suffix == ".npy":
                self._add_npy(outputs)
            elif self.suffix == ".csv":
                np.savetxt(self._file, outputs.reshape(len(outputs), -1).numpy(), delimiter=",", fmt="%.17g")
            else:
                self._kept.setdefault(name, []).append(outputs)
        except OSError as error:
            raise StoreError.from_os(error, f"writing {printable(self.path, 160)}", keeping=False) from None
        self._started = True

    def _add_npy(self, outputs: Tensor) -> None:
        assert self._file is not None
        array = outputs.contiguous().numpy()
        if not self._started:
            shape = array.shape if self.steps is None else (self.steps, *array.shape)
            header = {
                "descr": np.lib.format.dtype_to_descr(array.dtype),
                "fortran_order": False,
                "shape": shape,
            }
            np.lib.format.write_array_header_1_0(self._file, header)
        self._file.write(array.tobytes())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._file is not None
        try:
            if kind is None:
                self._finish()
                self._file.flush()
                os.fsync(self._file.fileno())
            self._file.close()
            if kind is None:
                os.replace(self._staging, self.path)
        except OSError as failure:
            raise StoreError.from_os(failure, f"writing {printable(self.path, 160)}", keeping=False) from None
        finally:
            with contextlib.suppress(OSError):
                self._file.close()  # on a full disk it fails once more
            with contextlib.suppress(OSError):
                self._staging.unlink(missing_ok=True)

    def _finish(self) -> None:
        assert self._file is not None
        if not self._kept:
            return
        found = {name: kept[0] if self.steps is None else torch.stack(kept) for name, kept in self._kept.items()}
        if self.suffix == ".npz":
            named: dict[str, Any] = {name: tensor.numpy() for name, tensor in found.items()}
            np.savez(self._file, **named)
            return
        plain = {name: real_view(tensor).contiguous() for name, tensor in found.items()}
        if self.suffix == ".json":
            lists = {name: tensor.tolist() for name, tensor in plain.items()}
            self._file.write(json.dumps(lists[OUTPUTS] if self.names == (OUTPUTS,) else lists).encode() + b"\n")
        else:
            self._file.write(safetensors.torch.save(plain, metadata={"format": "pt"}))
