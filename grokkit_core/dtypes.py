"""Real and complex numbers of one precision: networks of real weights compute with both."""

from __future__ import annotations

import torch
from torch import Tensor


def is_inexact(tensor: Tensor) -> bool:
    """Whether a tensor holds floating or complex numbers."""
    return tensor.is_floating_point() or tensor.is_complex()


def real_dtype(dtype: torch.dtype) -> torch.dtype:
    """The floating dtype of the parts of a complex one; any other as it is."""
    return dtype.to_real() if dtype.is_complex else dtype


def cast(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Floating and complex numbers in the precision of `dtype`, each in its kind; whole numbers and bits as they are."""
    if tensor.is_complex():
        return tensor.to(real_dtype(dtype).to_complex())
    return tensor.to(real_dtype(dtype)) if tensor.is_floating_point() else tensor


def cast_dtype(dtype: torch.dtype, kind: torch.dtype) -> torch.dtype:
    """`dtype` as a complex one where `kind` is complex, else as a real one."""
    return real_dtype(dtype).to_complex() if kind.is_complex else real_dtype(dtype)


def real_view(tensor: Tensor) -> Tensor:
    """A complex tensor with its parts as a last axis of two; any other as it is."""
    return torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor


def squared_size(tensor: Tensor) -> Tensor:
    """|z|^2 of each number, real."""
    return real_view(tensor).square().sum(-1) if tensor.is_complex() else tensor.square()
