"""Tensors to the bytes of a weights file and back."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import safetensors.torch
import torch
from torch import Tensor

from grokkit_core import weights
from grokkit_core.errors import BadWeights
from grokkit_core.text import printable

DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def pack(tensors: Mapping[str, Tensor]) -> bytes:
    """The bytes of a weights file; equal tensors give equal bytes. Complex tensors are stored as real views.

    Raises `BadWeights` for a name, dtype or value that the format does not allow.
    """
    plain = {name: _plain(name, tensor) for name, tensor in tensors.items()}
    data = safetensors.torch.save(plain, metadata={"format": "pt"})
    weights.read_header(data)
    return data


def unpack(data: bytes) -> dict[str, Tensor]:
    """The tensors of a weights file, after the strict check of its header; raises `BadWeights` or `TooLarge`."""
    header = weights.read_header(data)
    try:
        tensors = safetensors.torch.load(data)
    except (
        safetensors.SafetensorError,
        KeyError,
        TypeError,
        ValueError,
        OverflowError,
        RuntimeError,
        MemoryError,
    ) as error:
        raise BadWeights(f"the weights file cannot be read: {printable(error)}") from None
    for name, info in header.items():
        tensor = tensors.get(name)
        if tensor is None or DTYPES.get(tensor.dtype) != info.dtype or tuple(tensor.shape) != info.shape:
            raise BadWeights(f"tensor '{name}' differs from its header")
    if len(tensors) != len(header):
        raise BadWeights(f"the weights file yields {len(tensors)} tensors", expected=str(len(header)))
    check_finite(tensors)
    return tensors


def check_finite(tensors: Mapping[str, Tensor]) -> None:
    """Raise `BadWeights` if a floating tensor holds NaN or infinity."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise BadWeights(f"tensor '{printable(name, 80)}' holds NaN or infinity", expected="finite weights")


def tensor_digest(tensors: Mapping[str, Tensor]) -> str:
    """`sha256:` and the hash of the tensors' bytes in name order."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(_bytes(tensors[name]))
    return "sha256:" + digest.hexdigest()


def count_parameters(tensors: Mapping[str, Tensor]) -> int:
    """The number of numbers in floating tensors, a complex one counting twice, and in int8; wider integers are indices."""
    return sum(tensor.numel() * (2 if tensor.is_complex() else 1) for tensor in tensors.values() if _is_learned(tensor))


def _is_learned(tensor: Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.int8


def _plain(name: str, tensor: Tensor) -> Tensor:
    if not weights.is_tensor_name(name):
        raise BadWeights(f"tensor name '{printable(name, 80)}'", expected="letters, digits, '_', '.', '-'")
    if tensor.layout is not torch.strided or tensor.is_meta:
        raise BadWeights(f"tensor '{name}' is sparse or has no values", expected="a dense tensor")
    plain = tensor.detach().to("cpu")
    if plain.is_complex():
        plain = torch.view_as_real(plain.resolve_conj())
    if plain.dtype not in DTYPES:
        raise BadWeights(f"tensor '{name}' has dtype {plain.dtype}", expected="one of " + ", ".join(DTYPES.values()))
    check_finite({name: plain})
    return plain.contiguous().clone()


def _bytes(tensor: Tensor) -> bytes:
    flat = tensor.detach().to("cpu")
    if flat.is_complex():
        flat = torch.view_as_real(flat.resolve_conj())
    return flat.clone(memory_format=torch.contiguous_format).reshape(-1).view(torch.uint8).numpy().tobytes()
