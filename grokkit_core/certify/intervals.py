"""What a feed-forward network can return in floating point for any input of a box, and the spectral norm of a matrix.

For z = W x + b with n inputs, summed in any order, Higham (Accuracy and Stability of Numerical Algorithms, 2002, 3.1)
bounds the rounding by gamma_(n+1) (|W| |x| + |b|) with gamma_n = n u/(1 - n u). A box that holds the exact and the
floating-point values of one layer is carried to the next by interval arithmetic (Moore 1966) and this margin, beside
the difference of the two, |W| e + margin. The bounds are themselves computed in float64 and enlarged by its own margins.

Assumed of the evaluation: products and sums are rounded to `dtype` or finer, with or without fused multiply-add, in any
order (no TF32, no bfloat16, no Strassen); subnormal numbers may be flushed to zero; tanh errs by `TANH_ULPS` at most.
Of the bounds' own arithmetic: float64 rounded to nearest with gradual underflow, matrix products as plain sums.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, get_args

import torch
from torch import Tensor

from grokkit_core.errors import UsageError

Activation = Literal["identity", "relu", "tanh"]

TANH_ULPS = 4.0
"""Assumed error of tanh in units in the last place. SLEEF (torch on CPUs) and CUDA state 1, glibc 2; tests find 1.1 at most."""

_DOUBLE = torch.finfo(torch.float64)


@dataclass(frozen=True, eq=False)
class Affine:
    """One layer, activation(weight x + bias): weight "out in" and bias "out" in float32 or float64."""

    weight: Tensor
    bias: Tensor
    activation: Activation = "identity"

    def __post_init__(self) -> None:
        shapes = f"weight {list(self.weight.shape)}, bias {list(self.bias.shape)}"
        if self.weight.dim() != 2 or self.bias.shape != self.weight.shape[:1]:
            raise UsageError(shapes, expected="weight [out, in] and bias [out]")
        for tensor in (self.weight, self.bias):
            _check_dtype(tensor.dtype)
        if self.activation not in get_args(Activation):
            raise UsageError(f"activation '{self.activation}'", expected=", ".join(get_args(Activation)))


@dataclass(frozen=True)
class _Reach:
    """Exact and floating-point values lie in [low, high] "*box units" and at most `error` apart; all float64."""

    low: Tensor
    high: Tensor
    error: Tensor

    @property
    def magnitude(self) -> Tensor:
        """The largest absolute value."""
        return torch.maximum(self.low.abs(), self.high.abs())


def output_box(layers: Sequence[Affine], low: Tensor, high: Tensor, *, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Bounds "*box out" (float64) of what the network returns for every input in [low, high] "*box in".

    They hold for an evaluation in `dtype` (float32 or float64; weights and inputs cast to it) in any order of summation,
    and for the exact network with the weights as given. Infinite where a weight or an input is not finite or a number
    may overflow, for then NaN may follow. What is assumed of the evaluation stands at the head of this module.

    Raises `UsageError` for shapes that do not fit, another dtype, or low > high.
    """
    reach = _reach(layers, low, high, dtype)
    return reach.low, reach.high


def rounding_margin(layers: Sequence[Affine], low: Tensor, high: Tensor, *, dtype: torch.dtype) -> Tensor:
    """A bound "*box out" (float64) of |value in `dtype` - exact value| over the inputs in the box that `dtype` has.

    The exact network has the weights as given; that they are cast to `dtype` counts as rounding. Never more than the
    width of `output_box`; infinite and raising as there.
    """
    return _reach(layers, low, high, dtype).error


def operator_norm_above(matrix: Tensor) -> float:
    """An upper bound of the spectral norm of a real matrix "m n"; infinite if an entry is not finite.

    The least of the Frobenius norm, sqrt(|A|_1 |A|_inf) and, for a computed decomposition A = U S V' + R (Rump 2011,
    Verified bounds for singular values), max S sqrt((1 + |U'U - I|)(1 + |V'V - I|)) + |R|, the latter norms Frobenius.
    Nothing is assumed of U, S, V; residuals carry their rounding margins. Usually tight to 1e-12.

    Raises `UsageError` if this is no real floating-point matrix.
    """
    if matrix.dim() != 2 or not matrix.is_floating_point():
        raise UsageError(f"{matrix.dtype} tensor {list(matrix.shape)}", expected="a real floating-point matrix")
    given = _double(matrix)
    if not bool(torch.isfinite(given).all()):
        return math.inf
    if not bool(given.any()):
        return 0.0
    exponent = math.frexp(given.abs().max().item())[1]
    scaled = given * 2.0 ** -(exponent // 2) * 2.0 ** (exponent // 2 - exponent)
    lost = math.sqrt(given.numel()) * _DOUBLE.tiny  # entries that scaling makes subnormal
    bound = _next(min(_frobenius(scaled.abs()), _crossed(scaled), _decomposed(scaled)) + _next(lost))
    try:
        return math.nextafter(math.ldexp(bound, exponent), math.inf)
    except OverflowError:
        return math.inf


def _reach(layers: Sequence[Affine], low: Tensor, high: Tensor, dtype: torch.dtype) -> _Reach:
    _check_dtype(dtype)
    if low.shape != high.shape or low.dim() < 1 or not bool((low <= high).all()):
        raise UsageError(
            f"a box from {list(low.shape)} to {list(high.shape)}", expected="low <= high of one shape [*box, in]"
        )
    # rounding is monotone: a number of the box lands between the rounded ends
    below, above = _double(low), _double(high)
    below, above = torch.minimum(below, below.to(dtype).double()), torch.maximum(above, above.to(dtype).double())
    reach = _Reach(below, above, torch.zeros_like(below))
    for layer in layers:
        if reach.low.shape[-1] != layer.weight.shape[1]:
            raise UsageError(
                f"{reach.low.shape[-1]} values into weight {list(layer.weight.shape)}",
                expected="as many as it has columns",
            )
        reach = _through(layer, reach, dtype)
    return reach


def _through(layer: Affine, reach: _Reach, dtype: torch.dtype) -> _Reach:
    """The reach after one layer; infinite for units that may not stay finite, for all if an input may not be."""
    weight, bias = _double(layer.weight), _double(layer.bias)
    cast, shift = weight.to(dtype).double(), bias.to(dtype).double()
    sound = torch.isfinite(cast).all(dim=1) & torch.isfinite(shift) & torch.isfinite(weight).all(dim=1)
    entered = torch.isfinite(reach.magnitude).all(dim=-1, keepdim=True)
    weight, cast = (torch.where(sound[:, None], tensor, 0.0) for tensor in (weight, cast))
    bias, shift = (torch.where(sound, tensor, 0.0) for tensor in (bias, shift))
    clean = _Reach(*(torch.where(entered, tensor, 0.0) for tensor in (reach.low, reach.high, reach.error)))
    size = _sum(_product(clean.magnitude, cast.abs()), shift.abs())
    margin = _sum(_scaled(size, _gamma(weight.shape[1] + 1, dtype)), _flushed(cast, clean.magnitude, dtype))
    drift = _sum(_product(clean.magnitude, _up((weight - cast).abs())), _up((bias - shift).abs()))
    error = _sum(_product(clean.error, weight.abs()), _sum(margin, drift))
    # floating-point values differ from the range below by `margin`, exact ones by `drift`
    spread = _sum(torch.maximum(margin, drift), _scaled(size, _gamma(2 * weight.shape[1] + 2, torch.float64)))
    spread = _sum(spread, torch.full_like(spread, (2 * weight.shape[1] + 2) * _DOUBLE.tiny))
    rise, fall = cast.clamp(min=0.0).T, cast.clamp(max=0.0).T
    low = _down((clean.low @ rise + clean.high @ fall + shift) - spread)
    high = _up((clean.high @ rise + clean.low @ fall + shift) + spread)
    stays = sound & entered & (_sum(size, spread) < torch.finfo(dtype).max)
    return _infinite_unless(stays, _activated(layer.activation, _Reach(low, high, error), dtype))


def _activated(activation: Activation, reach: _Reach, dtype: torch.dtype) -> _Reach:
    """The reach after relu (exact) or tanh; both grow nowhere faster than their argument, so errors do not grow."""
    low, high, error = reach.low, reach.high, reach.error
    if activation == "relu":
        low, high = low.clamp(min=0.0), high.clamp(min=0.0)
    if activation == "tanh":
        # t (1 - K eps) rises with t; float64's own tanh errs by K eps64 |t|, doubled to refer to the computed |t|
        share = TANH_ULPS * (torch.finfo(dtype).eps + 2 * _DOUBLE.eps)
        tiny = torch.finfo(dtype).tiny
        low, high = torch.tanh(low), torch.tanh(high)
        low = _down(low - _up(_scaled(low.abs(), share) + tiny))
        high = _up(high + _up(_scaled(high.abs(), share) + tiny))
        error = _sum(error, _up(_scaled(torch.maximum(low.abs(), high.abs()), share) + tiny))
    return _Reach(low, high, torch.minimum(error, _up(high - low)))


def _infinite_unless(stays: Tensor, reach: _Reach) -> _Reach:
    return _Reach(
        torch.where(stays, reach.low, -math.inf),
        torch.where(stays, reach.high, math.inf),
        torch.where(stays, reach.error, math.inf),
    )


def _flushed(weight: Tensor, magnitude: Tensor, dtype: torch.dtype) -> Tensor:
    """What underflow can cost, "*box out": `tiny` for each product and sum, tiny |x| or tiny |w| for a factor lost.

    That is at most tiny (3 + |w| + |x|) for each of n terms and the bias; four times as much for the roundings of the
    evaluation that follow (below e^(1/2) where gamma is finite) and those of this sum.
    """
    factors = weight.abs().sum(dim=1) + magnitude.sum(dim=-1, keepdim=True)
    return _scaled(factors + 3.0 * (weight.shape[1] + 1), 4.0 * torch.finfo(dtype).tiny)


def _decomposed(matrix: Tensor) -> float:
    """The bound by a singular value decomposition of a matrix with entries up to 1; infinite if there is none."""
    try:
        left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    except RuntimeError:  # torch.linalg.LinAlgError: the iteration did not converge
        return math.inf
    unit = torch.eye(len(values), dtype=torch.float64)
    skew = [_frobenius(_defect(side.mT, side, unit)) for side in (left, right.mT)]
    stretch = _next(math.sqrt(_next(_next(1.0 + skew[0]) * _next(1.0 + skew[1]))))
    largest = values.abs().max().item()
    bound = _next(_next(largest * stretch) + _frobenius(_defect(left * values, right, matrix)))
    return bound if math.isfinite(bound) else math.inf


def _crossed(matrix: Tensor) -> float:
    """sqrt(|A|_1 |A|_inf) from above."""
    count = _gamma(max(matrix.shape), torch.float64)
    column, row = (matrix.abs().sum(dim=axis).max().item() * (1.0 + 2.0 * count) for axis in (0, 1))
    return _next(math.sqrt(_next(_next(column) * _next(row))))


def _frobenius(entries: Tensor) -> float:
    """The Frobenius norm of non-negative entries from above; those whose squares underflow are counted as 1e-154."""
    squares = _up(entries.square()).sum().item() + entries.numel() * 1e-307
    return _next(math.sqrt(_next(squares * (1.0 + 2.0 * _gamma(entries.numel() + 2, torch.float64)))))


def _defect(left: Tensor, right: Tensor, target: Tensor) -> Tensor:
    """|left @ right - target| "m n" from above, also where an entry of `left` is a product rounded once before."""
    slack = 2.0 * _gamma(left.shape[1] + 4, torch.float64)
    size = _sum(_product(left.abs(), right.abs().mT), target.abs())
    return _sum(_up((left @ right - target).abs()), _up(_scaled(size, slack) + (left.shape[1] + 4) * _DOUBLE.tiny))


def _product(values: Tensor, weight: Tensor) -> Tensor:
    """values @ weight.T from above, "*box in" and "out in", both non-negative."""
    count = weight.shape[1]
    return _up(_scaled(values @ weight.mT, 1.0 + 2.0 * _gamma(count + 1, torch.float64)) + count * _DOUBLE.tiny)


def _scaled(values: Tensor, factor: float) -> Tensor:
    """Non-negative values times a factor, from above."""
    return _up(values * factor)


def _sum(values: Tensor, others: Tensor) -> Tensor:
    """The sum of non-negative numbers from above."""
    return _up(values + others)


def _up(values: Tensor) -> Tensor:
    return torch.nextafter(values, torch.full_like(values, math.inf))


def _down(values: Tensor) -> Tensor:
    return torch.nextafter(values, torch.full_like(values, -math.inf))


def _next(value: float) -> float:
    return math.nextafter(value, math.inf)


def _gamma(count: int, dtype: torch.dtype) -> float:
    """n u/(1 - n u) from above; infinite from n u = 1/2 on."""
    share = Fraction(count) * Fraction(torch.finfo(dtype).eps) / 2
    return math.inf if share >= Fraction(1, 2) else _next(float(share / (1 - share)))


def _double(tensor: Tensor) -> Tensor:
    """The same numbers in float64, on the CPU, without gradient."""
    return tensor.detach().to("cpu", torch.float64)


def _check_dtype(dtype: torch.dtype) -> None:
    if dtype not in (torch.float32, torch.float64):
        raise UsageError(f"{dtype}", expected="torch.float32 or torch.float64")
