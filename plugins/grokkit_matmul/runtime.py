"""From two matrices to their product: which way to take, checked first; the recursion where it is faster."""

from __future__ import annotations

import hashlib
import math
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from grokkit_core.errors import Incompatible, UsageError
from grokkit_core.text import printable
from grokkit_matmul import levels as level_choice
from grokkit_matmul import winograd
from grokkit_matmul.finite import is_finite
from grokkit_matmul.recursion import Blockwise, Recursion, Winograd
from grokkit_matmul.scheme import Scheme

AUTOMATIC = (torch.float32, torch.float64)
"""Dtypes in which the recursion may be chosen by itself; in bfloat16 sums of operands lose too much, and it never won."""

INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
"""Integers that torch multiplies."""

MOST_LEVELS = 16
_wrapped = torch._C._functorch.is_functorch_wrapped_tensor
_batched = torch._C._functorch.is_legacy_batchedtensor


class Runtime:
    """Multiplies matrices by a scheme. Without a number of levels it takes the one that calibration found fastest here.

    Matrices of exactly the scheme's own format are always multiplied by its coefficients, and so is everything by a
    scheme that is not exact: such a runtime computes what the coefficients say, right or wrong.
    """

    def __init__(self, scheme: Scheme) -> None:
        self.scheme = scheme
        self.is_exact = scheme.is_exact
        self.is_winograd = self.is_exact and winograd.runs(scheme)
        self.recursion: Recursion = Winograd() if self.is_winograd else Blockwise(scheme)
        self._native = (scheme.format.m, scheme.format.k, scheme.format.n)
        self._coefficients: dict[tuple[torch.dtype, torch.device], tuple[Tensor, Tensor, Tensor]] = {}

    @cached_property
    def form(self) -> str:
        """What calibration depends on: the schedule, or the coefficients."""
        if self.is_winograd:
            return "winograd"
        data = b"".join(factor.astype("<i8").tobytes() for factor in (self.scheme.u, self.scheme.v, self.scheme.w))
        return f"blockwise {self.scheme.format} {self.scheme.rank} {hashlib.sha256(data).hexdigest()[:16]}"

    def multiply(self, a: Tensor, b: Tensor, *, out: Tensor | None = None, levels: int | None = None) -> Tensor:
        """`a` "... m k" times `b` "... k n", as `torch.matmul`, with its gradients.

        `levels` of recursion are taken as given; 0 is the plain product, which suits badly scaled blocks. `out` is a
        matrix "m n" that is written and returned; it may overlap the inputs. Integers are exact or refused.
        Raises `Incompatible` or `UsageError`.
        """
        _check(a, b)
        watched = torch.is_grad_enabled() and (a.requires_grad or b.requires_grad)
        if out is not None:
            _check_out(a, b, out, watched)
        if levels is not None:
            _check_levels(levels)
        if not watched and a.ndim == b.ndim == 2 and a.is_floating_point() and not _is_special(a, b):
            if levels is None:
                levels = self.chosen_levels(a, b)
            if levels == 0 and (out is None or not _overlap(out, a, b)):
                return torch.mm(a, b) if out is None else torch.mm(a, b, out=out)
            return self._fast(a, b, out, levels)
        return self._general(a, b, out, levels)

    def chosen_levels(self, a: Tensor, b: Tensor) -> int:
        """The levels that a call takes by itself."""
        m, k, n = a.shape[-2], a.shape[-1], b.shape[-1]
        if not self.is_exact or (m, k, n) == self._native:
            return 1
        if a.ndim > 2 or b.ndim > 2 or a.dtype not in AUTOMATIC:
            return 0
        return level_choice.chosen(self.form, a.dtype, a.device, min(m, k, n))

    def _fast(self, a: Tensor, b: Tensor, out: Tensor | None, levels: int) -> Tensor:
        """The recursion on plain matrices, autograd off; `torch.mm` instead where the result is not finite.

        Sums of blocks spread NaN and infinity, and may overflow, where the plain product keeps them in their row or column.
        """
        shape = (a.shape[0], b.shape[1])
        with torch.no_grad():
            direct = out is not None and _is_plain(out) and not _overlap(out, a, b)
            target = out if direct and out is not None else a.new_empty(shape)
            if min(*a.shape, *shape) == 0:
                torch.mm(a, b, out=target)
            else:
                self.recursion.multiply(_rows_or_columns(a), _rows_or_columns(b), target, levels)
                if self.is_exact and not self.recursion.is_finite(target):
                    torch.mm(a, b, out=target)
        if out is None or direct:
            return target
        return out.copy_(target)

    def _general(self, a: Tensor, b: Tensor, out: Tensor | None, levels: int | None) -> Tensor:
        """Batches, gradients, integers, complex and short floats, transformed tensors."""
        if _is_special(a, b):
            if not self.is_exact:
                raise Incompatible("a transform of products by a scheme that is not exact", expected="an exact scheme")
            return torch.matmul(a, b) if out is None else out.copy_(torch.matmul(a, b))
        if not a.is_floating_point() and not a.is_complex():
            _check_integers(a, b)
        count = self.chosen_levels(a, b) if levels is None else levels
        if out is not None:
            return out.copy_(self._general(a, b, None, levels))
        if count == 0:
            return torch.matmul(a, b)
        if (a.shape[-2], a.shape[-1], b.shape[-1]) == self._native and count == 1:
            return self._by_coefficients(a, b)
        if torch.is_grad_enabled() and (a.requires_grad or b.requires_grad):
            product: Tensor = _Product.apply(a, b, self, count)  # type: ignore[no-untyped-call]
            return product
        return self._each(a, b, count)

    def _by_coefficients(self, a: Tensor, b: Tensor) -> Tensor:
        """Matrices of the scheme's own format: its sums and products, over any number of leading axes."""
        u, v, w = self._factors(a)
        products = torch.einsum("rij,...ij->...r", u, a) * torch.einsum("rij,...ij->...r", v, b)
        result = torch.einsum("...r,rij->...ij", products, w)
        if self.is_exact and not is_finite([result.detach()]):
            return torch.matmul(a, b)
        return result

    def _factors(self, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        key = like.dtype, like.device
        if key not in self._coefficients:
            with torch.inference_mode(False):
                u, v, w = (
                    torch.from_numpy(factor.astype("int64")).to(like.device, like.dtype)
                    for factor in (self.scheme.u, self.scheme.v, self.scheme.w)
                )
            self._coefficients[key] = u, v, w
        return self._coefficients[key]

    def _each(self, a: Tensor, b: Tensor, levels: int) -> Tensor:
        """Every pair of matrices of two batches in turn."""
        leading = _broadcast(a.shape[:-2], b.shape[:-2])
        count = math.prod(leading)
        first, second = (x.expand(*leading, *x.shape[-2:]).reshape(count, *x.shape[-2:]) for x in (a, b))
        result = a.new_empty(count, a.shape[-2], b.shape[-1])
        for left, right, target in zip(first, second, result, strict=True):
            self._fast(left, right, target, levels)
        return result.reshape(*leading, a.shape[-2], b.shape[-1])


class _Product(torch.autograd.Function):
    """The product with its two gradients, which are products too: dA = dC B^H, dB = A^H dC, summed over broadcast axes."""

    @staticmethod
    def forward(a: Tensor, b: Tensor, runtime: Runtime, levels: int) -> Tensor:
        return runtime._each(a, b, levels)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        a, b, ctx.runtime, ctx.levels = inputs
        ctx.save_for_backward(a, b)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (a, b), (gradient,) = ctx.saved_tensors, gradients
        multiply, left, right = ctx.runtime.multiply, None, None
        if ctx.needs_input_grad[0]:
            left = multiply(gradient, b.mH, levels=ctx.levels).sum_to_size(a.shape)
        if ctx.needs_input_grad[1]:
            right = multiply(a.mH, gradient, levels=ctx.levels).sum_to_size(b.shape)
        return left, right, None, None


def _check(a: Tensor, b: Tensor) -> None:
    for name, tensor in (("a", a), ("b", b)):
        if not isinstance(tensor, Tensor):
            raise Incompatible(f"input '{name}' is a {type(tensor).__name__}", expected="a torch.Tensor")
        if tensor.ndim < 2:
            raise Incompatible(
                f"input '{name}' has shape {list(tensor.shape)}", expected="a matrix, or a batch of them"
            )
    if a.shape[-1] != b.shape[-2]:
        raise Incompatible(
            f"a matrix {list(a.shape[-2:])} times a matrix {list(b.shape[-2:])}",
            expected=f"{a.shape[-1]} rows in b, as many as a has columns",
        )
    if a.dtype != b.dtype:
        raise Incompatible(f"inputs of dtypes {a.dtype} and {b.dtype}", expected="one dtype", hint="cast one of them")
    if a.device != b.device:
        raise Incompatible(f"inputs on {a.device} and {b.device}", expected="one device", hint="move one of them")
    if a.ndim > 2 or b.ndim > 2:
        _check_batches(a, b)


def _broadcast(*shapes: torch.Size) -> tuple[int, ...]:
    return tuple(torch.broadcast_shapes(*shapes))  # type: ignore[no-untyped-call]


def _check_batches(a: Tensor, b: Tensor) -> None:
    try:
        _broadcast(a.shape[:-2], b.shape[:-2])
    except RuntimeError:
        raise Incompatible(
            f"batches {list(a.shape[:-2])} and {list(b.shape[:-2])}", expected="leading axes that broadcast"
        ) from None


def _check_out(a: Tensor, b: Tensor, out: Tensor, watched: bool) -> None:
    if not isinstance(out, Tensor):
        raise Incompatible(f"out is a {type(out).__name__}", expected="a torch.Tensor")
    leading = _broadcast(a.shape[:-2], b.shape[:-2]) if a.ndim > 2 or b.ndim > 2 else ()
    shape = (*leading, a.shape[-2], b.shape[-1])
    if out.shape != shape or out.dtype != a.dtype or out.device != a.device:
        raise Incompatible(
            f"out is {list(out.shape)} {out.dtype} on {out.device}", expected=f"{list(shape)} {a.dtype} on {a.device}"
        )
    if watched or (out.requires_grad and torch.is_grad_enabled()):
        raise Incompatible("out= with tensors that need gradients", expected="no out=", hint="or torch.no_grad()")


def _check_levels(levels: object) -> None:
    if type(levels) is not int or not 0 <= levels <= MOST_LEVELS:
        raise UsageError(f"levels {printable(repr(levels), 40)}", expected=f"a whole number from 0 to {MOST_LEVELS}")


def _check_integers(a: Tensor, b: Tensor) -> None:
    """Raise unless every partial sum fits the dtype; what wraps round is not a product."""
    if a.dtype not in INTEGERS:
        names = ", ".join(str(dtype).removeprefix("torch.") for dtype in INTEGERS)
        raise Incompatible(f"inputs of dtype {a.dtype}", expected=f"floats or {names}", hint="cast them to torch.int64")
    if a.is_cuda:
        raise Incompatible(f"inputs of dtype {a.dtype} on {a.device}", expected="floats there, or integers on the CPU")
    if a.numel() == 0 or b.numel() == 0:
        return
    largest = [max(abs(int(x.max())), abs(int(x.min()))) for x in (a, b)]
    if a.shape[-1] * largest[0] * largest[1] > torch.iinfo(a.dtype).max:
        raise Incompatible(
            f"integers up to {largest[0]} and {largest[1]} over {a.shape[-1]} terms in {a.dtype}",
            expected="sums that fit the dtype",
            hint="cast to torch.int64, or to torch.float64 for a rounded result",
        )


def _is_special(*tensors: Tensor) -> bool:
    """Whether torch must see the whole product: forward-mode and `torch.func` transforms, autocast, subclasses, no data."""
    if torch.autograd.forward_ad._current_level >= 0 or torch._C._is_any_autocast_enabled():
        return True
    for x in tensors:
        if type(x) is not Tensor and type(x) is not torch.nn.Parameter:
            return True
        if _wrapped(x) or _batched(x) or x.is_meta or x.layout is not torch.strided:
            return True
    return False


def _is_plain(out: Tensor) -> bool:
    """Whether a BLAS can write rows of it."""
    return out.stride(1) == 1 and out.stride(0) >= max(1, out.shape[1])


def _overlap(out: Tensor, *inputs: Tensor) -> bool:
    """Whether they may share memory: the stretches from their first to their last entries meet."""
    first = out.data_ptr()
    end = first + _reach(out)
    for x in inputs:
        start = x.data_ptr()
        if start < end and first < start + _reach(x):
            return True
    return False


def _reach(tensor: Tensor) -> int:
    """Bytes from its first entry to behind its last one."""
    if tensor.is_contiguous():
        return tensor.nbytes
    if tensor.numel() == 0:
        return 0
    steps = ((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return (1 + sum(steps)) * tensor.itemsize


def _rows_or_columns(matrix: Tensor) -> Tensor:
    """The matrix itself where a BLAS takes it as it is, else a copy, so that blocks are not copied at every level."""
    rows, columns = matrix.stride()
    if (columns == 1 and rows >= matrix.shape[1]) or (rows == 1 and columns >= matrix.shape[0]):
        return matrix
    return matrix.contiguous()
